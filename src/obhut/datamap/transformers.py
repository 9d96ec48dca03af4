"""The catalogue of transformers: what each makes of a value, and what it may promise about it.

Only declarations: the data map names transformers, its check judges them by these properties, and :mod:`obhut.masking` carries them out.
Names are those on which Greenmask, PostgreSQL Anonymizer and pgstream agree, one word an idea.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Place(StrEnum):
    """Where a transformer runs: on the server inside the SELECT, so that the value never leaves it, or in this process with the key."""

    SERVER = "server"
    CLIENT = "client"


class Uniqueness(StrEnum):
    """What becomes of two different values.

    ``preserved``: they stay different (a permutation, or at least 64 bits of a keyed digest: one chance in 36 million that one pair
    among a million values meets). ``not_guaranteed``: they may meet. ``lossy``: they are meant to.
    """

    PRESERVED = "preserved"
    NOT_GUARANTEED = "not_guaranteed"
    LOSSY = "lossy"


class Effect(StrEnum):
    """What of the original is left; the verdict on a copy is reckoned from these."""

    DESTROYS = "destroys"  # nothing: the result is no function of the value
    INVENTS = "invents"  # a made-up value; per value or per person the same one, as long as the run's key exists
    GENERALISES = "generalises"  # a class that several people share
    PERTURBS = "perturbs"  # the neighbourhood of the value, or another person's value
    PSEUDONYMISES = "pseudonymises"  # a mark that stands for the value
    KEEPS = "keeps"  # all


class Per(StrEnum):
    """What two cells must share to get the same result: the value, the person, or nothing but the row."""

    VALUE = "value"
    PERSON = "person"
    ROW = "row"


class Family(StrEnum):
    """Kinds of types that transformers accept."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    DATE = "date"  # date and both timestamps
    BOOLEAN = "boolean"
    ENUM = "enum"
    UUID = "uuid"
    ADDRESS = "network address"
    JSON = "json"
    BYTES = "bytea"
    WORDS = "tsvector"
    OBJECT = "large object"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Option:
    """A parameter; ``kind`` is a JSON Schema type. ``choices`` limits words, ``minimum`` numbers."""

    name: str
    kind: str
    description: str
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None


@dataclass(frozen=True, slots=True)
class Transformer:
    """One transformer.

    Attributes:
        name: the word of the data map.
        place: where it runs.
        uniqueness: what becomes of two different values.
        effect: what of the original is left.
        families: types it accepts; elements of arrays are judged one by one.
        summary: one line for the reference.
        per: what decides the result unless the map says otherwise; None when that cannot be chosen.
        options: parameters; the first one may be written short, ``{generalise: year}``.
        required: whether the first option must be given.
        width: the shortest result in characters, 0 when it fits everywhere.
        fills: whether it can invent a value for a NULL (``nulls: fill``).
    """

    name: str
    place: Place
    uniqueness: Uniqueness
    effect: Effect
    families: frozenset[Family]
    summary: str
    per: Per | None = None
    options: tuple[Option, ...] = ()
    required: bool = False
    width: int = 0
    fills: bool = False

    @property
    def needs_key(self) -> bool:
        """Whether the result depends on the run's key."""
        return self.place is Place.CLIENT and self.per is not None and self.per is not Per.ROW

    @property
    def arrays(self) -> bool:
        """Whether it takes arrays: as a whole, or element by element."""
        return self.place is Place.CLIENT or self.families == _ANY or self.name == "empty"

    def option(self, name: str) -> Option | None:
        """Return an option, common ones included."""
        return next((option for option in (*self.options, *self.common) if option.name == name), None)

    @property
    def common(self) -> tuple[Option, ...]:
        """Options that every transformer of its kind takes."""
        found: list[Option] = []
        if self.per in {Per.VALUE, Per.PERSON}:
            found += [_IDENTITY, _PER]
        if self.fills:
            found.append(_NULLS)
        return tuple(found)


_IDENTITY = Option("identity", "string", "name of the identity domain: columns of one domain give equal values equal results")
_PER = Option("per", "string", "value, person or row: what decides the result", choices=tuple(per.value for per in Per))
_NULLS = Option("nulls", "string", "fill: a NULL gets a value too, where being NULL tells something", "keep", ("keep", "fill"))
_LOCALE = Option("locale", "string", "language of the word list: de or en; default: that of the run")

_ANY = frozenset(Family)
_TEXT = frozenset({Family.TEXT})
_MOMENTS = frozenset({Family.DATE})
_NUMBERS = frozenset({Family.INTEGER, Family.NUMBER})
_ADDRESSES = frozenset({Family.TEXT, Family.ADDRESS})
_IDENTIFIERS = frozenset({Family.TEXT, Family.UUID})
_SCALARS = _ANY - {Family.JSON, Family.BYTES, Family.WORDS, Family.OBJECT}
_SERVER, _CLIENT = Place.SERVER, Place.CLIENT
_SAME, _MAYBE, _LOST = Uniqueness.PRESERVED, Uniqueness.NOT_GUARANTEED, Uniqueness.LOSSY


def _fake(name: str, summary: str, *options: Option, per: Per = Per.PERSON, width: int = 1) -> Transformer:
    """Return a transformer that takes words from a list."""
    return Transformer(name, _CLIENT, _MAYBE, Effect.INVENTS, _TEXT, summary, per, (*options, _LOCALE), width=width, fills=True)


_LIST = (
    Transformer("keep", _SERVER, _SAME, Effect.KEEPS, _ANY, "unchanged, for the reason given", options=(
        Option("reason", "string", "why the value tells nothing about the person"),), required=True),
    Transformer("null", _SERVER, _LOST, Effect.DESTROYS, _ANY, "NULL"),
    Transformer("empty", _SERVER, _LOST, Effect.DESTROYS, frozenset({Family.TEXT, Family.JSON, Family.BYTES, Family.WORDS}),
                "an empty text, object or array"),
    Transformer("default", _SERVER, _LOST, Effect.DESTROYS, _ANY, "the column's default"),
    Transformer("constant", _SERVER, _LOST, Effect.DESTROYS, _ANY, "the same value for everybody", options=(
        Option("value", "any", "the value"),), required=True),
    Transformer("redact", _SERVER, _LOST, Effect.DESTROYS, _TEXT, "a mark such as [redacted] where there was a value", options=(
        Option("mark", "string", "the text", "[redacted]"),)),
    Transformer("template", _SERVER, _SAME, Effect.DESTROYS, _TEXT, "text with columns of the same row, never personal or re-issued ones",
                options=(Option("text", "string", "such as erased-{id}"),), required=True),
    Transformer("generalise", _SERVER, _LOST, Effect.GENERALISES, _MOMENTS, "a date or time cut down to a unit", options=(
        Option("unit", "string", "the unit", None, ("hour", "day", "month", "year", "decade")),), required=True),
    Transformer("bucket", _SERVER, _LOST, Effect.GENERALISES, _NUMBERS, "the lower bound of the number's class", options=(
        Option("width", "number", "width of a class", None, minimum=0.000001),), required=True),
    Transformer("age_band", _SERVER, _LOST, Effect.GENERALISES, _MOMENTS, "the first day of the years of birth that share a band",
                options=(Option("years", "integer", "width of a band", 5, minimum=2),)),
    Transformer("truncate", _SERVER, _LOST, Effect.GENERALISES, _TEXT, "the first characters, of a postcode, say", options=(
        Option("length", "integer", "characters that stay", None, minimum=1),
        Option("pad", "string", "fills up the rest", "")), required=True),
    Transformer("partial", _SERVER, _LOST, Effect.PSEUDONYMISES, _TEXT, "a few characters at the ends, the rest is stars", options=(
        Option("start", "integer", "characters that stay at the start", 1, minimum=0),
        Option("end", "integer", "characters that stay at the end", 0, minimum=0))),
    Transformer("hash", _CLIENT, _SAME, Effect.PSEUDONYMISES, _TEXT, "a keyed digest in hexadecimal", Per.VALUE, (
        Option("length", "integer", "characters", 32, minimum=16),), width=16),
    _fake("name", "first and last name", width=3),
    _fake("first_name", "a first name"),
    _fake("last_name", "a last name"),
    _fake("street", "street and number", width=4),
    _fake("city", "a town; with a postcode per person it belongs to it"),
    _fake("postcode", "a postcode that exists in the country's form", width=4),
    _fake("address", "street, postcode and town in one line", width=12),
    _fake("company", "a company", per=Per.VALUE, width=3),
    Transformer("email", _CLIENT, _SAME, Effect.INVENTS, _TEXT, "an address in a reserved domain", Per.VALUE, (
        Option("domain", "string", "a domain reserved by RFC 2606: example.org, anything.test, .example, .invalid", "example.org"),),
        width=16, fills=True),
    Transformer("phone", _CLIENT, _MAYBE, Effect.INVENTS, _TEXT, "a number of the country's range for fiction", Per.VALUE, (
        Option("country", "string", "whose numbers; default: by the number's own prefix", None, ("DE", "FR", "GB", "US")),),
        width=11, fills=True),
    Transformer("username", _CLIENT, _SAME, Effect.INVENTS, _TEXT, "a user name", Per.VALUE, (_LOCALE,), width=16, fills=True),
    Transformer("iban", _CLIENT, _MAYBE, Effect.INVENTS, _TEXT, "an IBAN with valid check digits and a bank code that no bank has",
                Per.VALUE, (
                    Option("country", "string", "whose form; default: that of the value", None, ("DE", "AT", "CH", "FR", "NL", "GB")),),
                width=18, fills=True),
    Transformer("tax_number", _CLIENT, _MAYBE, Effect.INVENTS, _TEXT, "a German tax identification number with a valid check digit",
                Per.VALUE, width=11, fills=True),
    Transformer("vat_number", _CLIENT, _MAYBE, Effect.INVENTS, _TEXT, "a German VAT number with a valid check digit", Per.VALUE,
                width=11, fills=True),
    Transformer("card", _CLIENT, _MAYBE, Effect.INVENTS, _TEXT, "a card number with a valid check digit from a range no issuer has",
                Per.VALUE, width=16, fills=True),
    Transformer("ip", _CLIENT, _MAYBE, Effect.INVENTS, _ADDRESSES, "an address of the documentation ranges", Per.VALUE, width=15,
                fills=True),
    Transformer("user_agent", _CLIENT, _MAYBE, Effect.INVENTS, _TEXT, "one of a few common browsers", Per.VALUE, width=11, fills=True),
    Transformer("url", _CLIENT, _SAME, Effect.INVENTS, _TEXT, "an address in a reserved domain", Per.VALUE, (
        Option("domain", "string", "a domain reserved by RFC 2606", "example.org"),), width=16, fills=True),
    Transformer("uuid", _CLIENT, _SAME, Effect.INVENTS, _IDENTIFIERS, "a random-looking UUID (version 4)", Per.VALUE, width=36,
                fills=True),
    Transformer("rekey", _CLIENT, _SAME, Effect.INVENTS, frozenset({Family.INTEGER, Family.UUID}),
                "a number of the same range by a keyed permutation; foreign keys follow", Per.VALUE),
    Transformer("scramble", _CLIENT, _SAME, Effect.PSEUDONYMISES, _TEXT,
                "digits become digits and letters letters, by a keyed permutation of all texts of that shape", Per.VALUE),
    Transformer("token", _CLIENT, _SAME, Effect.DESTROYS, _IDENTIFIERS, "random characters, no function of the value; for secrets",
                Per.ROW, width=16, fills=True),
    Transformer("noise", _CLIENT, _MAYBE, Effect.PERTURBS, _NUMBERS | _MOMENTS, "the value plus or minus a random part of it", Per.ROW, (
        Option("ratio", "number", "largest part of a number", 0.1, minimum=0.0001),
        Option("days", "integer", "largest distance of a date", 30, minimum=1))),
    Transformer("shift", _CLIENT, _MAYBE, Effect.PERTURBS, _MOMENTS, "all dates of one person moved by the same number of days",
                Per.PERSON, (
        Option("days", "integer", "largest distance", 180, minimum=2),)),
    Transformer("shuffle", _CLIENT, _SAME, Effect.PERTURBS, _SCALARS, "the values of some thousand neighbouring rows, dealt out anew",
                Per.ROW),
    Transformer("sample", _CLIENT, _LOST, Effect.PERTURBS, _SCALARS,
                "drawn from the column's distribution: classes that enough rows share, or between quantiles", Per.ROW, (
                    Option("k", "integer", "rows that a class must have", 5, minimum=2),), fills=True),
    Transformer("choice", _CLIENT, _LOST, Effect.DESTROYS, _SCALARS, "one of the values given", Per.ROW, (
        Option("of", "array", "the values"),), required=True, fills=True),
    Transformer("text", _CLIENT, _MAYBE, Effect.INVENTS, _TEXT, "text of like length, in the language of the word list", Per.ROW,
                (_LOCALE,), fills=True),
    Transformer("json", _CLIENT, _MAYBE, Effect.INVENTS, frozenset({Family.JSON}),
                "each path by its own transformer; every other text leaf is replaced", Per.VALUE, (
                    Option("paths", "object", 'path to transformer: {"$.email": email, "$.guests[*].name": name}'),
                    Option("numbers", "string", "what becomes of numbers and booleans that no path names", "drop", ("drop", "keep")),
                    Option("keys", "string", "what becomes of names of members that no path names", "keep", ("keep", "drop")))),
    Transformer("bytes", _CLIENT, _MAYBE, Effect.DESTROYS, frozenset({Family.BYTES}), "random bytes of like length", Per.ROW, (
        Option("limit", "integer", "bytes at the most", 4096, minimum=1),)),
    Transformer("tsvector", _CLIENT, _LOST, Effect.INVENTS, frozenset({Family.WORDS}), "made anew from the masked columns named", Per.ROW, (
        Option("columns", "array", "columns of the same row"),), required=True),
)  # fmt: skip

CATALOGUE: Final[Mapping[str, Transformer]] = {transformer.name: transformer for transformer in _LIST}


def problem(transformer: Transformer, options: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the options as written, in words for the map's author."""
    first = transformer.options[0] if transformer.options else None
    if transformer.required and first and options.get(first.name) is None:
        return f"{transformer.name} needs {first.name}: {{{transformer.name}: …}}"
    for name, value in options.items():
        option = transformer.option(name)
        if option is None:
            known = ", ".join(option.name for option in (*transformer.options, *transformer.common)) or "none"
            return f"{transformer.name} has no option {name} (it takes: {known})"
        if fault := _fault(option, value):
            return f"{name} of {transformer.name} {fault}"
    return None


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "array": (list, tuple),
    "object": (dict,),
}


def _fault(option: Option, value: Any) -> str | None:
    kinds = _KINDS.get(option.kind)
    if kinds and (not isinstance(value, kinds) or isinstance(value, bool)):
        return f"must be of type {option.kind}"
    if option.choices and value not in option.choices:
        return f"is one of: {', '.join(option.choices)}"
    if option.minimum is not None and value < option.minimum:
        return f"is at least {option.minimum:g}"
    if option.kind == "array" and not value:
        return "needs at least one entry"
    return None
