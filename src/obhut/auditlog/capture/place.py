"""The protected database as capture sees it: what is set up there, and all SQL that capture sends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any, Final

from obhut.auditlog.capture.errors import ServerUnsuitableError
from obhut.auditlog.capture.plan import Server, Slot, Table
from obhut.datamap.graph import Graph, TableNode
from obhut.foundation.lsn import lsn_number
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError, PermissionDeniedError
from obhut.postgres.sql import SQL, Composable, Identifier, Literal, load, qualified, trusted

PUBLICATION: Final = "obhut_audit"
# The same from PostgreSQL 14 to 18; binary values and streaming of open transactions are not asked for.
OPTIONS: Final = (("proto_version", "1"), ("publication_names", PUBLICATION), ("messages", "true"))
_CLOSED: Final = "Obhut took EXECUTE on pg_logical_emit_message from everybody."  # noted where it can be looked up
_SQL: Final = load("obhut.auditlog.capture", "statements")
_MEMBERS_SINCE: Final = 150_000  # PostgreSQL 15: row filters and column lists
_GENERATED_SINCE: Final = 180_000


class Place:
    """A session on the protected database."""

    def __init__(self, session: Session) -> None:
        self.session = session

    # -- facts ----------------------------------------------------------------------------------------------------------------

    def server(self) -> Server:
        """Return what the server offers."""
        row = self.session.row(_SQL["settings"])
        if row is None:
            raise DatabaseError("the server does not tell its settings")
        level, standby, version, limit, free, synchronises, superuser = row
        return Server(level, standby, version, limit, free, synchronises == "on", superuser)

    def identity(self) -> int:
        """Return which database of its server this is (oid): of two on one server, system identifier and timeline are the same."""
        return int(self.session.value(_SQL["identity"]))

    def end(self) -> int:
        """Return the position behind all WAL of the server."""
        return lsn_number(str(self.session.value(_SQL["end"])))

    def slot(self, name: str, former: int = 0) -> Slot | None:
        """Return the state of the slot, None when there is none.

        Args:
            name: of the slot.
            former: the database (oid) that was captured until now; the slot may serve that one.

        Raises:
            ServerUnsuitableError: a slot of that name serves another database or another purpose.
        """
        row = self.session.row(_SQL["slot"], (name,))
        if row is None:
            return None
        plugin, kind, database, active, confirmed, _, status, retained, behind, left, oid = row
        elsewhere = "" if database == self.session.database else str(database)
        if kind != "logical" or plugin != "pgoutput" or (elsewhere and oid != former):
            raise ServerUnsuitableError(
                f"replication slot {name} serves another database or another purpose",
                'Do the settings name another database of the server than before? "obhut audit start" first reads the rest of that one. '
                "Does another installation of Obhut use the same server? Give its database another name in the settings.",
            )
        return Slot(plugin or "", active, lsn_number(confirmed) if confirmed else 0, status or "lost", retained, behind, left, elsewhere)

    def tables(self, oids: Sequence[int]) -> dict[int, Table]:
        """Return how the captured leaf tables stand."""
        query = _SQL["published" if self.session.server_version >= _MEMBERS_SINCE else "published14"]
        published = {oid: bool(filtered) for oid, filtered in self.session.rows(query, {"name": PUBLICATION})}
        return {
            oid: Table(identity, persistence, file, trigger, oid in published, published.get(oid, False))
            for oid, identity, persistence, file, trigger in self.session.rows(_SQL["tables"], (list(oids),))
        }

    def event_triggers(self) -> bool:
        """Whether all event triggers of Obhut are on."""
        return int(self.session.value(_SQL["event_triggers"])) == 3

    def forgeable(self) -> bool:
        """Whether any role may write messages in Obhut's name."""
        return bool(self.session.rows(_SQL["forgeable"]))

    def strangers(self) -> int:
        """Return how many tables and views lie in Obhut's schema; it has none of its own."""
        return int(self.session.value(_SQL["strangers"]))

    def namesake(self) -> bool:
        """Whether a role is called like Obhut's schema and may create there: tables that it names without a schema end up in it."""
        return bool(self.session.value(_SQL["namesake"]))

    # -- setting up -----------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Make or renew the ``obhut`` schema."""
        with self.session.transaction():
            self.session.execute(_script("schema"))

    def install_events(self) -> bool:
        """Make or renew the event triggers; false where the role may not."""
        try:
            with self.session.transaction():
                self.session.execute(_script("events"))
        except PermissionDeniedError:
            return False
        return True

    def close_messages(self) -> bool:
        """Take the right to write messages from everybody; false where the role may not. The caller keeps it."""
        try:
            with self.session.transaction():
                for (function,) in self.session.rows(_SQL["forgeable"]):
                    self.session.execute(SQL("COMMENT ON FUNCTION obhut.known() IS {}").format(Literal(_CLOSED)))
                    named = trusted(function)
                    self.session.execute(SQL("GRANT EXECUTE ON FUNCTION {} TO CURRENT_USER").format(named))
                    self.session.execute(SQL("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC").format(named))
        except PermissionDeniedError:
            return False
        return not self.forgeable()

    def watch(self, graph: Graph, node: TableNode, *, whole_rows: bool) -> None:
        """Make a table, with its partitions, keep old values and tell the session.

        Raises:
            LockTimeoutError: the table is in use; nothing of it has changed.
        """
        oids = dict.fromkeys([node.table.oid, *(leaf.oid for leaf in graph.catalogue.leaves(node.table.oid))])
        with self.session.transaction():
            for oid in oids:
                self.session.execute("SELECT obhut.watch(%s::oid, %s)", (oid, whole_rows))

    def publish(self, tables: Sequence[TableNode]) -> None:
        """Make the publication hold exactly these tables, with their partitions; one that does is left, since a change of it is a gap."""
        as_wanted = self.session.value(_SQL["publication"], (PUBLICATION,))
        if as_wanted and set(self.session.rows(_SQL["members"], (PUBLICATION,))) == {(node.table.oid, True) for node in tables}:
            return
        names: Composable = SQL(", ").join(qualified(node.table.schema, node.table.name) for node in tables)
        publication = Identifier(PUBLICATION)
        with self.session.transaction():
            if self.session.value("SELECT true FROM pg_publication WHERE pubname = %s", (PUBLICATION,)):
                self.session.execute(SQL("ALTER PUBLICATION {} SET TABLE {}").format(publication, names))
            else:
                self.session.execute(SQL("CREATE PUBLICATION {} FOR TABLE {}").format(publication, names))
            # Not via the root: a TRUNCATE of one partition would not be sent.
            self.session.execute(
                SQL("ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)").format(
                    publication
                )
            )
            if self.session.server_version >= _GENERATED_SINCE:
                self.session.execute(SQL("ALTER PUBLICATION {} SET (publish_generated_columns = stored)").format(publication))

    def create_slot(self, name: str, *, failover: bool) -> int:
        """Make the slot and return the position from which it sends."""
        return lsn_number(str(self.session.value(_SQL["create_failover_slot" if failover else "create_slot"], (name,))))

    def drop_slot(self, name: str) -> None:
        """Drop the slot if it is there."""
        self.session.execute(_SQL["drop_slot"], (name,))

    def remove(self) -> None:
        """Take away everything that Obhut has added; give tables their own identity back, and everybody the right to write messages.

        Raises:
            LockTimeoutError: a table is in use; run it again.
        """
        for (oid,) in self.session.rows(_SQL["watched"]):
            self.session.execute("SELECT obhut.unwatch(%s::oid)", (oid,))
        with self.session.transaction():
            if self.session.value(_SQL["closed"], (_CLOSED,)):
                for (function,) in self.session.rows(_SQL["messages"]):
                    self.session.execute(SQL("GRANT EXECUTE ON FUNCTION {} TO PUBLIC").format(trusted(function)))
            for name in ("obhut_on_rewrite", "obhut_on_ddl", "obhut_on_drop"):
                self.session.execute(SQL("DROP EVENT TRIGGER IF EXISTS {}").format(Identifier(name)))
            self.session.execute(SQL("DROP PUBLICATION IF EXISTS {}").format(Identifier(PUBLICATION)))
            for (function,) in self.session.rows(_SQL["functions"]):
                self.session.execute(SQL("DROP FUNCTION {} CASCADE").format(trusted(function)))  # with the triggers that call it
            if not self.session.value(_SQL["shared"]):  # what somebody else has made there is theirs
                self.session.execute(SQL("DROP SCHEMA IF EXISTS obhut"))

    def heartbeat(self) -> None:
        """Write a message that shows whether the stream is alive; nothing where the role may not."""
        with suppress(PermissionDeniedError):
            self.session.execute(_SQL["heartbeat"])

    # -- rows -----------------------------------------------------------------------------------------------------------------

    def fetch(
        self, graph: Graph, table: int, columns: tuple[str, ...], keys: Sequence[tuple[str, ...]], wanted: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        """Yield columns, as text, of the live rows whose key columns have one of the values."""
        there = graph.catalogue.tables[table]
        if any(name not in there.by_name for name in (*columns, *wanted)):
            return
        names = [Identifier(f"k{number}") for number in range(len(columns))]
        query = SQL("SELECT {wanted} FROM unnest({arrays}) AS k({names}) JOIN {table} t ON {on}").format(
            wanted=SQL(", ").join(SQL("t.{}::text").format(Identifier(name)) for name in wanted),
            arrays=SQL(", ").join(SQL("%s::{}[]").format(trusted(there.by_name[name].base_type)) for name in columns),
            names=SQL(", ").join(names),
            table=there.relation,
            on=SQL(" AND ").join(SQL("t.{} = k.{}").format(Identifier(name), key) for name, key in zip(columns, names, strict=True)),
        )
        for row in self.session.rows(query, [list(values) for values in zip(*keys, strict=True)]):
            yield dict(zip(wanted, row, strict=True))


@contextmanager
def opened(url: str, *, application_name: str = "obhut audit", lock_timeout: str = "5s") -> Iterator[Place]:
    """Open a session on the protected database for the block."""
    settings = {"statement_timeout": "60s", "lock_timeout": lock_timeout}
    with Session.connect(url, application_name=application_name, settings=settings) as session:
        yield Place(session)


def slot_name(database: str) -> str:
    """Return the name of the slot for a database of the settings."""
    return f"obhut_audit_{database}"


def _script(name: str) -> SQL:
    text = resources.files("obhut.auditlog.capture").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return trusted(text)
