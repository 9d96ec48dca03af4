"""After the control database was restored: bring it up to what was published, from the logs themselves.

Copies forward only. What was published and cannot be found again as it was signed stops the recovery; nothing is signed before its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from obhut.auditlog import entries
from obhut.auditlog.entries import Entry, Position
from obhut.auditlog.errors import LogForkedError, LogRolledBackError
from obhut.auditlog.files import LogFiles
from obhut.auditlog.log import STATEMENTS, Log
from obhut.auditlog.signing import Signer, SigningKeys
from obhut.auditlog.store import Store
from obhut.auditlog.tlog import merkle, tiles
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.auditlog.tlog.merkle import WIDTH
from obhut.foundation import notes
from obhut.postgres.connections import Session


@dataclass(frozen=True, slots=True)
class Recovered:
    """A log that the control database knows again."""

    controller: str
    period: str
    before: int
    after: int


def recover(session: Session, store: Store, keys: SigningKeys, log: Log, database: str, controllers: Sequence[str]) -> list[Recovered]:
    """Bring the control database up to the published checkpoints of controllers' logs.

    Args:
        session: on the control database.
        store: where the logs lie.
        keys: the log keys: only what they signed is believed.
        log: the open logs of the database, whose index it fills.
        database: the protected database.
        controllers: whose.

    Raises:
        LogForkedError: the store does not hold what was signed, or the control database holds something else.
    """
    done = []
    for controller in controllers:
        signer = Signer.of(keys, controller)
        for period in store.children(controller):
            found = _one(session, LogFiles.of(store, controller, period), signer, log, database, controller, period)
            if found:
                done.append(found)
    return done


def _one(session: Session, files: LogFiles, signer: Signer, log: Log, database: str, controller: str, period: str) -> Recovered | None:
    published = files.checkpoint()
    if published is None:
        return None
    note = notes.parse(published)
    checkpoint = Checkpoint.of(note)
    try:
        note.signed_by(signer.verifier_keys(checkpoint.origin)[0])
    except notes.SignatureError:
        raise LogForkedError(
            f"{files.base}: the published checkpoint is not of this log", "Is this the store of this installation?"
        ) from None
    head = session.row(
        "SELECT id, size, root, origin, removed_at FROM auditlog_log WHERE controller = %s AND period = %s", (controller, period)
    )
    if head and (head[4] is not None or head[1] >= checkpoint.size):
        return None
    if head and head[3] != checkpoint.origin:
        raise LogForkedError(f"{files.base}: another log of this period is known", "Two installations write to one store.")
    if files.root_at(checkpoint.size) != checkpoint.root or (head and files.root_at(head[1]) != bytes(head[2])):
        raise LogForkedError(f"{files.base}: the store does not hold what was signed", "Compare it with a bundle that the controller has.")
    size = head[1] if head else 0
    with session.transaction():
        _take_in(session, files, checkpoint, log, database, controller, period, size)
    return Recovered(controller, period, size, checkpoint.size)


def _take_in(
    session: Session, files: LogFiles, checkpoint: Checkpoint, log: Log, database: str, controller: str, period: str, size: int
) -> None:
    last: Position | None = None
    identifier, tail, moment = None, 0, None
    for first, octets in files.scan(checkpoint.size, size):
        if b"".join(merkle.leaves(octets)) != files.hashes(0, first // WIDTH, len(octets)):
            raise LogForkedError(f"{files.base}: an entry does not give its leaf hash", "Compare it with a bundle that the controller has.")
        found: list[Entry] = [entries.decode(one) for one in octets]
        moment = found[-1].at
        if identifier is None:
            identifier, _ = session.row(STATEMENTS["recover_log"], (controller, period, checkpoint.origin, found[0].at, moment)) or (0, 0)
        fresh = found[max(0, size - first) :]
        log.index(identifier, period, fresh, max(size, first))
        last = next((one.position for one in reversed(fresh) if one.position and one.database == database), last)
        tail = len(tiles.frame(octets)) if len(octets) < WIDTH else 0
    if identifier is None or moment is None:
        raise LogRolledBackError(f"{files.base}: a published log without entries", "Compare it with a bundle that the controller has.")
    session.execute(STATEMENTS["grow"], (moment, [identifier], [checkpoint.size], [checkpoint.root], [tail]))
    if last:
        values = {"database": database, "system": last.system, "timeline": last.timeline, "lsn": last.lsn, "ordinal": last.ordinal}
        session.execute(STATEMENTS["raise_marks"], values)
