"""Personal data is processed only on a controller's documented instruction, under its contract (Art. 28 GDPR).

Keeps controllers (the vendor's customers), their contracts and their instructions, and holds the one gate that every erasure,
restore and export asks first. Never decides for a controller: without an instruction the answer is no, and it names what is missing.
Never stores a person's name or address: who gave an instruction is an opaque reference, what was said is the hash of a document.
"""
