"""Examiner of the audit log: is what happens captured, is what was published still what is there, do months go when they have to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from obhut.auditlog import acts, reading, retain
from obhut.auditlog.capture import status as capture
from obhut.auditlog.capture.errors import NotEnabledError
from obhut.auditlog.errors import AuditLogError
from obhut.auditlog.log import check_published
from obhut.auditlog.reading import STATEMENTS, LogHead
from obhut.auditlog.signing import Signer
from obhut.auditlog.store import Store, open_store
from obhut.auditlog.tlog.checkpoints import Checkpoint
from obhut.controllers import register
from obhut.foundation.clock import Clock
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.keystore import open_keystore
from obhut.keystore.subjects import unassigned
from obhut.postgres.connections import Session
from obhut.postgres.control import control_session
from obhut.promises.model import Evidence, State

_UNSAID: Final = timedelta(hours=1)  # an act that no log says for longer is stuck
_LATE: Final = timedelta(days=2)
_MINUTE: Final = timedelta(minutes=1)
_SILENT: Final = timedelta(minutes=15)  # capture notes its position at every batch and heartbeat


def logs(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """Look at marks of capture, at every controller's youngest log, at acts that no log says, and at months past their retention."""
    now, store = clock.now(), open_store(settings)
    with control_session("obhut promises") as session:
        yield _acts(session, now)
        for name in settings.databases:
            owners = [record.id for record in register.list_controllers(name)]
            heads = reading.logs(session, [*owners, unassigned(name)])
            yield _captured(session, settings, name, clock)
            yield _sound(settings, store, name, heads, now)
            yield _retained(session, settings, name, heads, now)


def _acts(session: Session, now: datetime) -> Evidence:
    number, oldest = acts.pending(session)
    if oldest is not None and now - oldest > _UNSAID:
        fact = f"{number} acts are in no log yet, the oldest for {int((now - oldest).total_seconds() // 60)} minutes"
        return Evidence(fact, State.BROKEN, now, hint='Does "obhut serve" run?')
    return Evidence("what Obhut itself did is in the logs, but for the last minutes", State.KEPT, now)


def _captured(session: Session, settings: Settings, name: str, clock: Clock) -> Evidence:
    """Capture is on, its slot is read, its tables are whole, and a position was noted lately."""
    now = clock.now()
    last = session.value(STATEMENTS["captured"], (name,))
    try:
        found = capture.status(settings, name, clock)
    except NotEnabledError as error:
        return Evidence("no change is captured: the audit log is off", State.UNPROVEN, now, name, error.hint or "")
    except ObhutError as error:
        return Evidence(f"capture cannot be looked at: {error.fact}", State.UNPROVEN, now, name, error.hint or "")
    critical = [finding for finding in found.findings if finding.critical]
    if critical:
        return Evidence(f"{critical[0].fact} ({len(critical)} in all)", State.BROKEN, now, name, critical[0].todo)
    if last is None or now - last > _SILENT:
        fact = "no position was noted yet" if last is None else f"the last captured position is {(now - last) // _MINUTE} minutes old"
        return Evidence(fact, State.BROKEN, last or now, name, 'Does "obhut serve" run?')
    return Evidence("changes are captured up to now", State.KEPT, last, name)


def _sound(settings: Settings, store: Store, name: str, heads: list[LogHead], now: datetime) -> Evidence:
    """The youngest log of each controller: its edge gives the root, the last bundle its hashes, the published checkpoint is a prefix."""
    youngest = {head.controller: head for head in reversed(heads) if head.removed_at is None and head.size}
    if not youngest:
        return Evidence("no controller has a log yet", State.UNPROVEN, now, name, "A log begins with the first entry.")
    keys, entries = open_keystore(settings), 0
    for head in youngest.values():
        files = head.files(store)
        try:
            if files.root_at(head.size) != head.root:
                return Evidence(f"the log {files.base} does not give its root", State.BROKEN, now, name, "Was the store restored?")
            files.entry(head.size - 1, head.size)
            check_published(files, Checkpoint(head.origin, head.size, head.root), Signer.of(keys, head.controller))
        except AuditLogError as error:
            return Evidence(f"a log does not hold: {error.fact}", State.BROKEN, now, name, error.hint or "")
        entries += head.size
    fact = f"the youngest logs of {len(youngest)} controllers hold with {entries} entries, of which the last was read in each"
    return Evidence(fact, State.KEPT, now, name, '"obhut audit export" and "obhut audit verify" check every entry.')


def _retained(session: Session, settings: Settings, name: str, heads: list[LogHead], now: datetime) -> Evidence:
    late = retain.plan(heads, retain.retentions(session), settings.audit_log.retention, now - _LATE)
    if late:
        return Evidence(f"{len(late)} months of logs are past their retention", State.BROKEN, now, name, 'Run "obhut audit retain".')
    return Evidence("no month of a log is kept for longer than it may be", State.KEPT, now, name)
