"""Promise *erasure*: a user's deletion reaches every place, and no restore brings the user back.

Keeps the erasure list (``docs/spec/erasure-list.md``): who must stay erased, durable in two places before the first row goes. Never
erases without a tombstone, never holds a name or free text, never shows a partial erasure as done, and never forgets a person
while a copy can still hold them.
"""
