"""Anonymising the inactive, against one UPDATE a table written by hand.

Both sides find out for themselves who was not seen for two years, in a fresh copy of the same database, in turn. By hand that is one
transaction of three UPDATEs. Obhut plans, asks the gate, locks and looks again, records a tombstone for each person durably in three
places, changes the same rows by the planner, looks again from outside, and confirms.
"""

from __future__ import annotations

from pathlib import Path

from bench import house, shop
from bench.alone import alone
from bench.erasing import copied
from bench.measure import Comparison, Stopwatch, compare
from obhut.controllers import register
from obhut.datamap.graph import require
from obhut.datamap.load import load as load_map
from obhut.foundation.settings import Settings
from obhut.postgres import sql
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier
from obhut.retention import rules
from obhut.retention.rules import Terms

PORTAL = "portal"
MAP = Path(__file__).with_name("portal.yaml")
_SOME_LEFT = "SELECT count(*) FROM users WHERE seen_at < now() - interval '2 years' AND name NOT LIKE 'Former %%'"


def make(cluster: Cluster, people: int) -> None:
    """Create and fill the portal's database."""
    texts = {name: statement.as_string(None) for name, statement in sql.load("bench", "portal").items()}
    with Session.connect(cluster.url()) as session:
        session.execute(SQL("CREATE DATABASE {}").format(Identifier(PORTAL)))
    with Session.connect(cluster.url(PORTAL), settings={"synchronous_commit": "off"}) as session:
        for name in ("tables", "fill", "keys"):
            session.execute(sql.trusted(texts[name].replace("{people}", str(people))))
        session.execute("VACUUM (ANALYZE)")
        session.execute("CHECKPOINT")


def inactive(directory: Path, cluster: Cluster, people: int, rounds: int) -> tuple[Comparison, int]:
    """Compare anonymising one in ten of the people, each time in a fresh copy; return the peak memory of Obhut's process in bytes, too."""
    memory = 0
    ours: list[float] = []
    theirs: list[float] = []
    by_hand = sql.load("bench", "portal")["by_hand"].as_string(None)
    for number in range(rounds):
        with copied(cluster, PORTAL) as url:
            with Session.connect(url) as session, Stopwatch() as hand, session.transaction():
                for statement in by_hand.split(";\n"):
                    session.execute(sql.trusted(statement))
            _require_done(url)
            theirs.append(hand.seconds)
        with copied(cluster, PORTAL) as url:
            settings = house.found(directory / f"sweep{number}", url, map_text=MAP.read_text(encoding="utf-8"))
            try:
                _rules(settings, people)
                said, _, peak = alone("sweep", str(settings.path))
                anonymised, failed, seconds = said.split()
                if int(failed) or int(anonymised) != people // 10:
                    raise AssertionError("the sweep has not anonymised everybody; nothing was measured")
                _require_done(url)
            finally:
                house.leave([settings])
            ours.append(float(seconds))
            memory = max(memory, peak)
    sizes = {"people": people, "inactive": people // 10, "tables": 3, "rows": people // 10 * 4}
    says = f"{people // 10:,} inactive of {people:,} people / one hand-written UPDATE a table"
    return compare("sweep", says, ours, theirs, sizes, bound=1.3), memory


def _rules(settings: Settings, people: int) -> None:
    database = settings.database(shop.DATABASE)
    with Session.connect(database.url) as session:
        graph = require(shop.DATABASE, load_map(database.map).database(shop.DATABASE), read_catalogue(session))
    for owner in register.list_controllers(shop.DATABASE):
        (given,) = register.list_instructions(controller_id=owner.id)
        terms = Terms(notice="", daily_cap=people, alarm_share=1.0)
        rules.set_rule(owner.id, graph, "user", terms, given.id, actor=house.ACTOR, clock=house.CLOCK)


def _require_done(url: str) -> None:
    with Session.connect(url) as session:
        left = session.value(_SOME_LEFT, [])
    if left:
        raise AssertionError(f"{left} people are still there; nothing was measured")
