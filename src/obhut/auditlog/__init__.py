"""Every change of personal data is logged, and each controller can get and verify its log.

A log a controller and month: an append-only Merkle tree whose entries hold personal values as ciphertext under the person's own key
(specification: ``docs/spec/audit-log.md``). Never logs a change twice or leaves one out silently, never signs two histories, never needs
to be believed: a bundle is verified with no database and no network, also after a person was erased from it.
"""
