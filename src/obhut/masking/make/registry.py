"""From a column's plan to the maker that masks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from obhut.datamap.graph import parse_path
from obhut.datamap.kinds import Kind
from obhut.datamap.models import Mask
from obhut.datamap.transformers import CATALOGUE, Family, Per, Place
from obhut.masking import canonical
from obhut.masking.facts import Facts
from obhut.masking.identity import KeyDomain
from obhut.masking.keys import RunKey
from obhut.masking.make import documents, keys, moves, numbers, people, text
from obhut.masking.make.base import Canonical, Invent, Maker, by_person, by_row, by_value, keyed_seeds
from obhut.masking.model import ColumnPlan, TablePlan
from obhut.masking.wordlists import Words, words


@dataclass(frozen=True, slots=True)
class Context:
    """What a maker of one column is made from."""

    table: TablePlan
    column: ColumnPlan
    key: RunKey
    facts: Facts
    locale: str

    @property
    def domains(self) -> Mapping[str, KeyDomain]:
        """Domains of the keys that the table's columns follow, by name."""
        return {domain.name: domain for domain in self.table.domains}

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the transformer."""
        return self.column.options

    @property
    def words(self) -> Words:
        """The word list of the column's locale."""
        return words(str(self.options.get("locale") or self.locale))

    @property
    def indexes(self) -> dict[str, int]:
        """Place in the line by column name."""
        return {column.name: index for index, column in enumerate(self.table.columns)}


def maker(context: Context) -> Maker:
    """Return the maker of a column that the client masks.

    Raises:
        MaskingFactsError: a range or distribution was not read.
        MaskingKeyError: the run's key was destroyed.
        WordListError: there is no word list for the locale.
    """
    column = context.column
    wrap: Callable[[Maker], Maker] = documents.by_element if column.kind.array else _as_it_is
    if column.transformer == "rekey" and column.key:
        return keys.rekey(column.key, context.indexes, context.domains, context.key, context.facts, wrap, again=not column.unique)
    if column.transformer in _WHOLE:
        return _WHOLE[column.transformer](context)
    return wrap(_scalar(context))


def _as_it_is(inner: Maker) -> Maker:
    return inner


def _scalar(context: Context) -> Maker:
    column = context.column
    if column.transformer == "scramble":
        return keys.scramble(context.key.sub(f"scramble.{column.identity}"))
    invent = _INVENT[column.transformer](context)
    fill = context.options.get("nulls") == "fill" and not column.kind.array
    if column.per is Per.ROW:
        return by_row(invent, fill=fill)
    if column.per is Per.PERSON and column.person is not None and not column.kind.array:
        index = context.indexes[column.person.column]
        return by_person(invent, index, context.key.sub(column.identity), column.identity, fill=fill)
    secret = context.key.sub(f"value.{column.identity}")
    return by_value(invent, secret, _canonical(context), cached=not column.unique, fill=fill)


def _canonical(context: Context) -> Canonical:
    name = context.column.transformer
    if name == "phone":
        return canonical.phone(str(context.options.get("country") or context.words.country))
    return _CANONICAL.get(name, canonical.text)


_CANONICAL: Mapping[str, Canonical] = {
    "iban": canonical.compact,
    "tax_number": canonical.compact,
    "vat_number": canonical.compact,
    "card": canonical.compact,
    "uuid": canonical.compact,
    "ip": canonical.network,
    "hash": canonical.text,
}


def _lookup(table: str, place: int) -> Callable[[Context], Invent]:
    return lambda context: people.cut(people.lookup(context.words, table, place), context.column.limit)


def _cut(make: Callable[[Words], Invent]) -> Callable[[Context], Invent]:
    return lambda context: people.cut(make(context.words), context.column.limit)


def _domain(context: Context) -> str:
    return str(context.options.get("domain") or "example.org")


def _spelling(context: Context) -> people.Spelling | None:
    return keyed_seeds(context.key.sub(f"spelling.{context.column.identity}")) if context.column.unique else None


def _country(context: Context) -> str | None:
    found = context.options.get("country")
    return None if found is None else str(found)


_INVENT: Mapping[str, Callable[[Context], Invent]] = {
    "name": _cut(people.name),
    "first_name": _lookup("first_names", 0),
    "last_name": _lookup("last_names", 1),
    "street": _cut(people.street),
    "city": _lookup("cities", 4),
    "postcode": _lookup("postcodes", 4),
    "address": _cut(people.address),
    "company": _cut(people.company),
    "email": lambda c: people.email(c.words, _domain(c), c.column.limit, _spelling(c)),
    "username": lambda c: people.username(c.words, c.column.limit, _spelling(c)),
    "url": lambda c: people.url(_domain(c)),
    "user_agent": lambda c: people.cut(people.user_agent, c.column.limit),
    "phone": lambda c: people.cut(numbers.phone(_country(c), c.words.country), c.column.limit),
    "iban": lambda c: numbers.iban(_country(c), c.column.limit),
    "tax_number": lambda _: numbers.tax_number,
    "vat_number": lambda _: numbers.vat_number,
    "card": lambda _: numbers.card,
    "ip": lambda c: numbers.ip(c.column.limit),
    "uuid": lambda _: numbers.uuid,
    "hash": lambda c: numbers.digest(int(c.options.get("length", 32)), c.column.limit),
    "token": lambda c: numbers.uuid if c.column.kind.family is Family.UUID else numbers.token(c.column.limit),
    "noise": lambda c: moves.noise(c.column.kind, float(c.options.get("ratio", 0.1)), int(c.options.get("days", 30))),
    "shift": lambda c: moves.shift(int(c.options.get("days", 180))),
    "choice": lambda c: moves.choice(c.options["of"]),
    "text": lambda c: text.filler(c.words, c.column.limit),
    "bytes": lambda c: text.noise_bytes(int(c.options.get("limit", 4096))),
}


def _sample(context: Context) -> Maker:
    place = f"{context.table.name}.{context.column.name}"
    fill = context.options.get("nulls") == "fill"
    return moves.sample(place, context.column.kind, context.facts.pool(place), not_null=context.column.not_null, fill=fill)


def _tsvector(context: Context) -> Maker:
    return text.vector([context.indexes[name] for name in context.options.get("columns", ())])


def _json(context: Context) -> Maker:
    options = context.options
    paths: dict[documents.Path, documents.Leaf | None] = {
        parse_path(path): _json_leaf(context, Mask.model_validate(written)) for path, written in (options.get("paths") or {}).items()
    }
    for found in context.column.keys_at:
        paths[found.path] = documents.through(keys.domain_maker(context.domains[found.domain], context.key, context.facts))
    keeps = options.get("rest") == "keep"
    rest = None if keeps else documents.through(by_row(text.filler(context.words, None)))
    inner = documents.documents(paths, rest, numbers=options.get("numbers") == "keep", names=options.get("keys", "keep") == "keep")
    return documents.by_element(inner) if context.column.kind.array else inner


def _json_leaf(context: Context, mask: Mask) -> documents.Leaf | None:
    if mask.transformer == "keep":
        return None
    if CATALOGUE[mask.transformer].place is Place.SERVER:
        return documents.always(_FIXED[mask.transformer](mask.options))
    # Identity domains reach into documents: the address in a profile becomes the one in its column.
    kind = Kind(_leaf_family(mask.transformer), "numeric")
    transformer = CATALOGUE[mask.transformer]
    per = Per.VALUE if transformer.per is Per.PERSON else transformer.per
    identity = str(mask.options.get("identity") or mask.transformer)
    inner = ColumnPlan(
        context.column.name,
        kind,
        not_null=False,
        transformer=mask.transformer,
        options=mask.options,
        per=per,
        identity=identity,
        limit=context.table.limits.get(identity),
    )
    return documents.through(_scalar(Context(context.table, inner, context.key, context.facts, context.locale)))


def _leaf_family(transformer: str) -> Family:
    families = CATALOGUE[transformer].families
    return Family.TEXT if Family.TEXT in families else Family.DATE if transformer == "shift" else Family.NUMBER


_FIXED: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "null": lambda _: None,
    "empty": lambda _: "",
    "constant": lambda options: options.get("value"),
    "redact": lambda options: options.get("mark", "[redacted]"),
}
_WHOLE: Mapping[str, Callable[[Context], Maker]] = {
    "json": _json,
    "sample": _sample,
    "shuffle": lambda _: moves.shuffle,
    "tsvector": _tsvector,
}
