"""The leak check: the finished, still closed copy is read and compared with the source, but for what was searched on its way into it.

Each statement answers one question, by the data map and not by the plan that the run used. A statement that had nothing to look at, or
whose positive control found nothing, is unchecked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from obhut.clones import crew
from obhut.clones import originals as sources
from obhut.clones.digests import tokens
from obhut.clones.findings import Leak, Result, Statement, settled
from obhut.clones.originals import FEW, Originals
from obhut.clones.passing import TRIED, Passed
from obhut.clones.sieve import SEPARATOR
from obhut.clones.texts import Database, Piece, cells, leaves, pieces, structured, wordy
from obhut.datamap.transformers import Effect
from obhut.erasure.canary import TOKEN_PREFIX
from obhut.masking.model import ColumnPlan, MaskPlan
from obhut.masking.stream import Count
from obhut.postgres.catalogue import Catalogue, Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier
from obhut.restores.plan import Range
from obhut.restores.scan import Place

_MOVED = {"noise": 0.1, "shift": 0.1, "rekey": 0.1}  # share that may come out as it went in
_DEALT = 0.95  # the same for values dealt out anew among rows, many of which are alike
_FEW_CELLS = 20  # below, a share says nothing
_ENOUGH = 50  # values remembered for a place, to be confirmed at the source
_CONTROL = 50  # pieces of a column at the source that the positive control tries
FORKED = 64  # pieces from which on other processes help
_NO_PATHS: frozenset[str] = frozenset()


@dataclass
class _Seen:
    """What the search has come across."""

    texts: int = 0
    cells: Counter[str] = field(default_factory=Counter)  # judged, by place of an invented column
    identifiers: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    canaries: Counter[str] = field(default_factory=Counter)
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: _Seen) -> None:
        """Add what another process has come across."""
        self.texts += other.texts
        self.cells += other.cells
        self.canaries += other.canaries
        self.hits += other.hits
        for mine, theirs in ((self.identifiers, other.identifiers), (self.values, other.values)):
            for place, values in theirs.items():
                mine[place] = [*mine.get(place, ()), *values][:_ENOUGH]

    def note(self, kind: dict[str, list[str]], name: str, place: str, value: str) -> None:
        kept = kind.setdefault(place, [])
        if len(kept) < _ENOUGH:
            kept.append(value)
        self.hits[name, place] += 1


def rows(
    source: Session, session: Session, copy: Database, found: Originals, catalogue: Catalogue, tokens_planted: Sequence[str], workers: int,
    passed: Passed,
) -> list[Statement]:  # fmt: skip
    """Search every text of the copy's rows that was not searched on its way.

    Args:
        source: where what was found is confirmed, and where the positive control looks.
        session: on the copy.
        copy: the same for other sessions.
        found: the source's values.
        catalogue: of the copy, without Obhut's own schemas.
        tokens_planted: of the canaries that live in the source.
        workers: processes side by side.
        passed: what was searched already.
    """
    tables = [(table, _unsearched(table, passed)) for table in catalogue.tables.values() if table.kind == "r"]
    cut = pieces(session, [(table, columns) for table, columns in tables if columns])

    def search(share: Sequence[Piece]) -> _Seen:
        seen = _Seen()
        with copy.session() as reading:
            for piece in share:
                _search(reading, piece, catalogue.root(piece.table.oid).full_name, found, seen)
        return seen

    seen = _Seen(sum(passed.rows[name] * len(columns) for name, columns in passed.cleared.items()), Counter(passed.cells))
    for one in [search(cut)] if len(cut) < FORKED else crew.share(search, cut, workers):
        seen.add(one)
    return [*_identifiers(source, found, seen), _values(source, found, seen), _canaries(source, found, seen, tokens_planted)]


def _unsearched(table: Table, passed: Passed) -> list[Column]:
    return [column for column in wordy(table) if column.name not in passed.cleared.get(table.full_name, ())]


def _search(session: Session, piece: Piece, name: str, found: Originals, seen: _Seen) -> None:
    for texts in cells(session, piece):
        for column, text in zip(piece.columns, texts, strict=True):
            _sift(f"{name}.{column.name}", column, text, found, seen)


def _sift(place: str, column: Column, text: str, found: Originals, seen: _Seen) -> None:
    """Look at many cells of a column at once, and at each one alone where that may tell something."""
    rule = found.invented.get(place)
    names = rule is None or rule.transformer not in FEW
    exact = column.base_type == "bytea" or (structured(column) and (rule is not None or found.identifiers.quoted))
    planted = TOKEN_PREFIX in text.lower()
    if exact or planted or (names and found.identifiers.may_stand_in(text, document=structured(column))):
        for cell, times in Counter(text.split(SEPARATOR)).items():
            for path, value in leaves(column, cell):
                seen.texts += 1
                _look(place, path, value, times, found, seen, names=names)
                if exact and rule is not None:
                    _compare(place, rule, path, value, found, seen)
    else:
        seen.texts += text.count(SEPARATOR) + 1
    if rule is not None and not exact:
        _compare_all(place, rule, text, found, seen)


def _look(place: str, path: str, text: str, times: int, found: Originals, seen: _Seen, *, names: bool) -> None:
    if TOKEN_PREFIX in text.lower() and place not in found.kept:
        seen.canaries[place + path] += times
    if names:
        for token in found.identifiers.hits(list(tokens(text))):
            seen.note(seen.identifiers, "identifiers", place + path, token)


def _compare_all(place: str, rule: ColumnPlan, text: str, found: Originals, seen: _Seen) -> None:
    values = list(sources.folded(text))
    if rule.transformer in FEW:  # what share of the judged cells is the source's decides, so each is judged
        values = [value for value in values if sources.judged("", value, _NO_PATHS)]
        seen.cells[place] += len(values)
    elif any(sources.judged("", value, _NO_PATHS) for value in values[:TRIED]):
        seen.cells[place] += len(values)
    for value in found.values[place].hits(values):
        if sources.judged("", value, _NO_PATHS):
            seen.note(seen.values, "values", place, value)


def _compare(place: str, rule: ColumnPlan, path: str, text: str, found: Originals, seen: _Seen) -> None:
    if sources.judged(path, text, sources.kept_paths(rule)):
        seen.cells[place] += 1
        if sources.placed(path, text) in found.values[place]:
            seen.note(seen.values, "values", place + path, text)


def _control(source: Session, found: Originals) -> _Seen:
    """Read some rows of the source by the very same search: where nothing is found there, finding nothing in the copy says nothing."""
    seen = _Seen()
    everywhere = Originals(found.identifiers)
    for table, column in found.places[:20]:
        for piece in pieces(source, [(table, [table.by_name[column]])])[:_CONTROL]:
            some = replace(piece, blocks=Range(piece.blocks.first, piece.blocks.first + 4))
            _search(source, some, table.full_name, everywhere, seen)
            if seen.identifiers:
                return seen
    return seen


def _identifiers(source: Session, found: Originals, seen: _Seen) -> list[Statement]:
    if not found.identifiers.count:
        return [Statement("identifiers", Result.UNCHECKED, seen.texts, (), "the source has no identifier in a column of text")]
    if not _control(source, found).identifiers:
        return [Statement("identifiers", Result.FAILED, seen.texts, (), "the same search found nothing in the source")]
    bad = [
        Leak(place, seen.hits["identifiers", place])
        for place, values in seen.identifiers.items()
        if sources.confirmed(source, found.places, values)
    ]
    return [settled("identifiers", seen.texts, bad, nothing="the copy holds no text")]


def _values(source: Session, found: Originals, seen: _Seen) -> Statement:
    bad = []
    for place, values in seen.values.items():
        column_place = _column_of(place, found)
        rule, table = found.invented[column_place], found.tables[column_place.rsplit(".", 1)[0]]
        cells_there = max(seen.cells[column_place], 1)
        count = seen.hits["values", place]
        if rule.transformer in FEW and sources.by_chance(count, cells_there):
            continue
        if sources.confirmed(source, [(table, rule.name)], [value.lower() for value in values]):
            bad.append(Leak(place, count))
    nothing = "no column's values are invented" if not found.invented else "no invented value is long enough to be judged"
    return settled("values", sum(seen.cells.values()), bad, nothing=nothing)


def _column_of(place: str, found: Originals) -> str:
    """Return the column of a place that may have a path inside it."""
    return max((known for known in found.invented if place.startswith(known)), key=len)


def _canaries(source: Session, found: Originals, seen: _Seen, planted: Sequence[str]) -> Statement:
    if seen.canaries:
        return settled("canaries", seen.texts, [Leak(place, count) for place, count in seen.canaries.items()], nothing="")
    if not planted:
        return Statement("canaries", Result.UNCHECKED, 0, (), "no canary lives in the source")
    there = any(
        source.value(
            SQL("SELECT EXISTS (SELECT FROM {} WHERE position(%s IN lower({}::text)) > 0)").format(table.relation, Identifier(column)),
            (token,),
        )
        for token in planted
        for table, column in found.places
    )
    if not there:
        return Statement("canaries", Result.UNCHECKED, seen.texts, (), "no canary was found in the source")
    return Statement("canaries", Result.PASSED, seen.texts)


def texts(name: str, places: Iterable[Place], found: Originals) -> Statement:
    """Search definitions, comments, roles, statistics: everything about a database that is no row."""
    bad: Counter[str] = Counter()
    looked = 0
    for place in places:
        looked += 1
        everything = list(tokens(place.text))
        told = {token for token in everything if TOKEN_PREFIX in token} | set(found.identifiers.hits(everything))
        if told:
            # A definition may be named after a person.
            hidden = any(token in place.name.lower() for token in told)
            bad[f"{place.name.split()[0]} number {looked} (named after a value)" if hidden else place.name] += len(told)
    return settled(name, looked, [Leak(place, count) for place, count in bad.items()], nothing="there was nothing to look at")


def rules(copy: Session, plan: MaskPlan, catalogue: Catalogue) -> Statement:
    """Apply the server's rules to the copy again: a value that changes was not masked by its rule.

    Args:
        copy: the copy.
        plan: made afresh from the map, for the copy.
        catalogue: of the copy.
    """
    bad, looked = [], 0
    for oid, mask in plan.tables.items():
        table = catalogue.tables[oid]
        for column in mask.columns:
            if column.expression is None or column.transformer == "keep":
                continue
            looked += 1
            query = SQL("SELECT count(*) FROM {} WHERE ({})::text IS DISTINCT FROM {}::text").format(
                table.relation, column.expression, Identifier(column.name)
            )
            if count := int(copy.value(query) or 0):
                bad.append(Leak(f"{mask.name}.{column.name}", count))
    return settled("rules", looked, bad, nothing="no rule of the map is carried out by the server")


def stream(plan: MaskPlan, counts: Mapping[str, Count]) -> Statement:
    """Judge how many cells came out of the stream as they went in, for every column that the map has the client mask.

    Args:
        plan: made afresh from the map.
        counts: by place, as the streams counted; a column without a count was not masked at all.
    """
    bad, looked = [], 0
    carried = {place.rsplit(".", 1)[0] for place in counts}
    for mask in plan.tables.values():
        for column in mask.masked:
            place = f"{mask.name}.{column.name}"
            count = counts.get(place)
            if count is None:
                if mask.name in carried:
                    bad.append(Leak(place, 0))
                continue
            looked += count.cells
            known = count.cells - count.nulls
            if known >= _FEW_CELLS and count.unchanged / known > _tolerated(column):
                bad.append(Leak(place, count.unchanged))
    return settled("stream", looked, bad, nothing="no cell went through the masker")


def _tolerated(column: ColumnPlan) -> float:
    if any(variant.when for variant in column.key):
        return 1.0  # other rows of the column name other things, whose keys stay
    if column.transformer in _MOVED:
        return _MOVED[column.transformer]
    return _DEALT if column.effect is Effect.PERTURBS else 0.5
