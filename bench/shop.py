"""The data of the benchmark: a shop with ten tables and a hundred rows for each person, made by the server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from obhut.postgres import sql
from obhut.postgres.clusters import Cluster
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier

DATABASE = "shop"
SHOPS = 4
ROWS_OF_ONE = 100
TABLES = 10
_MAP = Path(__file__).with_name("datamap.yaml")

# The same for both sides of every comparison; durable, as production is.
SERVER: dict[str, str | int | bool | None] = {
    "wal_level": "replica",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "shared_buffers": "512MB",
    "maintenance_work_mem": "256MB",
    "autovacuum": False,  # at an instant of its own choosing it would disturb one side only
}


def statements() -> dict[str, str]:
    """Return the named statements of ``sql/shop.sql`` as text."""
    return {name: statement.as_string(None) for name, statement in sql.load("bench", "shop").items()}


def make(cluster: Cluster, people: int, name: str = DATABASE) -> None:
    """Create and fill a database, two streams side by side."""
    with Session.connect(cluster.url()) as session:
        session.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    texts = {key: text.format(people=people) for key, text in statements().items() if not key.startswith("by_hand")}

    def run(*keys: str) -> None:
        with Session.connect(cluster.url(name), settings={"synchronous_commit": "off"}) as session:
            for key in keys:
                session.execute(sql.trusted(texts[key]))

    run("tables")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda keys: run(*keys), [("fill_people", "keys_people"), ("fill_orders", "keys_orders")]))
    run("references")
    with Session.connect(cluster.url(name)) as session:
        session.execute("VACUUM (ANALYZE)")
        session.execute("CHECKPOINT")


def size(url: str) -> tuple[int, int]:
    """Return rows and bytes of the database."""
    with Session.connect(url) as session:
        rows, size = session.row(
            "SELECT (SELECT sum(reltuples)::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace),"
            " pg_database_size(current_database())"
        ) or (0, 0)
    return int(rows), int(size)


def data_map(*, mixed: bool) -> str:
    """Return the data map: everything of a person is deleted, or (mixed) her payments stay without her."""
    text = _MAP.read_text(encoding="utf-8")
    return text.replace("erase: delete  # mixed: anonymise", "erase: anonymise") if mixed else text


def by_hand(*, mixed: bool) -> list[str]:
    """Return the statements of a hand-written erasure with the same outcome, in order."""
    name = "by_hand_mixed" if mixed else "by_hand"
    return [statement.strip() for statement in statements()[name].split(";") if statement.strip()]
