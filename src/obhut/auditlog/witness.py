"""Witnesses: somebody else signs that a checkpoint was seen, and that it continues the one seen before (C2SP *tlog-witness*).

Never accepts a cosignature that does not verify under a key that was declared for this controller.
"""

from __future__ import annotations

from obhut.auditlog.errors import WitnessError
from obhut.auditlog.reading import STATEMENTS, LogHead
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import Store
from obhut.auditlog.tlog import checkpoints, proofs
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.foundation import notes
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.notes import Kind, NoteError, SignatureError, VerifierKey
from obhut.postgres.connections import Session


def declare(session: Session, controller: str, key: str, actor: Actor, clock: Clock) -> VerifierKey:
    """Accept cosignatures of a key on a controller's checkpoints from now on.

    Raises:
        WitnessError: it is not the verifier key of a witness.
    """
    try:
        found = notes.parse_key(key)
    except NoteError:
        raise WitnessError("not a verifier key", "A witness hands out one line: name+id+key.") from None
    if found.kind is Kind.ED25519:
        raise WitnessError("a key of a log, not of a witness", "The type of a witness's key is 04 (Ed25519) or 06 (ML-DSA-44).")
    session.execute(STATEMENTS["declare_witness"], (controller, str(found), str(actor), clock.now()))
    return found


def declared(session: Session, controller: str) -> list[VerifierKey]:
    """Return the keys whose cosignatures are accepted."""
    return [notes.parse_key(row[0]) for row in session.rows(STATEMENTS["witnesses"], (controller,))]


def request(session: Session, store: Store, signer: Signer, head: LogHead, old: int, clock: Clock) -> str:
    """Return what a witness is asked with: the size it knows, a proof that the log has only grown since, the checkpoint.

    Args:
        session: on the control database, where the asked checkpoint is kept for the answer.
        store: where the log lies.
        signer: the controller's log keys.
        head: the log.
        old: size that the witness saw last; 0 for none.
        clock: the time of asking.

    Raises:
        WitnessError: the witness claims to know more than there is.
    """
    if old > head.size:
        raise WitnessError(f"the witness saw {old} entries, the log has {head.size}", "A log that shrank: do not sign, find out why.")
    note = signer.hand_out(Checkpoint(head.origin, head.size, head.root), clock.now())
    if not head.checkpoint or notes.parse(head.checkpoint).text != note.text:
        session.execute(STATEMENTS["keep_checkpoint"], (str(note), head.id))
    path = proofs.consistency(head.files(store).reader(head.size), old, head.size)
    return checkpoints.request(old, path, note)


def accept(session: Session, head: LogHead, lines: str) -> list[tuple[str, int]]:
    """Add a witness's answer to the checkpoint it was asked about; returns names and times (seconds since the epoch).

    Raises:
        WitnessError: nobody was asked, or a line does not verify under a declared key.
    """
    if not head.checkpoint:
        raise WitnessError("no witness was asked about this log", 'Ask first: "obhut audit witness request".')
    asked = notes.parse(head.checkpoint)
    try:
        given = notes.parse_signatures(lines)
    except NoteError:
        raise WitnessError("the answer holds no signature lines", "A line begins with an em dash, a name and base64.") from None
    known = {(key.name, key.id): key for key in declared(session, head.controller)}
    signed = notes.with_signatures(asked, given)
    seen = []
    for line in given:
        key = known.get((line.name, line.id))
        try:
            if key is None:
                raise SignatureError
            seen.append((line.name, checkpoints.cosigned_at(signed, key)))
        except SignatureError:
            raise WitnessError("a cosignature of no declared witness, or of another checkpoint", "Nothing was added.") from None
    session.execute(STATEMENTS["keep_checkpoint"], (str(signed), head.id))
    return seen
