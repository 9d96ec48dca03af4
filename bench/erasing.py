"""Erasing, against SQL that a careful engineer writes by hand.

One person: both sides on warm connections to the same server, in turn, each with people of its own; both commits are durable. Obhut asks
the gate, writes the tombstone to list, mirror and anchor, erases, looks again from outside and confirms; the hand only deletes. A
batch: on copies of the same database, in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import house, shop
from bench.measure import Comparison, Stopwatch, compare
from obhut.erasure.entries import Action
from obhut.erasure.erase import Eraser
from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session, with_parameters
from obhut.postgres.sql import SQL, Identifier

WARM = 10  # people erased before the clock runs: statements are prepared, caches filled
KIND = "user"


def one(directory: Path, cluster: Cluster, people: Sequence[int], *, mixed: bool) -> Comparison:
    """Compare erasing one person after the other, in one copy of the database."""
    ours: list[float] = []
    theirs: list[float] = []
    statements = shop.by_hand(mixed=mixed)
    with copied(cluster) as url:
        settings = house.found(directory / f"one-{mixed}", url, mixed=mixed)
        try:
            with Session.connect(url) as session, Eraser(settings, shop.DATABASE) as eraser:
                for number, (first, second) in enumerate(zip(people[::2], people[1::2], strict=False)):
                    with Stopwatch() as hand:
                        _by_hand(session, statements, [first])
                    with Stopwatch() as obhut:
                        eraser.erase(KIND, [(str(second),)], Action.ERASE, house.ACTOR, house.CLOCK)
                    if number >= WARM:
                        theirs.append(hand.seconds)
                        ours.append(obhut.seconds)
                _require_gone(session, people)
        finally:
            house.leave([settings])
    sizes = {"people": len(ours), "tables": shop.TABLES, "rows_each": shop.ROWS_OF_ONE}
    if mixed:
        return compare("erase-one-mixed", "the same, payments stay without the person", ours, theirs, sizes, bound=None, aim=4.0)
    says = "one person: gate, tombstone, erasure, second look, confirmation / hand-written SQL"
    return compare("erase-one", says, ours, theirs, sizes, bound=4.0, aim=2.5)


def batch(directory: Path, cluster: Cluster, people: Sequence[int], rounds: int, *, mixed: bool) -> Comparison:
    """Compare erasing many people at once, each time in a fresh copy of the database."""
    ours: list[float] = []
    theirs: list[float] = []
    statements = shop.by_hand(mixed=mixed)
    for number in range(rounds):
        with copied(cluster) as url:
            with Session.connect(url) as session, Stopwatch() as hand:
                _by_hand(session, statements, people)
            theirs.append(hand.seconds)
        with copied(cluster) as url:
            settings = house.found(directory / f"batch{number}-{mixed}", url, mixed=mixed)
            try:
                with Eraser(settings, shop.DATABASE) as eraser, Stopwatch() as obhut:
                    eraser.erase(KIND, [(str(person),) for person in people], Action.ERASE, house.ACTOR, house.CLOCK)
                with Session.connect(url) as session:
                    _require_gone(session, people)
            finally:
                house.leave([settings])
            ours.append(obhut.seconds)
    sizes = {"people": len(people), "rows": len(people) * shop.ROWS_OF_ONE, "tables": shop.TABLES}
    if mixed:
        return compare("erase-batch-mixed", "the same, payments stay without the people", ours, theirs, sizes, bound=None, aim=1.3)
    return compare("erase-batch", f"{len(people):,} people at once / set-based hand-written SQL", ours, theirs, sizes, bound=1.3)


def _by_hand(session: Session, statements: Sequence[str], people: Sequence[int]) -> None:
    with session.transaction():
        for statement in statements:
            session.execute(statement, {"people": list(people)})


def _require_gone(session: Session, people: Sequence[int]) -> None:
    left = session.value("SELECT count(*) FROM users WHERE id = ANY(%s)", (list(people),))
    if left:
        raise AssertionError(f"{left} people are still there; nothing was measured")


@contextmanager
def copied(cluster: Cluster, template: str = shop.DATABASE) -> Iterator[str]:
    """Give the connection string of a fresh copy of a database for the block."""
    name = f"{template}_copy"
    with Session.connect(cluster.url()) as session:
        session.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))
        session.execute(SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(Identifier(name), Identifier(template)))
        session.execute("CHECKPOINT")
    url = with_parameters(cluster.url(template), dbname=name)
    with Session.connect(url) as session:
        # Both sides find the same pages in memory.
        session.rows("SELECT count(*) FROM pg_class, LATERAL pg_relation_size(oid) WHERE relkind IN ('r', 'i')")
    try:
        yield url
    finally:
        with Session.connect(cluster.url()) as session:
            session.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
