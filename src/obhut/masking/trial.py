"""A trial before the run: some rows of every table, masked, into a table of the target that has all constraints and nothing else.

What a plan cannot know, the server says here and not hours later: CHECK constraints over one column or several, domains, exclusion
constraints, casts. The rows go into a temporary table inside a transaction that is rolled back, so none of them stays.
"""

from __future__ import annotations

from obhut.masking.facts import Facts
from obhut.masking.keys import RunKey
from obhut.masking.model import MaskPlan, Refusal, TablePlan
from obhut.masking.stream import Masker, stream
from obhut.postgres.catalogue import Catalogue, Table
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError, LockTimeoutError, PermissionDeniedError, SerializationError, UnreachableError
from obhut.postgres.sql import SQL, Composed, Identifier, Literal, column_list, qualified

ROWS = 300
_BLOCKS = 60  # read at the most, spread over the table
_TRIAL = Identifier("obhut_trial")
_OTHER = (UnreachableError, PermissionDeniedError, LockTimeoutError, SerializationError)  # say nothing about the rows


def trial(source: Session, target: Session, plan: MaskPlan, catalogue: Catalogue, facts: Facts, *, rows: int = ROWS) -> list[Refusal]:
    """Return what the target refuses, at most one refusal a table.

    Args:
        source: in the snapshot of the copy, for reading.
        target: a database that has the tables (without rows, with or without their indexes).
        plan: without refusals.
        catalogue: of the source.
        facts: read from the source.
        rows: how many of each table.

    Raises:
        DatabaseError: a session broke, or lacks a privilege.
    """
    key = RunKey()
    try:
        tried = ((table, catalogue.tables[oid]) for oid, table in plan.tables.items())
        found = [_try(source, target, table, relation, key, facts, plan.locale, rows) for table, relation in tried if _changes(table)]
    finally:
        key.destroy()
    return [refusal for refusal in found if refusal]


def _changes(table: TablePlan) -> bool:
    return any(column.transformer != "keep" for column in table.columns)


def _try(
    source: Session, target: Session, table: TablePlan, relation: Table, key: RunKey, facts: Facts, locale: str, rows: int
) -> Refusal | None:
    masker = Masker(table, key, facts, locale=locale)
    try:
        with target.transaction():
            target.execute(_like(relation))
            into = SQL("COPY pg_temp.{} ({}) FROM STDIN").format(_TRIAL, column_list(table.names))
            target.copy_in(into, stream(source.copy_out(_some(table, relation, rows)), masker))
            raise _RollbackError
    except _RollbackError:
        return None
    except _OTHER:
        raise
    except DatabaseError as error:
        at = f" by {error.constraint}" if error.constraint else f" at {error.column}" if error.column else ""
        fact = f"the target refuses masked rows of {table.name}{at} (SQLSTATE {error.sqlstate or 'unknown'})"
        return Refusal("mask-refused", table.name, error.column, fact, "Choose transformers whose results the constraint allows.")
    finally:
        masker.close()


class _RollbackError(Exception):
    """Ends a trial that went well: its rows go with the transaction."""


def _like(relation: Table) -> Composed:
    like = SQL("CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING ALL EXCLUDING STATISTICS) ON COMMIT DROP")
    return like.format(_TRIAL, qualified(relation.schema, relation.name))


def _some(table: TablePlan, relation: Table, rows: int) -> Composed:
    """Return the statement that reads some rows from blocks all over the table."""
    share = min(100.0, 100.0 * _BLOCKS / max(relation.pages, 1)) if relation.kind == "r" else 100.0
    sampled = SQL(" TABLESAMPLE SYSTEM ({})").format(Literal(round(share, 6))) if share < 100 else SQL("")
    return SQL("COPY (SELECT {} FROM {}{} LIMIT {}) TO STDOUT").format(table.select_list(), relation.relation, sampled, Literal(rows))
