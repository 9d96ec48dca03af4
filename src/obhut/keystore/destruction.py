"""Destroying the keys of people, for good (docs/spec/audit-log-keys.md, section 6), and looking again.

Order: the keys leave the key table in one transaction that counts the destruction, then the anchor learns the count, then every process
that may hold one of them has taken note. Each step may be repeated, and a kill in between leaves people who are not reported as erased.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from obhut.foundation.faultpoints import reach
from obhut.keystore import anchor
from obhut.keystore.epochs import Owner
from obhut.keystore.leases import SQL, await_forgotten
from obhut.keystore.subjects import CHUNK, Ended, Keyring
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


def destroy(keyring: Keyring, people: Mapping[str, Sequence[Ended]], *, recovering: bool = False) -> Destroyed:
    """Destroy the keys of people, fence those who never had one, and return when no process can hold a key any more.

    Args:
        keyring: the key table.
        people: who was erased and when, by controller.
        recovering: after a restore of the control database, when the key table may be behind its anchor; controllers that have no keys
            are left alone then.

    Raises:
        KeyTableRolledBackError: the key table is older than it was.
        EvictionTimeoutError: a process takes no note; the keys are gone from the table.
    """
    session, counts = keyring.session, [0, 0, 0]
    with keyring.lock:
        keyring.start()
        if not recovering:
            keyring.require_present(lambda: int(session.value(SQL["counter"])))
        owners = keyring.epochs.known(list(people)) if recovering else keyring.epochs.owners(people, keyring.clock.now())
        with session.transaction():
            number = int(session.value(SQL["count_up"], {"floor": anchor.read(keyring.directory)}))
            reach("keys.destroy.counted")
            for controller in people.keys() & owners.keys():
                for part in _parts(owners[controller], people[controller]):
                    found = session.row(SQL["destroy"], {**part, "number": number}) or (0, 0, 0)
                    counts = [sum(pair) for pair in zip(counts, found, strict=True)]
        reach("keys.destroy.committed")
        anchor.raise_to(keyring.directory, number)
        reach("keys.destroy.anchored")
        keyring.evict(number - 1, number)
    waited = await_forgotten(session, number, keyring.lease.seconds, me=keyring.lease.id)
    reach("keys.destroy.forgotten")
    return Destroyed(number, counts[0], counts[1], counts[2], waited)


def remaining(keyring: Keyring, people: Mapping[str, Sequence[Ended]]) -> tuple[int, int]:
    """Return how many of these people have a key still, and how many of them no fence; asked of the table, not of who destroyed."""
    alive, unfenced = 0, 0
    owners = keyring.epochs.known(list(people))
    for controller, ended in people.items():
        if controller not in owners:
            unfenced += len(ended)
            continue
        for part in _parts(owners[controller], ended):
            alive += int(keyring.session.value(SQL["alive"], part))
            unfenced += int(keyring.session.value(SQL["unfenced"], part))
    return alive, unfenced


def _parts(owner: Owner, ended: Sequence[Ended]) -> Iterator[dict[str, object]]:
    for start in range(0, len(ended), CHUNK):
        part = ended[start : start + CHUNK]
        prints = b"".join([fingerprint(owner.lookup, one.ref) for one in part])
        yield {"owner": owner.number, "prints": prints, "untils": [one.at for one in part], "count": len(part)}
