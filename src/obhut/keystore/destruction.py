"""Destroying the keys of people, for good (docs/spec/audit-log-keys.md, section 6), and looking again.

Order: the keys leave the key table in one transaction that counts the destruction, then the anchor learns the count, then every process that
may hold one of them has taken note. Each step may be repeated, and a kill in between leaves people who are not reported as erased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from obhut.controllers.vocabulary import SubjectRef
from obhut.foundation.faultpoints import reach
from obhut.keystore import anchor
from obhut.keystore.leases import SQL, await_forgotten
from obhut.keystore.subjects import CHUNK, Keyring
from obhut.keystore.wrapping import fingerprint
from obhut.postgres.connections import Session


@dataclass(frozen=True, slots=True)
class Destroyed:
    """What one destruction came to.

    Attributes:
        number: of the destruction; 0 when no keys are in use.
        destroyed: keys that were active.
        already: keys that had been destroyed before.
        never: people who never had a key; they have a fence now.
        waited: seconds until no process could hold one of the keys.
    """

    number: int
    destroyed: int
    already: int
    never: int
    waited: float = 0.0


def in_use(session: Session) -> bool:
    """Whether keys are handed out in this installation at all; without, there is nothing to destroy and nothing to fence."""
    row = session.row(SQL["counter"])
    return bool(row and row[1])


def destroy(keyring: Keyring, people: Mapping[str, Sequence[SubjectRef]], until: datetime, *, recovering: bool = False) -> Destroyed:
    """Destroy the keys of people, fence those who never had one, and return when no process can hold a key any more.

    Args:
        keyring: the key table.
        people: subjects by controller.
        until: lives that began later stay; the moment of the erasure.
        recovering: after a restore of the control database, when the key table may be behind its anchor.

    Raises:
        KeyTableRolledBackError: the key table is older than it was.
        EvictionTimeoutError: a process takes no note; the keys are gone from the table.
    """
    session, counts = keyring.session, [0, 0, 0]
    with keyring.lock:
        keyring.start()
        if not recovering:
            keyring.require_present(int(session.value(SQL["counter"])))
        owners = keyring.epochs.owners(people, keyring.clock.now())
        with session.transaction():
            number = int(session.value(SQL["count_up"], {"floor": anchor.read(keyring.directory)}))
            reach("keys.destroy.counted")
            for controller, refs in people.items():
                owner = owners[controller]
                for start in range(0, len(refs), CHUNK):
                    prints = [fingerprint(owner.lookup, ref) for ref in refs[start : start + CHUNK]]
                    values = {"owner": owner.number, "prints": prints, "until": until, "number": number}
                    counts = [sum(pair) for pair in zip(counts, session.row(SQL["destroy"], values) or (0, 0, 0), strict=True)]
        reach("keys.destroy.committed")
        anchor.raise_to(keyring.directory, number)
        reach("keys.destroy.anchored")
        keyring.evict(number - 1, number)
    waited = await_forgotten(session, number, keyring.lease.seconds, me=keyring.lease.id)
    reach("keys.destroy.forgotten")
    return Destroyed(number, counts[0], counts[1], counts[2], waited)


def remaining(keyring: Keyring, people: Mapping[str, Sequence[SubjectRef]], until: datetime) -> tuple[int, int]:
    """Return how many of these people have a key still, and how many of them no fence; asked of the table, not of who destroyed."""
    session, alive, unfenced = keyring.session, 0, 0
    owners = keyring.epochs.known(list(people))
    for controller, refs in people.items():
        owner = owners.get(controller)
        if owner is None:
            unfenced += len(refs)
            continue
        for start in range(0, len(refs), CHUNK):
            values = {
                "owner": owner.number,
                "prints": [fingerprint(owner.lookup, ref) for ref in refs[start : start + CHUNK]],
                "until": until,
            }
            alive += int(session.value(SQL["alive"], values))
            unfenced += int(session.value(SQL["unfenced"], values))
    return alive, unfenced
