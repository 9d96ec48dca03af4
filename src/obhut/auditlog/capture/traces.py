"""What capture adds to a protected database, told apart from what is the vendor's own: a copy for tests must not carry it.

A restored database carries it on purpose: schema, triggers, publication and identities come back with the backup, and the stream goes on
there, with a gap entry and a new slot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, load, qualified

SCHEMA: Final = "obhut"
TRIGGER: Final = "obhut_before_change"
EVENT_TRIGGERS: Final = frozenset({"obhut_on_rewrite", "obhut_on_ddl", "obhut_on_drop"})
_ABOUT: Final = re.compile(rf"TRIGGER {TRIGGER} ON .+", re.DOTALL)
_SQL: Final = load("obhut.auditlog.capture", "statements")


@dataclass(frozen=True, slots=True)
class Identity:
    """The replica identity that a table had before capture.

    Attributes:
        index: its name, where the identity was an index.
        nothing: old rows had no identity at all.
    """

    schema: str
    table: str
    index: str = ""
    nothing: bool = False


def is_trace(kind: str, schema: str, tag: str) -> bool:
    """Whether a definition, as pg_dump names it, belongs to capture.

    Args:
        kind: such as TRIGGER.
        schema: ``-`` for objects outside of one.
        tag: such as ``orders obhut_before_change``.
    """
    if schema == SCHEMA or (schema == "-" and tag in {SCHEMA, f"SCHEMA {SCHEMA}"}):
        return True
    if kind == "EVENT TRIGGER":
        return tag in EVENT_TRIGGERS
    if kind == "TRIGGER":
        return tag.endswith(f" {TRIGGER}")
    return kind == "COMMENT" and bool(_ABOUT.fullmatch(tag))


def identities(session: Session) -> Iterator[Identity]:
    """Yield the tables whose identity capture has changed, with the one they had."""
    for schema, table, before in session.rows(_SQL["identities"]):
        index = before.removeprefix("INDEX ") if before.startswith("INDEX ") else ""
        yield Identity(schema, table, index, nothing=before == "NOTHING")


def give_back(source: Session, copy: Session) -> int:
    """Give the tables of a copy the identity that the source's had before capture; return how many."""
    changed = [identity for identity in identities(source) if copy.value(_SQL["has_table"], (identity.schema, identity.table))]
    for identity in changed:
        table = qualified(identity.schema, identity.table)
        copy.execute(SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(table, _words(identity, copy)))
    return len(changed)


def _words(identity: Identity, copy: Session) -> Composable:
    if identity.nothing:
        return SQL("NOTHING")
    found = copy.value(_SQL["identity_index"], (identity.schema, identity.table, identity.index)) if identity.index else None
    return SQL("USING INDEX {}").format(Identifier(identity.index)) if found else SQL("DEFAULT")
