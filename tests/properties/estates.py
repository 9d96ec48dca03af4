"""Random small databases with a random data map: schema, rows, links, treatments and erasures as plain values.

Drawn by hypothesis, so that a counterexample shrinks; turned into SQL and into a data map here, and read by the naive model
(``naive.py``) as they are.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

NOW = datetime(2030, 6, 1, tzinfo=UTC)
KEEP_SHORT = {"keep": "§ 1", "for": "P1Y", "then": "delete"}
KEEP_LONG = {"keep": "§ 2", "for": "P5Y", "then": "delete"}
KEEP_THEN_ANONYMISE = {"keep": "§ 3", "for": "P1Y", "then": "anonymise"}
MOMENTS = (NOW, NOW - timedelta(days=800))  # the short period is over for the second

Row = dict[str, Any]


@dataclass
class Ref:
    """Columns of ``child`` that name rows of ``parent``; a foreign key, a link of the map, or both."""

    number: int
    child: str
    parent: str
    form: str  # fk, declared, poly, array, json, list
    columns: tuple[str, ...]
    types: tuple[str, ...]
    parent_columns: tuple[str, ...]
    not_null: tuple[bool, ...]
    on_delete: str = "NO ACTION"
    set_columns: tuple[str, ...] = ()
    match_full: bool = False
    deferrable: str = ""
    leaf: str = ""  # the foreign key is declared on this partition only
    defaults: tuple[Any, ...] = ()
    mapped: bool = False
    erase: Any = None
    when_anonymised: Any = None
    anonymises: tuple[str, ...] = ()
    shares: bool = False  # a declared reference that counts for delete_if_orphaned


@dataclass
class Tab:
    """A table."""

    name: str
    key: tuple[str, ...]
    types: tuple[str, ...]
    partition: str = ""  # hash, range, list
    inherits: str = ""
    generated: str = ""  # STORED or VIRTUAL
    identity: str = ""
    erase: Any = None
    when_anonymised: Any = None
    rules: dict[str, Any] = field(default_factory=dict)
    subject: bool = False
    primary: bool = True
    refs: list[Ref] = field(default_factory=list)

    @property
    def shared(self) -> bool:
        return self.erase == "delete_if_orphaned"

    @property
    def leaves(self) -> tuple[str, ...]:
        return (f"{self.name}_p0", f"{self.name}_p1") if self.partition else (self.name,)

    def leaf(self, row: Row) -> str:
        """Name the partition of a row; not known for hash."""
        if self.partition == "list":
            return self.leaves[0 if row["part"] == 1 else 1]
        if self.partition == "range":
            return self.leaves[0 if row["id"] < 3 else 1]
        return self.name


@dataclass
class Erasure:
    kind: str
    key: tuple[Any, ...]
    action: str
    erased_at: datetime


@dataclass
class Estate:
    """A database, its map and what is to be erased."""

    tables: dict[str, Tab]
    rows: dict[str, list[Row]]
    erasures: list[Erasure]

    @property
    def refs(self) -> Iterator[Ref]:
        for table in self.tables.values():
            yield from table.refs

    # -- as SQL ---------------------------------------------------------------------------------------------------------------

    def ddl(self, schema: str) -> str:
        lines = [f"CREATE SCHEMA {schema}; SET search_path = {schema}, pg_catalog; CREATE TABLE ctl (id bigint PRIMARY KEY);"]
        for table in self.tables.values():
            if table.inherits:
                lines.append(f"CREATE TABLE {table.name} (PRIMARY KEY ({', '.join(table.key)})) INHERITS ({table.inherits});")
                continue
            columns = [
                f"{name} {kind} NOT NULL" + (f" {table.identity}" if name == "id" else "")
                for name, kind in zip(table.key, table.types, strict=True)
            ]
            columns += ["s text", "n int", "d date", "j jsonb", "ctl bigint"]
            if table.generated:
                columns.append(f"g bigint GENERATED ALWAYS AS (n * 2) {table.generated}")
            for ref in table.refs:
                defaults = ref.defaults or (None,) * len(ref.columns)
                for name, kind, strict, default in zip(ref.columns, ref.types, ref.not_null, defaults, strict=True):
                    columns.append(
                        f"{name} {kind}"
                        + (" NOT NULL" if strict else "")
                        + (f" DEFAULT {literal(default, kind)}" if default is not None else "")
                    )
            if table.primary:
                columns.append(f"PRIMARY KEY ({', '.join(table.key)})")
            by = {"hash": "id", "range": "id", "list": "part"}
            how = f" PARTITION BY {table.partition} ({by[table.partition]})" if table.partition else ""
            lines.append(f"CREATE TABLE {table.name} ({', '.join(columns)}){how};")
            bounds = {
                "hash": ("WITH (MODULUS 2, REMAINDER 0)", "WITH (MODULUS 2, REMAINDER 1)"),
                "range": ("FROM (MINVALUE) TO (3)", "FROM (3) TO (MAXVALUE)"),
                "list": ("IN (1)", "IN (2)"),
            }
            if table.partition:
                for leaf, bound in zip(table.leaves, bounds[table.partition], strict=True):
                    lines.append(f"CREATE TABLE {leaf} PARTITION OF {table.name} FOR VALUES {bound};")
        return "\n".join(lines)

    def data(self) -> str:
        lines = []
        for table in self.tables.values():
            rows = self.rows[table.name]
            if rows:
                names = list(rows[0])
                kinds = self.kinds(table)
                values = ", ".join("(" + ", ".join(literal(row[name], kinds[name]) for name in names) + ")" for row in rows)
                lines.append(f"INSERT INTO {table.name} ({', '.join(names)}) OVERRIDING SYSTEM VALUE VALUES {values};")
        return "\n".join(lines)

    def kinds(self, table: Tab) -> dict[str, str]:
        if table.inherits:
            return self.kinds(self.tables[table.inherits])
        kinds = dict(zip(table.key, table.types, strict=True)) | {"s": "text", "n": "int", "d": "date", "j": "jsonb", "ctl": "bigint"}
        for ref in table.refs:
            kinds |= dict(zip(ref.columns, ref.types, strict=True))
        return kinds

    def keys(self) -> str:
        lines = []
        for ref in self.refs:
            if ref.form == "fk":
                action = ref.on_delete + (f" ({', '.join(ref.set_columns)})" if ref.set_columns else "")
                full = " MATCH FULL" if ref.match_full else ""
                lines.append(
                    f"ALTER TABLE {ref.leaf or ref.child} ADD CONSTRAINT f{ref.number} FOREIGN KEY ({', '.join(ref.columns)}) REFERENCES"
                    f" {ref.parent} ({', '.join(ref.parent_columns)}){full} ON DELETE {action} {ref.deferrable};"
                )
        return "\n".join(lines)

    # -- as data map ----------------------------------------------------------------------------------------------------------

    def rules(self, schema: str) -> dict[str, Any]:
        tables: dict[str, Any] = {f"{schema}.ctl": {"personal": False}}
        for table in self.tables.values():
            if table.inherits:
                continue
            rule: dict[str, Any] = {"columns": {name: {"category": "user", "anonymise": how} for name, how in table.rules.items()}}
            rule["links"] = [self._link(schema, ref) for ref in table.refs if ref.mapped]
            if table.erase is not None:
                rule["erase"] = table.erase
            if table.when_anonymised is not None:
                rule["when_anonymised"] = table.when_anonymised
            shared_by = [
                {"table": f"{schema}.{ref.child}", "columns": dict(zip(ref.columns, ref.parent_columns, strict=True))}
                for ref in self.refs
                if ref.shares and ref.parent == table.name
            ]
            if shared_by:
                rule["shared_by"] = shared_by
            tables[f"{schema}.{table.name}"] = rule
        subjects = {
            table.name: {"table": f"{schema}.{table.name}", "controller": {"ctl": "id"}} for table in self.tables.values() if table.subject
        }
        return {"controller": {"table": f"{schema}.ctl"}, "subjects": subjects, "tables": tables}

    def _link(self, schema: str, ref: Ref) -> dict[str, Any]:
        link: dict[str, Any] = {"to": f"{schema}.{ref.parent}"}
        if ref.form in {"fk", "declared"}:
            link["columns"] = dict(zip(ref.columns, ref.parent_columns, strict=True))
        elif ref.form == "poly":
            link["columns"] = {ref.columns[0]: ref.parent_columns[0]}
            link["when"] = {ref.columns[1]: "P"}
        elif ref.form == "array":
            link["array"] = ref.columns[0]
        else:
            link["json"] = ref.columns[0]
            link["path"] = "$.a.ref" if ref.form == "json" else "$.list[*].ref"
        for name in ("erase", "when_anonymised"):
            if getattr(ref, name) is not None:
                link[name] = getattr(ref, name)
        if ref.anonymises:
            link["anonymises"] = list(ref.anonymises)
        return link


def literal(value: Any, kind: str) -> str:
    if value is None:
        return "NULL"
    if kind == "jsonb":
        value = json.dumps(value)
    elif isinstance(value, list):
        value = "{" + ",".join(json.dumps(str(each)) for each in value) + "}"
    text = str(value).replace("'", "''")
    return f"'{text}'::{kind}"


# -- drawing ------------------------------------------------------------------------------------------------------------------

PLAIN_RULES = {
    "s": ("null", "empty", {"constant": "gone"}, {"template": "x-{id}"}, {"keep": "harmless"}),
    "n": ("null", {"constant": 7}),
    "d": ("null", {"generalise": "year"}),
    "j": ("null", {"json": {"$.name": "remove", "$.deep.name": "gone"}}, {"json": ["$.people[*].name", "$.tags[*]"]}),
}
DOCUMENTS = (
    None,
    {},
    {"name": "N", "deep": {"name": "M", "x": 1}},
    {"people": [{"name": "A", "x": 1}, {"y": 2}, 3], "tags": ["a", "b"]},
    [{"name": "N"}],
    "text",
    5,
)


def key_value(kind: str, number: int) -> Any:
    if kind == "uuid":
        return str(uuid.UUID(int=number))
    return f'k"{number},' if kind == "text" else number


@st.composite
def estates(draw: Any, *, only_keys: bool = False, tree: bool = False, stay: bool = False) -> Estate:
    """Draw an estate.

    With ``only_keys`` its map says nothing that the foreign keys do not say; with ``tree`` nearly all rows hang on the people by foreign
    keys without cycles and are deleted, which is what the short way is made for; with ``stay`` nearly all of these rows are anonymised.
    """
    count = draw(st.integers(2, 8))
    tables: dict[str, Tab] = {}
    for number in range(count):
        table = _table(draw, number, only_keys=only_keys or tree)
        if tree and number and draw(st.integers(0, 29 if stay else 2)) == 0:
            table.erase, table.subject = "delete_if_orphaned", False
        if stay and table.subject:
            table.partition = ""  # an address says nothing without its leaf, so partitioned people go the long way
        if stay and table.erase == "delete" and draw(st.integers(0, 19)):
            table.erase = "anonymise"
            _rules(draw, table)
        tables[table.name] = table
    parents = [table for table in tables.values() if table.primary]
    number = 0
    for table in list(tables.values()):
        for _ in range(draw(st.integers(0 if table.subject else 1, 1 if stay else 3))):
            if tree and draw(st.integers(0, 19 if stay else 9)):
                earlier = [parent for parent in parents if parent.shared or parent.name < table.name]
                if not earlier or table.shared:
                    continue
                ref = _branch(draw, number, table, draw(st.sampled_from(earlier)))
            else:
                ref = _ref(draw, number, table, draw(st.sampled_from(parents)), only_keys=only_keys)
            table.refs.append(ref)
            number += 1
    for table in tables.values():
        personal = [ref for ref in table.refs if ref.mapped]
        if len(personal) > 1 and table.rules and draw(st.booleans()):
            personal[0].anonymises = tuple(sorted(table.rules)[:1])
        if not only_keys and table.refs and draw(st.integers(0, 4)) == 0:
            nullable = [n for r in table.refs if r.form == "fk" for n, strict in zip(r.columns, r.not_null, strict=True) if not strict]
            if nullable and not table.partition:
                table.rules[draw(st.sampled_from(nullable))] = "null"
    rows = {table.name: _keys(draw, table) for table in tables.values()}
    for table in tables.values():
        for row in rows[table.name]:
            for ref in table.refs:
                _point(draw, row, ref, tables[ref.parent], rows[ref.parent])
        for ref in table.refs:
            if ref.on_delete == "SET DEFAULT" and draw(st.integers(0, 2)):
                chosen = draw(st.sampled_from(rows[ref.parent]))
                ref.defaults = tuple(chosen[name] for name in ref.parent_columns)
    bases = [table for table in tables.values() if not table.partition and table.primary]
    if bases and draw(st.integers(0, 5)) == 0:
        base = draw(st.sampled_from(bases))
        tables["heir"] = Tab("heir", base.key, base.types, inherits=base.name)
        rows["heir"] = [dict(row) for row in rows[base.name]]
    return Estate(tables, rows, _erasures(draw, tables, rows, only_keys=only_keys or tree))


def _table(draw: Any, number: int, *, only_keys: bool) -> Tab:
    partition = draw(st.sampled_from(("", "", "", "hash", "range", "list")))
    kind = "bigint" if partition == "range" else draw(st.sampled_from(("bigint", "bigint", "uuid", "text")))
    key, types = ("id",), (kind,)
    if partition == "list":
        key, types = ("id", "part"), (kind, "int")
    elif not partition and draw(st.integers(0, 3)) == 0:
        key, types = ("id", "k2"), (kind, "text")
    table = Tab(f"t{number}", key, types, partition)
    table.subject = number == 0 or (number == 1 and draw(st.booleans()))
    table.primary = table.subject or draw(st.integers(0, 7)) > 0
    table.generated = draw(st.sampled_from(("", "STORED", "VIRTUAL")))
    if kind == "bigint" and draw(st.integers(0, 3)) == 0:
        table.identity = draw(st.sampled_from(("GENERATED ALWAYS AS IDENTITY", "GENERATED BY DEFAULT AS IDENTITY")))
    if only_keys:
        table.erase = "delete"
        return table
    if table.subject:
        table.erase = draw(st.sampled_from(("delete", "delete", "delete", "anonymise", KEEP_SHORT)))
    else:
        choices = (
            "delete",
            "delete",
            "anonymise",
            "unlink",
            KEEP_SHORT,
            KEEP_LONG,
            KEEP_THEN_ANONYMISE,
            "delete_if_orphaned",
            "delete_if_orphaned",
        )
        table.erase = draw(st.sampled_from(choices))
    table.when_anonymised = draw(st.sampled_from((None, None, None, "delete", "anonymise", "unlink")))
    if table.subject and table.when_anonymised == "unlink":
        table.when_anonymised = None
    _rules(draw, table)
    return table


def _rules(draw: Any, table: Tab) -> None:
    for column, ways in PLAIN_RULES.items():
        if draw(st.booleans()):
            table.rules[column] = draw(st.sampled_from(ways))


def _ref(draw: Any, number: int, child: Tab, parent: Tab, *, only_keys: bool) -> Ref:
    forms = ["fk", "fk", "fk", "fk"]
    if not only_keys:
        forms += ["declared"]
        if len(parent.key) == 1:
            forms += ["poly", "array", "json", "list"]
    form = draw(st.sampled_from(forms))
    types = parent.types
    columns = tuple(f"r{number}_{name}" for name in parent.key)
    if form == "poly":
        columns, types = (f"r{number}_id", f"r{number}_type"), ("text", "text")
    elif form == "array":
        columns, types = (f"r{number}_a",), (f"{parent.types[0]}[]",)
    elif form in {"json", "list"}:
        columns, types = (f"r{number}_j",), ("jsonb",)
    strict = (False,) * len(columns)
    if form in {"fk", "declared"} and draw(st.integers(0, 2)) == 0:
        strict = tuple(draw(st.booleans()) for _ in columns)
    ref = Ref(number, child.name, parent.name, form, columns, types, parent.key, strict)
    if form == "fk":
        actions = ("CASCADE", "SET NULL", "NO ACTION", "RESTRICT", "SET DEFAULT", "CASCADE", "SET NULL")
        ref.on_delete = draw(st.sampled_from(actions))
        if ref.on_delete == "SET NULL" and len(columns) > 1 and draw(st.booleans()):
            ref.set_columns = (draw(st.sampled_from(columns)),)
        ref.match_full = draw(st.integers(0, 3)) == 0
        ref.deferrable = draw(st.sampled_from(("", "", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED")))
        if child.partition in {"range", "list"} and draw(st.integers(0, 2)) == 0:
            ref.leaf = draw(st.sampled_from(child.leaves))
    if only_keys:
        return ref
    ref.mapped = form in {"poly", "array", "json", "list"} or draw(st.integers(0, 3)) > 0
    if parent.shared and form in {"fk", "declared"} and draw(st.integers(0, 3)):
        ref.mapped = False
    if form == "declared" and parent.shared and not ref.mapped:
        ref.shares = True
    if ref.mapped:
        choices = (None, None, "delete", "anonymise", "unlink", KEEP_SHORT, KEEP_LONG)
        ref.erase = draw(st.sampled_from(choices))
        ref.when_anonymised = draw(st.sampled_from((None, None, None, "delete", "anonymise", "unlink")))
    return ref


def _branch(draw: Any, number: int, child: Tab, parent: Tab) -> Ref:
    ref = _ref(draw, number, child, parent, only_keys=True)
    if parent.shared:
        if draw(st.integers(0, 3)) == 0:
            ref.form, ref.on_delete, ref.set_columns, ref.leaf, ref.match_full, ref.shares = "declared", "NO ACTION", (), "", False, True
        else:
            ref.on_delete = draw(st.sampled_from(("NO ACTION", "RESTRICT")))
            ref.set_columns = ()
        return ref
    ref.mapped, ref.erase = True, "delete"
    if draw(st.integers(0, 9)):
        ref.leaf = ""
    return ref


def _keys(draw: Any, table: Tab) -> list[Row]:
    numbers = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4, unique=True))
    rows = []
    for number in numbers:
        row: Row = {"id": key_value(table.types[0], number)}
        if table.key[1:] == ("part",):
            row["part"] = 1 + number % 2
        elif table.key[1:] == ("k2",):
            row["k2"] = "ab"[number % 2]
        document = draw(st.sampled_from(DOCUMENTS))
        row |= {"s": f"secret {number}", "n": number, "d": f"2001-0{number}-17", "j": document, "ctl": 1}
        rows.append(row)
    return rows


def _point(draw: Any, row: Row, ref: Ref, parent: Tab, rows: list[Row]) -> None:
    """Let a row name parents: existing ones, none, or (without a foreign key) ones that are not there."""
    if ref.form in {"fk", "declared"}:
        loose = ref.form == "declared"
        choice = draw(st.integers(-1 if loose else 0, len(rows)))
        if choice == -1:
            values: list[Any] = [key_value(kind, 9) if kind != "int" else 1 for kind in ref.types]
        elif choice == len(rows):
            values = [None] * len(ref.columns)
        else:
            values = [rows[choice][name] for name in ref.parent_columns]
        if any(value is None for value in values) and any(ref.not_null):
            if ref.match_full:
                values = [rows[0][name] for name in ref.parent_columns]
            else:
                values = [rows[0][name] if strict else None for name, strict in zip(ref.parent_columns, ref.not_null, strict=True)]
        row |= dict(zip(ref.columns, values, strict=True))
        return
    known = [each["id"] for each in rows] + [key_value(parent.types[0], 9)]
    if ref.form == "poly":
        value = draw(st.sampled_from([None, *known]))
        row[ref.columns[0]] = None if value is None else str(value)
        row[ref.columns[1]] = draw(st.sampled_from(("P", "P", "other")))
    elif ref.form == "array":
        chosen = draw(st.none() | st.lists(st.sampled_from(known), max_size=3))
        # A key of type text needs quoting inside an array literal; see literal().
        row[ref.columns[0]] = chosen
    elif ref.form == "json":
        value = draw(st.sampled_from([None, *known]))
        row[ref.columns[0]] = draw(st.sampled_from((None, {"a": {"ref": value, "b": 1}}, {"a": [{"ref": value}]}, {"a": 3}, 4)))
    else:
        chosen = draw(st.lists(st.sampled_from(known), max_size=3))
        found = {"list": [{"ref": value, "w": 1} for value in chosen] + [7], "x": 1}
        row[ref.columns[0]] = draw(st.sampled_from((None, found, found, {"list": {"ref": known[0]}})))


def _erasures(draw: Any, tables: dict[str, Tab], rows: dict[str, list[Row]], *, only_keys: bool) -> list[Erasure]:
    erasures = []
    subjects = [table for table in tables.values() if table.subject]
    for _ in range(draw(st.integers(1, 4))):
        table = draw(st.sampled_from(subjects))
        choice = draw(st.integers(0, len(rows[table.name]) - (1 if only_keys else 0)))
        if choice == len(rows[table.name]):
            key = tuple(key_value(kind, 9) if kind != "int" else 1 for kind in table.types)
        else:
            key = tuple(rows[table.name][choice][name] for name in table.key)
        action = "erase" if only_keys else draw(st.sampled_from(("erase", "erase", "anonymise")))
        erasures.append(Erasure(table.name, key, action, draw(st.sampled_from(MOMENTS))))
    return erasures
