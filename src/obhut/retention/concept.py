"""The deletion concept of a database, in the structure of DIN EN ISO/IEC 27555: made from the data map, the rules and the settings.

A concept that is written by hand is right on the day it is written. This one says what the software does, and what nobody has decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from obhut.controllers import register
from obhut.datamap.graph import map_version
from obhut.datamap.load import load
from obhut.datamap.models import DatabaseMap, SubjectRule, TableRule, Treatment, Verb
from obhut.foundation.clock import Clock
from obhut.foundation.language import text
from obhut.foundation.settings import Settings
from obhut.retention import holds, rules
from obhut.retention.rules import Rule


@dataclass(frozen=True, slots=True)
class DeletionRule:
    """One deletion rule of the concept: a class of data, its starting point, its period.

    Attributes:
        table: ``schema.name``.
        categories: data categories of its personal columns.
        start: the starting point of the period, an English sentence of the catalogue.
        event: column of the event, where the starting point is one.
        period: ISO 8601; "" means at once.
        ground: legal ground of a period, or "".
        action: delete, anonymise, unlink, delete_if_orphaned; "" where nothing is said.
    """

    table: str
    categories: tuple[str, ...]
    start: str
    event: str
    period: str
    ground: str
    action: str


@dataclass(frozen=True, slots=True)
class Concept:
    """All that the document says."""

    database: str
    made_at: datetime
    map_version: str
    subjects: tuple[tuple[str, SubjectRule], ...]
    deletions: tuple[DeletionRule, ...]
    inactivity: tuple[tuple[str, Rule], ...]  # with the controller's name
    without_rule: tuple[str, ...]  # names of controllers
    holds: int
    backups_gone: timedelta
    window: str


_PERSON = "the person is erased or anonymised"
_EVENT = "an event, whoever the row is about"


def gather(settings: Settings, database: str, clock: Clock) -> Concept:
    """Collect what the concept says; reads no protected database.

    Raises:
        DataMapError: the map cannot be read.
    """
    configured = settings.database(database)
    rules_of_map: DatabaseMap = load(configured.map).database(database)
    names = {owner.id: owner.name for owner in register.list_controllers(database)}
    in_force = rules.list_rules(database)
    ruled = {rule.controller for rule in in_force}
    return Concept(
        database=database,
        made_at=clock.now(),
        map_version=map_version(rules_of_map),
        subjects=tuple(rules_of_map.subjects.items()),
        deletions=tuple(_deletions(rules_of_map)),
        inactivity=tuple((names.get(rule.controller, rule.controller), rule) for rule in in_force),
        without_rule=tuple(sorted(name for owner, name in names.items() if owner not in ruled)),
        holds=len(holds.list_holds(database)),
        backups_gone=configured.backup.gone_after,
        window=configured.finality.window,
    )


def classes(deletions: Sequence[DeletionRule]) -> dict[tuple[str, str], list[DeletionRule]]:
    """Return deletion classes: rules with the same starting point and period, the shortest periods first."""
    found: dict[tuple[str, str], list[DeletionRule]] = {}
    for rule in sorted(deletions, key=lambda rule: (rule.start, rule.period, rule.table)):
        found.setdefault((rule.start, rule.period), []).append(rule)
    return found


def render(concept: Concept) -> str:
    """Return the document in Markdown, in the language in force."""
    return "\n".join([line for part in _PARTS for line in part(concept)]).rstrip() + "\n"


def _deletions(rules_of_map: DatabaseMap) -> Iterator[DeletionRule]:
    for name, rule in sorted(rules_of_map.tables.items()):
        if not rule.personal or not (rule.columns or rule.links):
            continue
        categories = tuple(sorted({column.category for column in rule.columns.values()}))
        for treatment in dict.fromkeys([*([rule.erase] if rule.erase else []), *_of_links(rule)]):
            period, ground = treatment.period or "", treatment.ground or ""
            action = (treatment.then or treatment.verb) if treatment.verb is Verb.KEEP else treatment.verb
            yield DeletionRule(name, categories, _PERSON, "", period, ground, action.value)
        if rule.retain is not None:
            retain = rule.retain
            yield DeletionRule(name, categories, _EVENT, retain.after, retain.period, retain.ground or "", retain.then.value)


def _of_links(rule: TableRule) -> list[Treatment]:
    return [link.erase for link in rule.links if link.erase is not None]


def _head(concept: Concept) -> Iterator[str]:
    yield text("# Deletion concept: database {database}", database=concept.database)
    yield ""
    yield text(
        "Made by Obhut on {day} from version {version} of the data map. Structure: DIN EN ISO/IEC 27555.",
        day=concept.made_at.date().isoformat(),
        version=concept.map_version[:12],
    )
    yield ""
    yield text("## 1 Responsibilities")
    yield ""
    yield text("The controllers decide about periods by documented instructions; the processor carries them out and proves it.")
    yield text("The data map is reviewed like code: a table or column without an entry stops every run.")
    yield ""


def _people(concept: Concept) -> Iterator[str]:
    yield text("## 2 Data subjects")
    yield ""
    yield _row(text("kind"), text("table"), text("what counts as activity"))
    yield "|---|---|---|"
    for kind, subject in concept.subjects:
        seen = [item if isinstance(item, str) else (f"{item.table}.{item.column}" if item.table else "SQL") for item in subject.activity]
        yield _row(kind, subject.table, ", ".join(seen) or text("not declared"))
    yield ""


def _rules(concept: Concept) -> Iterator[str]:
    yield text("## 3 Deletion classes and rules")
    yield ""
    for number, ((start, period), members) in enumerate(classes(concept.deletions).items(), 1):
        yield text("### Class {number}: {period} after: {start}", number=number, period=period or text("at once"), start=text(start))
        yield ""
        yield _row(text("table"), text("data categories"), text("event"), text("treatment"), text("legal ground"))
        yield "|---|---|---|---|---|"
        for rule in members:
            yield _row(rule.table, ", ".join(rule.categories) or "–", rule.event or "–", text(rule.action), rule.ground or "–")
        yield ""


def _inactivity(concept: Concept) -> Iterator[str]:
    yield text("## 4 Inactive people")
    yield ""
    if concept.inactivity:
        yield _row(text("controller"), text("kind"), text("after"), text("notice"), text("grace"), text("zone"), text("instruction"))
        yield "|---|---|---|---|---|---|---|"
    for name, rule in concept.inactivity:
        yield _row(name, rule.subject_kind, rule.period, rule.notice or "–", rule.grace, rule.zone, rule.instruction)
    yield ""
    yield text("Whole calendar days of the controller's time zone count. Whoever is active again is left alone, up to the last second.")
    yield text("People on hold are left out; {number} holds are in force.", number=concept.holds)
    yield ""


def _traces(concept: Concept) -> Iterator[str]:
    yield text("## 5 Copies and traces")
    yield ""
    yield text("Every byte of a backup is gone after {days} days.", days=concept.backups_gone.days)
    yield text(
        "A restore leaves out whoever was erased and anonymises again whoever was anonymised: the erasure list outlives every backup."
    )
    window = concept.window or text("when asked")
    yield text("Indexes are rebuilt and statistics renewed without keeping anybody waiting; tables are rewritten: {window}.", window=window)
    yield ""


def _missing(concept: Concept) -> Iterator[str]:
    found = [text("Controller without a rule for inactive people: {name}", name=name) for name in concept.without_rule]
    found += [
        text("What counts as activity of a {kind} is not declared", kind=kind) for kind, subject in concept.subjects if not subject.activity
    ]
    yield text("## 6 What nobody has decided")
    yield ""
    yield from (f"- {line}" for line in found or [text("Nothing.")])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_PARTS = (_head, _people, _rules, _inactivity, _traces, _missing)
