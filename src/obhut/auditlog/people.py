"""From a person to the ids of its keys, for searching: looks only, never makes a key."""

from __future__ import annotations

from obhut.auditlog.reading import STATEMENTS
from obhut.controllers.vocabulary import SubjectRef
from obhut.keystore.subjects import Keyring
from obhut.keystore.wrapping import fingerprint


def key_ids(keyring: Keyring, controller: str, ref: SubjectRef) -> list[bytes]:
    """Return the ids of all keys that a person has or had; also of one whose key was destroyed. Empty where there never was one."""
    owner = keyring.epochs.known([controller]).get(controller)
    if owner is None:
        return []
    rows = keyring.session.rows(STATEMENTS["key_ids"], (owner.number, fingerprint(owner.lookup, ref)))
    return [bytes(row[0]) for row in rows]
