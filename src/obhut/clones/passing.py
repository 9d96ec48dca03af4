"""Searching rows on their way into the copy: the bytes that the target is given are looked at while they pass.

So most of a copy need not be read again. What is found here is only a suspicion: the table is then searched in the copy, by the search that
names places and counts. A column is left out of that search only when its type puts in what the stream held, nothing suspicious passed, and
every row of its table was written by the transactions whose streams were looked at (:func:`proved`). Columns that the target computes,
bytes and types of extensions are always searched in the copy.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from obhut.clones.digests import SHORTEST, common
from obhut.clones.originals import FEW, Originals, by_chance, in_bulk, judged, listed
from obhut.clones.sieve import SEPARATOR
from obhut.clones.texts import Database, structured, wordy
from obhut.erasure.canary import TOKEN_PREFIX
from obhut.masking.fields import NULL, unescape
from obhut.masking.model import MaskPlan
from obhut.postgres.catalogue import Catalogue, Column, Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier, Literal, trusted
from obhut.restores import streams
from obhut.restores.filter import Filter
from obhut.restores.load import tables_to_load

_TEXTS = frozenset({"text", "character varying", "character", "json", "jsonb"})  # the same bytes in both forms of COPY
_SPELT = frozenset({"uuid", "inet", "cidr", "macaddr", "macaddr8"})  # texts that have no sign of an address in them
_PLANTED = TOKEN_PREFIX.encode()
_SEPARATOR = SEPARATOR.encode()
_CELLS = bytes.maketrans(b"\t\n", _SEPARATOR * 2)
# Whose values are words of lists, which the source may hold by itself; such values say nothing.
_OF_WORDS = frozenset({"name", "first_name", "last_name", "street", "city", "postcode", "address", "company", "text"})
_LONGEST = 1 << 23  # bytes of a value that are waited for; a table with a longer one is searched in the copy
MOST = 1 << 22  # digests of values that one process holds (32 MB); columns beyond are compared in the copy
_PLACES, _ROWS = 20, 1000  # columns of the source that the control tries, and rows of each
TRIED = 200  # cells of a chunk that tell whether its column can be judged
_BEYOND = bytes(range(128, 256))
_LOWERED = (("\N{KELVIN SIGN}".encode(), b"k"), ("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}".encode(), b"i"))  # in lower case
_NOTHING = _SEPARATOR + NULL
_LONG = 64  # bytes of a value that no two lists of words have in common by chance
_LONG_TEXTS = frozenset({"text"})  # transformers whose values are long: their first bytes are compared, and all of it where those are met
_HEAD = _LONG + 1  # bytes
_CUT = _HEAD + 31  # bytes of a cell from which these can be had, most of the time
_NO_PATHS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Looking:
    """What is looked at of one table.

    Attributes:
        name: of the topmost table.
        columns: whose values the search in the copy can do without.
        documents: whether some of them are documents or arrays.
        binary: whether rows that nobody masks pass in binary.
        values: columns whose values before and after masking are compared.
    """

    name: str
    columns: frozenset[str]
    documents: bool
    binary: bool
    values: frozenset[str]


@dataclass
class Told:
    """What was seen; adds up over processes.

    Attributes:
        suspects: topmost tables (oid) in whose rows something may stand.
        after: digests of invented values by place.
        cells: judged, by place.
        before: digests of the values that they replaced, by place.
        beyond: places with more values than are held.
    """

    suspects: set[int] = field(default_factory=set)
    before: dict[str, array[int]] = field(default_factory=dict)
    after: dict[str, array[int]] = field(default_factory=dict)
    cells: Counter[str] = field(default_factory=Counter)
    beyond: set[str] = field(default_factory=set)

    def add(self, other: Told) -> None:
        """Add what another process has seen."""
        self.suspects |= other.suspects
        self.cells += other.cells
        self.beyond |= other.beyond
        for mine, theirs in ((self.before, other.before), (self.after, other.after)):
            for place, digests in theirs.items():
                mine.setdefault(place, array("q")).extend(digests)


def tables(catalogue: Catalogue, plan: MaskPlan, rows: Filter, found: Originals) -> dict[int, Looking]:
    """Decide what is looked at, by oid of the topmost table.

    Args:
        catalogue: of the source.
        plan: that the run masks by. What it has lost is not compared while rows pass, but in the copy.
        rows: what is left out; where a row is, its value must be looked for too, so values are read at the source instead.
        found: the source's identifiers, and what the map wants invented.
    """
    chosen = {}
    places = compared(catalogue, plan, rows) & set(found.invented)
    for oid, mask in plan.tables.items():
        table = catalogue.tables[oid]
        plain = not mask.masked and all(column.expression is None for column in mask.columns) and not streams.as_text(table)
        binary = plain and not any(rows.of(leaf.oid).changes for leaf in catalogue.leaves(oid))
        columns = [column for column in wordy(table) if not column.is_generated and _known(column, found, mask.name, binary=binary)]
        names = frozenset(column.name for column in columns)
        values = frozenset(name for name in names if f"{mask.name}.{name}" in places)
        chosen[oid] = Looking(mask.name, names, any(map(structured, columns)), binary, values)
    return chosen


def compared(catalogue: Catalogue, plan: MaskPlan, rows: Filter) -> frozenset[str]:
    """Return the places whose values before masking need not be read at the source: every one of them passes a masker.

    Not those of whose name a materialised view has a column: what it shows is judged by the values that it may repeat.
    """
    repeated = {column.name for view in catalogue.materialised_views for column in view.columns}
    touched, carried = set(rows.touched()), {table.oid for table in tables_to_load(catalogue)}
    found = set()
    for oid, mask in plan.tables.items():
        leaves = {leaf.oid for leaf in catalogue.leaves(oid)}
        if leaves <= carried and not leaves & touched:
            names = {column.name for column in mask.masked} - repeated
            columns = [column for column in wordy(catalogue.tables[oid]) if column.name in names and in_bulk(column)]
            found |= {f"{mask.name}.{column.name}" for column in columns if column.base_type in _TEXTS | _SPELT}
    return frozenset(found)


def _known(column: Column, found: Originals, table: str, *, binary: bool) -> bool:
    """Whether the copy holds what the stream held of a column, and the search of the stream is as good as that of the copy."""
    kind = column.base_type.removesuffix("[]")
    if structured(column) and (found.identifiers.quoted or f"{table}.{column.name}" in found.invented):
        return False  # compared path by path
    if not binary:
        return kind in _TEXTS or kind in _SPELT
    if found.identifiers.odd:
        return False
    return kind in _TEXTS or (kind in _SPELT and not found.identifiers.digits)


class Watch:
    """Looks at rows as they pass; one for each process.

    Args:
        found: the source's identifiers, and what the map wants invented.
        chosen: from :func:`tables`.
    """

    def __init__(self, found: Originals, chosen: Mapping[int, Looking]) -> None:
        self._found = found
        self._chosen = chosen
        self._held = 0
        self._tried: Counter[str] = Counter()
        self.told = Told()

    def text(self, oid: int, chunk: bytes) -> None:
        """Look at whole lines of ``COPY`` in text."""
        looking = self._chosen.get(oid)
        if looking is None or not looking.columns or oid in self.told.suspects:
            return
        identifiers = self._found.identifiers
        if identifiers.odd:
            cells = _plain(chunk.translate(_CELLS)).decode("utf-8", "replace")
            told = TOKEN_PREFIX in cells.lower() or identifiers.may_stand_in(cells, document=looking.documents)
        else:
            raw = _plain(chunk)
            told = _planted(raw) or identifiers.may_stand_in_bytes(raw, binary=False, documents=looking.documents)
        if told:
            self.told.suspects.add(oid)

    def binary(self, oid: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Look at a binary stream, cut anywhere, and yield it as it is."""
        looking = self._chosen[oid]
        held = b""
        for block in blocks:
            yield block
            if oid in self.told.suspects:
                continue
            held += block
            cut = held.rfind(b"\0") + 1  # every value has a length in front, and every length a zero
            self._binary(oid, held[:cut], looking)
            held = held[cut:]
            if len(held) > _LONGEST:
                self.told.suspects.add(oid)
        if held and oid not in self.told.suspects:
            self._binary(oid, held, looking)

    def _binary(self, oid: int, raw: bytes, looking: Looking) -> None:
        if raw and (_planted(raw) or self._found.identifiers.may_stand_in_bytes(raw, binary=True, documents=looking.documents)):
            self.told.suspects.add(oid)

    def columns(self, oid: int) -> Callable[[str, Sequence[bytes], Sequence[bytes]], None]:
        """Return what takes the cells of a column before and after they are masked."""
        looking = self._chosen.get(oid)

        def compare(name: str, before: Sequence[bytes], after: Sequence[bytes]) -> None:
            if looking is not None and name in looking.values:
                self._compare(f"{looking.name}.{name}", before, after)

        return compare

    def _compare(self, place: str, before: Sequence[bytes], after: Sequence[bytes]) -> None:
        told, rule = self.told, self._found.invented[place]
        if place in told.beyond:
            return
        long = rule.transformer in _LONG_TEXTS
        replaced = _replaced(before, words=rule.transformer in _OF_WORDS, long=long)
        if rule.transformer in FEW:
            made = [value for value in set(_folded(_joined(set(after)))) if _judged(value)]
            told.cells[place] += len(made)
        else:
            made = _forms(after if long else set(after), long=long)
            if self._tells(place, made):
                told.cells[place] += len(after)
        for side, values in ((told.before, replaced), (told.after, made)):
            side.setdefault(place, array("q")).extend(map(hash, values))
        self._held += len(replaced) + len(made)
        if self._held > MOST:
            told.beyond.add(place)
            self._held -= len(told.before.pop(place)) + len(told.after.pop(place))

    def _tells(self, place: str, made: Sequence[bytes]) -> bool:
        """Whether some of the invented values of a place can be judged; tried with the first ones, not with each chunk."""
        if self._tried[place] < TRIED and not self.told.cells[place]:
            self._tried[place] += len(made[:TRIED])
            return any(map(_judged, made[:TRIED]))
        return bool(self.told.cells[place])


def _joined(cells: Iterable[bytes]) -> bytes:
    """Return cells as they are meant, with a separator between them; NULL is empty."""
    text = _SEPARATOR.join(cells)
    return unescape((_SEPARATOR + text).replace(_NOTHING, _SEPARATOR)[1:]) if b"\\" in text else text


def _folded(text: bytes) -> list[bytes]:
    """Return joined cells so that all with the same canonical form are alike, and few others: letters beyond ASCII are left out."""
    if not text.isascii():
        for letter, low in _LOWERED:
            text = text.replace(letter, low)
        text = text.translate(None, _BEYOND)
    return list(map(bytes.strip, text.lower().split(_SEPARATOR)))


def _forms(cells: Collection[bytes], *, long: bool) -> list[bytes]:
    """Return the folded form of every cell, in any order; with ``long`` no more of it than :data:`_HEAD` bytes."""
    if not long:
        return _folded(_joined(cells))
    few = [form[:_HEAD] for form in _folded(_joined([cell for cell in cells if len(cell) <= _CUT]))]
    return few + _heads([cell for cell in cells if len(cell) > _CUT])


def _heads(cells: Sequence[bytes]) -> list[bytes]:
    """Return the first :data:`_HEAD` bytes of the folded form of cells longer than :data:`_CUT`: where wholes are alike, so are these."""
    forms = _folded(_joined([cell[:_CUT] for cell in cells])) if cells else []
    if len(forms) != len(cells):  # a cell holds the separator
        return [_folded(_joined([cell]))[0][:_HEAD] for cell in cells]
    # One that begins with blanks, escapes or letters beyond ASCII may need more of its bytes.
    return [form[:_HEAD] if len(form) >= _HEAD else _folded(_joined([cell]))[0][:_HEAD] for form, cell in zip(forms, cells, strict=True)]


def _replaced(cells: Iterable[bytes], *, words: bool, long: bool) -> list[bytes]:
    """Return the values of the source that tell something when they are met again, each once, in the forms of :func:`_forms`.

    Args:
        cells: before masking.
        words: leave out what words of the lists make up: the source may hold such values by itself.
        long: of long texts.
    """
    if long:
        heads = _heads([cell for cell in cells if len(cell) > _CUT])
        return heads + [form[:_HEAD] for form in _telling({cell for cell in cells if len(cell) <= _CUT}, words=words)]
    return _telling(set(cells), words=words)


def _telling(cells: Iterable[bytes], *, words: bool) -> list[bytes]:
    """Return the folded forms of those cells that tell something when they are met again."""
    text = _joined([cell for cell in cells if len(cell) >= SHORTEST])
    if text.isascii():
        values = [value for value in _folded(text) if len(value) >= SHORTEST]
        return _own(values) if words else values
    if words:
        everything = text.decode("utf-8", "replace").split(SEPARATOR)
        text = SEPARATOR.join([value for value in everything if len(value) > _LONG or judged("", value, _NO_PATHS)]).encode()
    return _folded(text) if text else []


def _own(values: Sequence[bytes]) -> list[bytes]:
    """Return those values of the source that are none that words of the lists make up; most show it by their first word."""
    first = [value.partition(b" ")[0] for value in values]
    own = {word for word in set(first) if len(word) > 1 and word.isalpha() and not listed(word.decode("ascii"))}
    return [value for value, word in zip(values, first, strict=True) if word in own or len(value) > _LONG or _judged(value)]


def _judged(value: bytes) -> bool:
    return judged("", value.decode("utf-8", "replace"), _NO_PATHS)


def _planted(raw: bytes) -> bool:
    return _PLANTED in raw.lower()


def _plain(chunk: bytes) -> bytes:
    """Return lines of text without escapes; a cell that is NULL holds nothing."""
    if b"\\" not in chunk:
        return chunk
    for before in (b"\t", b"\n", _SEPARATOR):  # never written so inside a value
        chunk = chunk.replace(before + NULL, before)
    return unescape(chunk)


@dataclass(frozen=True)
class Passed:
    """What the search in the copy can do without.

    Attributes:
        cleared: columns by full name of a leaf table.
        rows: of these tables.
        cells: judged values by place, whose comparison is done.
    """

    cleared: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)


def settle(
    source: Session, copy: Database, catalogue: Catalogue, chosen: Mapping[int, Looking], told: Told,
    parts: Mapping[int, Sequence[str]], found: Originals, workers: int,
) -> Passed:  # fmt: skip
    """Return which columns need no search in the copy, after the load.

    Args:
        source: where the search shows that it finds.
        copy: where its rows are counted.
        catalogue: of the source.
        chosen: from :func:`tables`.
        told: by all processes.
        parts: names of the parts of each leaf table.
        found: the source's identifiers, and what the map wants invented.
        workers: sessions side by side.
    """
    if not controlled(source, found):
        return Passed()
    with ThreadPoolExecutor(workers) as pool:  # the server counts while this process compares
        rows = pool.submit(_counted, copy, catalogue, [oid for oid in chosen if oid not in told.suspects], parts, workers)
        settled = {oid: frozenset(name for name in one.columns if _settled(one, name, told, found)) for oid, one in chosen.items()}
        proved = rows.result()
    cleared: dict[str, frozenset[str]] = {}
    cells: dict[str, int] = {}
    for oid, looking in chosen.items():
        leaves = [leaf.full_name for leaf in catalogue.leaves(oid)]
        if leaves and all(leaf in proved for leaf in leaves):
            cleared |= dict.fromkeys(leaves, settled[oid])
            cells |= {place: told.cells[place] for place in (f"{looking.name}.{name}" for name in settled[oid] & looking.values)}
    return Passed(cleared, proved, cells)


def _settled(looking: Looking, name: str, told: Told, found: Originals) -> bool:
    """Whether a column needs no comparison in the copy: nothing is invented in it, or no invented value is one of the source's."""
    place = f"{looking.name}.{name}"
    if place not in found.invented:
        return True
    if name not in looking.values or place in told.beyond:
        return False
    met = common(told.before.get(place, array("q")), told.after.get(place, array("q")))
    return not met or (found.invented[place].transformer in FEW and by_chance(met, told.cells[place]))


def controlled(source: Session, found: Originals) -> bool:
    """Whether identifiers of the source are suspected when their own column passes, in every form that is looked at."""
    forms = ("text",) if found.identifiers.odd else ("text", "binary")
    return not found.identifiers.count or all(
        any(_suspected(source, place, form, found) for place in found.places[:_PLACES]) for form in forms
    )


def _suspected(source: Session, place: tuple[Table, str], form: str, found: Originals) -> bool:
    table, column = place
    chosen = {table.oid: Looking(table.full_name, frozenset({column}), structured(table.by_name[column]), form == "binary", frozenset())}
    watch = Watch(found, chosen)
    some = SQL("SELECT {c} FROM {} WHERE length({c}::text) >= {} LIMIT {}").format(
        table.relation, Literal(SHORTEST), Literal(_ROWS), c=Identifier(column)
    )
    blocks = map(bytes, source.copy_out(SQL("COPY ({}) TO STDOUT (FORMAT {})").format(some, trusted(form))))
    if form == "text":
        watch.text(table.oid, b"".join(blocks))
    else:
        for _ in watch.binary(table.oid, blocks):
            pass
    return table.oid in watch.told.suspects


def _counted(
    copy: Database, catalogue: Catalogue, tables: Iterable[int], parts: Mapping[int, Sequence[str]], workers: int
) -> dict[str, int]:
    """Return the rows of each leaf table, by full name, all of whose rows are proved to have passed."""
    with copy.session() as session:
        written = writers(session)
    leaves = sorted((leaf for oid in tables for leaf in catalogue.leaves(oid)), key=lambda leaf: -leaf.pages)

    def count(share: Sequence[Table]) -> dict[str, int | None]:
        with copy.session() as session:
            return {leaf.full_name: proved(session, leaf, written, parts.get(leaf.oid, ())) for leaf in share}

    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(count, [leaves[number::workers] for number in range(workers)])
        return {name: rows for share in found for name, rows in share.items() if rows is not None}


def writers(copy: Session) -> dict[str, tuple[str, int]]:
    """Return the transaction that wrote each part, and its rows: the record is committed with them."""
    query = SQL("SELECT name, xmin::text, rows FROM {}.done WHERE rows IS NOT NULL").format(Identifier(streams.RECORDS))
    return {str(name): (str(writer), int(rows)) for name, writer, rows in copy.rows(query)}


def proved(copy: Session, table: Table, written: Mapping[str, tuple[str, int]], parts: Sequence[str]) -> int | None:
    """Return the rows of a table when each was written with one of its parts and none of theirs is gone; None otherwise.

    Args:
        copy: a session on it.
        table: a leaf.
        written: from :func:`writers`.
        parts: of this table.
    """
    if not parts or not written.keys() >= set(parts):
        return None
    expected = [rows for _, rows in map(written.__getitem__, parts)]
    theirs = SQL(", ").join(SQL("count(*) FILTER (WHERE xmin = {}::xid)").format(Literal(written[part][0])) for part in parts)
    total, *counts = copy.row(SQL("SELECT count(*), {} FROM {}").format(theirs, table.relation)) or (None,)
    return int(total) if counts == expected and total == sum(expected) else None
