"""Opens a controller's values for somebody: after the gate has said yes, and after the log says that it was done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obhut.auditlog import acts
from obhut.controllers import gate
from obhut.controllers.records import ControllerRecord
from obhut.controllers.vocabulary import Action, SubjectRef
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.keystore.subjects import Keyring
from obhut.postgres.connections import Session


@contextmanager
def disclosed(
    settings: Settings, session: Session, record: ControllerRecord, what: str, actor: Actor, clock: Clock, *, subject: SubjectRef | None
) -> Iterator[Keyring]:
    """Give the keys that open a controller's values.

    Args:
        settings: of the installation; the control database is open.
        session: on the control database.
        record: whose values.
        what: of the log is opened: search, entry, export, history.
        actor: to whom.
        clock: the time.
        subject: the one person concerned; None for anybody.

    Raises:
        NotInstructedError: the controller has not instructed exports; the refusal is logged.
    """
    permission = gate.permit(Action.EXPORT, controller_id=record.id, database=record.database, subject=subject, actor=actor, clock=clock)
    # Noted before anything is shown: a crash can only say that more was shown than was.
    detail = {"actor": str(actor), "instruction": permission.instruction_id}
    acts.note(session, controller=record.id, database=record.database, name=f"disclosure.{what}", detail=detail, clock=clock)
    with Keyring(settings, clock=clock) as keyring:
        yield keyring
