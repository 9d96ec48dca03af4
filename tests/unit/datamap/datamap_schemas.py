"""Catalogues made by hand: checks are pure, so their tests need no server."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from obhut.datamap.check import check
from obhut.datamap.findings import Finding
from obhut.datamap.load import LoadedMap, loads
from obhut.datamap.surroundings import Surroundings
from obhut.foundation.language import Language, speaking, text
from obhut.postgres.catalogue import Action, Catalogue, Column, ForeignKey, Key, Table

PAGILA = Path(__file__).parents[2] / "data" / "pagila.datamap.yaml"
_CATEGORIES = {
    "integer": "N", "bigint": "N", "smallint": "N", "numeric": "N", "text": "S", "character varying": "S", "uuid": "U", "jsonb": "U",
    "date": "D", "timestamp with time zone": "D", "boolean": "B", "bytea": "U", "inet": "I", "mood": "E", "oid": "N",
}  # fmt: skip


def column(name: str, type_: str = "integer", **changes: object) -> Column:
    """Return a column; ``text!`` is NOT NULL, ``character varying(5)`` has a limit, ``bigint[]`` is an array."""
    not_null, type_ = type_.endswith("!"), type_.rstrip("!")
    base, _, limit = type_.partition("(")
    modifier = int(limit.rstrip(")")) + 4 if limit else -1
    category = "A" if base.endswith("[]") else _CATEGORIES[base]
    made = Column(name, type_, base, not_null, None, "", "", category, "e" if base == "mood" else "b", None, 1, modifier)
    return replace(made, **changes)  # type: ignore[arg-type]  # tests name fields


class Schema:
    """Builds a catalogue table by table; the first column is the primary key."""

    def __init__(self) -> None:
        self._oids = itertools.count(1)
        self.tables: dict[int, Table] = {}
        self.keys: list[ForeignKey] = []
        self.names: dict[str, int] = {}

    def table(self, name: str, *columns: Column, unique: tuple[str, ...] = (), **changes: object) -> Schema:
        """Add a table."""
        oid = next(self._oids)
        first = replace(columns[0], not_null=True)
        keys = (Key(f"{name}_pkey", True, (first.name,), None), *((Key(f"{name}_key", False, unique, None),) if unique else ()))
        made = Table(oid, "public", name, "r", "p", False, None, False, 10, 1, 0, 0, None, False, None, False, (first, *columns[1:]), keys)
        self.tables[oid] = replace(made, **changes)  # type: ignore[arg-type]  # tests name fields
        self.names[f"public.{name}"] = oid
        return self

    def key(self, child: str, column_name: str, parent: str, on_delete: Action = Action.NO_ACTION) -> Schema:
        """Add a foreign key to the parent's primary key."""
        parent_oid = self.names[f"public.{parent}"]
        self.keys.append(
            ForeignKey(
                100 + len(self.keys), f"{child}_{column_name}_fkey", self.names[f"public.{child}"], parent_oid, (column_name,),
                self.tables[parent_oid].primary_key, on_delete, Action.NO_ACTION, False, True, False, True, (),
            )
        )  # fmt: skip
        return self

    @property
    def catalogue(self) -> Catalogue:
        """The finished catalogue."""
        return Catalogue(180000, self.tables, tuple(self.keys), (), {}, (), self.names)


def people() -> Schema:
    """Return clinics (controllers) and patients (subjects)."""
    return (
        Schema()
        .table("clinic", column("id"), column("title", "text"))
        .table(
            "patient",
            column("id"),
            column("clinic_id", "integer!"),
            column("email", "text"),
            column("created_at", "timestamp with time zone!"),
        )
        .key("patient", "clinic_id", "clinic")
    )


HEAD = """\
obhut: 1
databases:
  d:
    controller: {table: public.clinic}
    subjects:
      patient: {table: public.patient, controller: {clinic_id: id}, incarnation: [created_at], created: created_at, identifiers: [email]}
    tables:
      public.clinic: {personal: false}
      public.patient:
        columns:
          email: {category: user.contact.email, anonymise: null}
        not_personal: [created_at]
        erase: delete
"""


def load_map(tables: str = "", head: str = HEAD) -> LoadedMap:
    """Return the map of patients with further tables (indented by six)."""
    return loads(head + tables)


def findings(schema: Schema, tables: str = "", *, head: str = HEAD, around: Surroundings | None = None) -> list[Finding]:
    """Return what the check finds, each with a sentence in German."""
    found = check(load_map(tables, head), "d", schema.catalogue, around)
    with speaking(Language.GERMAN):
        english = [said for one in found for said in (one.fact, one.todo) if text(said) == said]
    assert english == []
    return found


def codes(schema: Schema, tables: str = "", *, head: str = HEAD, around: Surroundings | None = None) -> set[str]:
    """Return the codes of the errors and warnings."""
    return {finding.code for finding in findings(schema, tables, head=head, around=around)}
