"""The meaning of an erasure, one row at a time: dictionaries, loops until nothing changes, no SQL and nothing of the code under test.

Rules: rows that link to a person's row belong to the person, and so on; each such row meets its link's treatment. A deleted row takes its
children along as the foreign keys say, except where the map says that this very link is unlinked or its row anonymised, and the key
can be null: then the key goes and the row stays. A shared parent goes with its last reference, and is anonymised when only anonymised
rows reference it.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from estates import KEEP_LONG, KEEP_SHORT, KEEP_THEN_ANONYMISE, NOW, Erasure, Estate, Ref, Row, Tab

PERIODS = {"P1Y": timedelta(days=365), "P5Y": timedelta(days=5 * 365 + 1)}
ORPHANED = ("erase", frozenset({"orphaned"}))


class Refused(Exception):  # noqa: N818 - an outcome, not a fault
    """The map or the schema forbids the erasure."""


@dataclass(eq=False)
class Thing:
    """A row with its identity."""

    table: Tab
    row: Row


def text(value: Any) -> str | None:
    return None if value is None else str(value)


class Naive:
    def __init__(self, estate: Estate) -> None:
        self.estate = estate
        self.things = {name: [Thing(table, copy.deepcopy(row)) for row in estate.rows[name]] for name, table in estate.tables.items()}
        self.belongs: dict[Any, set[Thing]] = defaultdict(set)
        self.deleted: dict[Any, set[Thing]] = defaultdict(set)
        self.kept: set[Thing] = set()
        self.soft: set[Thing] = set()
        self.candidates: set[Thing] = set()
        self.unlinked: dict[Thing, set[tuple[int, str]]] = defaultdict(set)  # reference, key as text
        self.reset: dict[Thing, set[int]] = defaultdict(set)  # references set null or default by the server
        self.rules: dict[Thing, set[str]] = defaultdict(set)

    # -- what belongs to whom -------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, list[Row]]:
        for erasure in self.estate.erasures:
            self._seed(erasure)
        before = None
        while before != (before := self._size()):
            self._spread()
            if before == self._size():
                self._orphans()
        return self._outcome()

    def _size(self) -> tuple[int, ...]:
        state = (self.belongs, self.deleted, self.unlinked, self.reset, self.rules)
        return (*(sum(len(each) for each in found.values()) for found in state), len(self.kept), len(self.soft), len(self.candidates))

    def _cohort(self, erasure: Erasure) -> Any:
        return erasure.action, frozenset(name for name, period in PERIODS.items() if erasure.erased_at + period <= NOW)

    def _seed(self, erasure: Erasure) -> None:
        table, cohort = self.estate.tables[erasure.kind], self._cohort(erasure)
        found = [thing for thing in self.things[table.name] if tuple(thing.row[name] for name in table.key) == erasure.key]
        for thing in found:
            self._treat(cohort, thing, self._treatment(cohort, table.erase, table.when_anonymised), ())
        if not found:
            for ref in self.estate.refs:
                # A foreign key on the whole table makes sure that nobody names a person who is not there.
                if ref.mapped and ref.parent == table.name and not (ref.form == "fk" and not ref.leaf):
                    for thing in self._naming(ref, dict(zip(table.key, erasure.key, strict=True))):
                        verb = self._verb(cohort, ref)
                        self._link(cohort, ref, thing, text(erasure.key[0]))
                        deletes = self._named(cohort, self._treatment(cohort, table.erase, table.when_anonymised)) == "delete"
                        if verb == "anonymise" and deletes:
                            self._drop(ref, thing, text(erasure.key[0]))

    def _treatment(self, cohort: Any, erase: Any, when_anonymised: Any) -> Any:
        if cohort[0] == "erase":
            return erase
        if when_anonymised is not None:
            return when_anonymised
        if erase is None or erase == "unlink":
            return None
        return erase if isinstance(erase, dict) or erase == "delete_if_orphaned" else "anonymise"

    def _link_treatment(self, cohort: Any, ref: Ref) -> Any:
        table = self.estate.tables[ref.child]
        return self._treatment(cohort, ref.erase or table.erase, ref.when_anonymised or table.when_anonymised)

    def _verb(self, cohort: Any, ref: Ref) -> str | None:
        return self._named(cohort, self._link_treatment(cohort, ref))

    def _named(self, cohort: Any, treatment: Any) -> str | None:
        if treatment in (KEEP_SHORT, KEEP_LONG, KEEP_THEN_ANONYMISE):
            return treatment["then"] if treatment["for"] in cohort[1] else "keep"
        return treatment

    def _treat(self, cohort: Any, thing: Thing, treatment: Any, only: tuple[str, ...]) -> None:
        verb = self._named(cohort, treatment)
        if verb == "delete":
            self.deleted[cohort].add(thing)
        elif verb == "delete_if_orphaned":
            self.candidates.add(thing)
            return
        elif verb == "keep":
            self.kept.add(thing)
        elif verb == "anonymise":
            if not only:
                self.soft.add(thing)
            self.rules[thing] |= set(only) & set(thing.table.rules) if only else set(thing.table.rules)
        else:
            return
        self.belongs[cohort].add(thing)

    def _link(self, cohort: Any, ref: Ref, child: Thing, key: str | None) -> None:
        if self._verb(cohort, ref) == "unlink":
            self._unlink(ref, child, key)
        else:
            self._treat(cohort, child, self._link_treatment(cohort, ref), ref.anonymises)

    def _unlink(self, ref: Ref, child: Thing, key: str | None) -> None:
        if not self._nullable(ref):
            raise Refused
        self.unlinked[child].add((ref.number, key or ""))

    def _drop(self, ref: Ref, child: Thing, key: str | None) -> None:
        if self._nullable(ref):
            self.unlinked[child].add((ref.number, key or ""))

    def _nullable(self, ref: Ref) -> list[str]:
        listed = ref.set_columns if ref.form == "fk" and not ref.leaf and ref.on_delete == "SET NULL" and ref.set_columns else None
        if ref.form == "poly":
            return [ref.columns[0]]
        return [name for name, strict in zip(ref.columns, ref.not_null, strict=True) if not strict and (listed is None or name in listed)]

    def _naming(self, ref: Ref, key: Row) -> Iterator[Thing]:
        """Yield the rows that name a key by a reference."""
        first = text(key[ref.parent_columns[0]])
        for thing in self.things[ref.child]:
            row = thing.row
            if ref.form in {"fk", "declared"}:
                named = all(
                    row[mine] is not None and row[mine] == key[theirs] for mine, theirs in zip(ref.columns, ref.parent_columns, strict=True)
                )
            elif ref.form == "poly":
                named = row[ref.columns[0]] == first and row[ref.columns[1]] == "P"
            elif ref.form == "array":
                named = first in [text(each) for each in row[ref.columns[0]] or []]
            elif ref.form == "json":
                named = json_ref(row[ref.columns[0]]) == first
            else:
                named = first in [text(each["ref"]) for each in json_list(row[ref.columns[0]]) if isinstance(each, dict)]
            if named:
                yield thing

    def _spread(self) -> None:
        for cohort, things in list(self.belongs.items()):
            for parent in list(things):
                for ref in self.estate.refs:
                    if ref.mapped and ref.parent == parent.table.name and self._verb(cohort, ref) is not None:
                        for child in self._naming(ref, parent.row):
                            self._link(cohort, ref, child, text(parent.row["id"]))
        for cohort, things in list(self.deleted.items()):
            for parent in list(things):
                self.belongs[cohort].add(parent)
                for ref in self.estate.refs:
                    if ref.parent == parent.table.name:
                        self._follow(cohort, ref, parent)

    def _follow(self, cohort: Any, ref: Ref, parent: Thing) -> None:
        verb = self._verb(cohort, ref) if ref.mapped else None
        if verb == "anonymise":
            for child in self._naming(ref, parent.row):
                self._drop(ref, child, text(parent.row["id"]))
        if ref.form != "fk" or (verb in {"anonymise", "unlink"} and self._nullable(ref)):
            return
        for child in self._naming(ref, parent.row):
            if ref.leaf and child.table.leaf(child.row) != ref.leaf:
                continue
            if ref.on_delete == "CASCADE":
                self.deleted[cohort].add(child)
            elif ref.on_delete.startswith("SET"):
                self.reset[child].add(ref.number)

    # -- shared parents -------------------------------------------------------------------------------------------------------

    def _gone(self) -> set[Thing]:
        return set().union(*self.deleted.values()) if self.deleted else set()

    def _lost(self, ref: Ref, thing: Thing) -> bool:
        """Whether a row that stays no longer names its parent."""
        nulled = set(self._nullable(ref)) if any(number == ref.number for number, _ in self.unlinked[thing]) else set()
        if ref.number in self.reset[thing]:
            nulled |= set(ref.set_columns or ref.columns)
        nulled |= {name for name in self.rules[thing] if thing.table.rules[name] == "null"}
        return bool(nulled & set(ref.columns))

    def _orphans(self) -> None:
        gone = self._gone()
        for table in self.estate.tables.values():
            if not table.shared:
                continue
            for parent in self.things[table.name]:
                holders = [
                    (ref, child)
                    for ref in self.estate.refs
                    if ref.parent == table.name and (ref.form == "fk" or ref.shares)
                    for child in self._naming(ref, parent.row)
                    if not ref.leaf or child.table.leaf(child.row) == ref.leaf
                ]
                touched = parent in self.candidates or any(
                    child in gone or child in self.soft or self._lost(ref, child) for ref, child in holders
                )
                left = [child for ref, child in holders if child not in gone and not self._lost(ref, child) and child is not parent]
                if not touched or parent in gone or any(child not in self.soft for child in left):
                    continue
                if left:
                    self.soft.add(parent)
                    self.rules[parent] |= set(table.rules)
                else:
                    self.deleted[ORPHANED].add(parent)

    # -- outcome --------------------------------------------------------------------------------------------------------------

    def _outcome(self) -> dict[str, list[Row]]:
        gone = self._gone()
        if self.kept & gone:
            raise Refused
        left = {name: [thing for thing in things if thing not in gone] for name, things in self.things.items()}
        final = {name: [self._final(thing) for thing in things] for name, things in left.items()}
        for ref in self.estate.refs:
            self._check(ref, left[ref.child], final)
        return final

    def _final(self, thing: Thing) -> Row:
        row = copy.deepcopy(thing.row)
        for ref in thing.table.refs:
            if ref.number in self.reset[thing]:
                chosen = dict(zip(ref.columns, ref.defaults or (None,) * len(ref.columns), strict=True))
                for name in ref.set_columns or ref.columns:
                    row[name] = chosen[name] if ref.on_delete == "SET DEFAULT" else None
            keys = {key for number, key in self.unlinked[thing] if number == ref.number}
            if not keys:
                continue
            if ref.form in {"fk", "declared", "poly"}:
                # Unlinking a polymorphic pair nulls the key and leaves the type.
                row |= dict.fromkeys(self._nullable(ref))
            elif ref.form == "array":
                row[ref.columns[0]] = [each for each in row[ref.columns[0]] if text(each) not in keys]
            elif ref.form == "json":
                del row[ref.columns[0]]["a"]["ref"]
            else:
                inside = row[ref.columns[0]]
                inside["list"] = [each for each in inside["list"] if not (isinstance(each, dict) and text(each["ref"]) in keys)]
        for column in self.rules[thing]:
            row[column] = anonymised(thing.table.rules[column], row, column)
        return row

    def _check(self, ref: Ref, things: list[Thing], final: dict[str, list[Row]]) -> None:
        parents = {tuple(row[name] for name in ref.parent_columns) for row in final[ref.parent]}
        for thing, row in zip(things, final[ref.child], strict=True):
            values = tuple(row[name] for name in ref.columns)
            if ref.form in {"fk", "declared"} and any(value is None and strict for value, strict in zip(values, ref.not_null, strict=True)):
                raise Refused
            if ref.form != "fk" or (ref.leaf and thing.table.leaf(thing.row) != ref.leaf):
                continue
            nulls = values.count(None)
            if nulls and ref.match_full and nulls < len(values):
                raise Refused
            if not nulls and values not in parents:
                raise Refused


def json_ref(document: Any) -> str | None:
    inner = document.get("a") if isinstance(document, dict) else None
    return text(inner.get("ref")) if isinstance(inner, dict) else None


def json_list(document: Any) -> list[Any]:
    found = document.get("list") if isinstance(document, dict) else None
    return found if isinstance(found, list) else []


def anonymised(rule: Any, row: Row, column: str) -> Any:
    value = row[column]
    if rule == "null":
        return None
    if rule == "empty":
        return ""
    if "constant" in rule:
        return rule["constant"]
    if "template" in rule:
        return f"x-{row['id']}"
    if "keep" in rule:
        return value
    if "generalise" in rule:
        return "2001-01-01"
    document = copy.deepcopy(value)
    if not isinstance(document, dict):
        return document
    if isinstance(rule["json"], dict):
        document.pop("name", None)
        if isinstance(document.get("deep"), dict) and "name" in document["deep"]:
            document["deep"]["name"] = "gone"
    else:
        for each in document.get("people", []):
            if isinstance(each, dict):
                each.pop("name", None)
        if "tags" in document:
            document["tags"] = []
    return document
