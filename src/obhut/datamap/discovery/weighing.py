"""Weighs what speaks for and against: name, type, comment, table, sampled values. The result keeps its reasons.

Each signal has a weight between 0 and 1, read as the chance that it alone is right; signals for the same or a narrower category add up as
independent ones do. What stays below :data:`PERSONAL` is not proposed, what stays below :data:`SURE` asks a person.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from obhut.datamap.discovery import names
from obhut.datamap.discovery.looking import TEXT, Look
from obhut.datamap.discovery.roles import Role, Standing
from obhut.datamap.discovery.values import Kind
from obhut.postgres.catalogue import Column, Table

PERSONAL: Final = 0.5
SURE: Final = 0.8
_QUIET: Final = 0.3  # below that a text column of people's tables is a question, not a proposal

NUMBERS: Final = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})
TIMES: Final = frozenset(
    {"date", "timestamp without time zone", "timestamp with time zone", "time without time zone", "time with time zone"}
)
# What a number or a moment can be, besides an address of something else.
_AS_NUMBER: Final = (
    "user.contact.phone_number", "user.contact.fax_number", "user.contact.address.postal_code", "user.demographic", "user.government_id",
    "user.financial", "user.location", "user.health_and_medical", "user.device.ip_address",
)  # fmt: skip
_AS_TIME: Final = ("user.demographic", "user.health_and_medical")
_BY_TYPE: Final = {
    "inet": "user.device.ip_address",
    "cidr": "user.device.ip_address",
    "macaddr": "user.device.device_id",
    "macaddr8": "user.device.device_id",
}
_PLACES: Final = frozenset({"point", "geometry", "geography", "polygon"})
# In a table about things these words are mostly about the thing; those never are.
_ABOUT_THINGS: Final = ("user.content", "user.location", "user.contact.url", "user.health", "user.demographic")
_NEVER_A_THING: Final = ("user.authorization", "user.contact.email", "user.contact.phone_number", "user.financial.bank_account")
# Tables of people are called so; a column of that name is about a service or a ledger.
_SERVICES: Final = frozenset({"account", "accounts", "profile", "profiles", "provider", "providers", "lead"})
_KIND_CATEGORY: Final = {
    Kind.EMAIL: "user.contact.email",
    Kind.IBAN: "user.financial.bank_account",
    Kind.PHONE: "user.contact.phone_number",
    Kind.TAX: "user.government_id.national_identification_number",
    Kind.CARD: "user.financial.credit_card",
    Kind.IP: "user.device.ip_address",
    Kind.STREET: "user.contact.address.street",
    Kind.SECRET: "user.authorization.password",
    Kind.AGENT: "user.device",
    Kind.FULL: "user.name",
    Kind.LAST: "user.name.last",
    Kind.FIRST: "user.name.first",
}
# Which share of the values is enough: a list of names knows a part of them only, check digits are right by chance in one of ten.
_ENOUGH: Final = {Kind.FULL: 0.15, Kind.LAST: 0.3, Kind.FIRST: 0.4, Kind.CARD: 0.8, Kind.TAX: 0.7}
_MOST: Final = 0.5
_FEW_VALUES: Final = 24


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that speaks for a category."""

    category: str
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a column most likely holds.

    Attributes:
        category: a Fideslang category, or None where nothing speaks for one.
        confidence: between 0 and 1: of the category, or of being harmless.
        reasons: why, strongest first; never a value.
        open: whether the column may be personal without anything that says how.
    """

    category: str | None
    confidence: float
    reasons: tuple[str, ...] = ()
    open: bool = False

    @property
    def personal(self) -> bool:
        """Whether the column is proposed as personal."""
        return self.category is not None

    @property
    def presumed(self) -> bool:
        """Whether it is taken for personal only because it stands among people and nothing says what it is."""
        return self.category is not None and self.open

    @property
    def sure(self) -> bool:
        """Whether no person needs to look at it again."""
        return not self.open and self.confidence >= SURE


def weigh(table: Table, column: Column, standing: Standing, look: Look | None = None, bare: str | None = None) -> Verdict:
    """Return the verdict on a column that is no key. Pure.

    Args:
        table: its table.
        column: the column.
        standing: what the table is.
        look: what its sampled values look like.
        bare: its name without what it shares with its neighbours.
    """
    if column.base_type == "boolean" or column.is_generated:
        return Verdict(None, 0.9, ("its type says yes or no" if column.base_type == "boolean" else "it is computed",))
    bare = bare or column.name
    signals = [*_type_signals(column, standing), *_name_signals(table, column, bare, standing), *_value_signals(standing, look)]
    signals = [signal for signal in signals if _fits(signal.category, column)]
    best = _best(signals)
    if best is not None and best.confidence >= PERSONAL:
        return best
    return _without(column, bare, standing, look, best)


def _best(signals: Iterable[Signal]) -> Verdict | None:
    """Return the category with the most weight; a broader one lends its weight to the narrower."""
    found: list[tuple[float, str, list[Signal]]] = []
    listed = sorted(signals, key=lambda signal: -signal.weight)
    for category in {signal.category for signal in listed}:
        own = [signal for signal in listed if category == signal.category or category.startswith(f"{signal.category}.")]
        doubt = 1.0
        for signal in own:
            doubt *= 1 - signal.weight
        found.append((round(1 - doubt, 4), category, own))
    if not found:
        return None
    confidence, category, own = max(found, key=lambda entry: (entry[0], entry[1]))
    return Verdict(category, min(0.99, confidence), tuple(dict.fromkeys(signal.reason for signal in own)))


def _fits(category: str, column: Column) -> bool:
    if column.base_type in NUMBERS:
        return category.startswith(_AS_NUMBER)
    if column.base_type in TIMES:
        return category.startswith(_AS_TIME)
    return not (column.base_type == "uuid" or column.base_type.endswith("range"))


def _type_signals(column: Column, standing: Standing) -> Iterable[Signal]:
    if category := _BY_TYPE.get(column.base_type.removesuffix("[]")):
        yield Signal(category, 0.95, f"its type is {column.base_type}")
    if column.base_type in _PLACES and standing.role is not Role.THING:
        yield Signal("user.location", 0.7, "its type is a place")
    if column.base_type == "tsvector" and standing.role is not Role.THING:
        yield Signal("user.content", 0.7, "an index of words keeps the words")


def _name_signals(table: Table, column: Column, bare: str, standing: Standing) -> Iterable[Signal]:
    if _region(bare, standing):
        yield Signal("user.contact.address", 0.75, "it stands beside a town")
    reading = names.read(bare)
    if (reading is None or not reading.strong) and (together := names.in_table(table.name, bare)) is not None:
        yield Signal(together.category, _strong(together, standing) - 0.1, f"table and name say {together.words}")
    if reading is not None and (reading.strong or not _code(column)) and not _workflow(bare, standing):
        weight = _strong(reading, standing) if reading.strong else _weak(reading, standing)
        category = _in_table(reading, standing)
        yield Signal(category, weight, f"its name says {reading.words}")
    elif reading is None and _clinical(column, bare, standing):
        yield Signal("user.health_and_medical", 0.65, f"{table.name} is about health")
    elif reading is None and column.base_type in TEXT and not names.harmless(bare):
        yield from _unread(column, bare, standing)
    for word in dict.fromkeys(names.words(column.comment or "")):
        said = names.read(word)
        if said is not None and said.strong:
            yield Signal(said.category, 0.6, f"its comment says {said.words}")


def _unread(column: Column, bare: str, standing: Standing) -> Iterable[Signal]:
    """What a text can be whose name is in no list: a person by what people are called, or something long that somebody wrote."""
    last = names.words(bare)[-1] if names.words(bare) else ""
    if last not in _SERVICES and {"person", "figure"} & names.about(last):
        yield Signal("user.name", 0.6 if standing.role is not Role.THING else 0.45, "its name is a word for people")
    elif column.base_type == "text" and standing.prose and standing.role is not Role.THING and not standing.catalogue:
        yield Signal("user.content", 0.55, "a long text in rows of people")


def _region(bare: str, standing: Standing) -> bool:
    """Whether ``state_code`` is a part of an address: it stands beside a town or a code of the same prefix."""
    found = names.parts(bare)
    return len(found) > 1 and found[-2:] in {("state", "code"), ("country", "code")} and found[:-2] in standing.towns


def _workflow(bare: str, standing: Standing) -> bool:
    """Whether ``state`` is how far something has come: it is a part of an address only beside a town or code of the same prefix."""
    found = names.parts(bare)
    return found[-1:] == ("state",) and found[:-1] not in standing.towns


def _code(column: Column) -> bool:
    """Whether there is hardly room for more than a code: ``character(3)``."""
    return column.base_type in TEXT and 0 < column.modifier - 4 <= 3


def _strong(reading: names.Reading, standing: Standing) -> float:
    weight = 0.95 if reading.whole else 0.75
    if standing.role is not Role.THING:
        return weight
    if reading.category.startswith(_ABOUT_THINGS):
        return 0.4
    return 0.4 if standing.catalogue and not reading.category.startswith(_NEVER_A_THING) else weight - 0.1


def _weak(reading: names.Reading, standing: Standing) -> float:
    if reading.owned and standing.role is not Role.PERSON and not standing.catalogue:
        return 0.55 if standing.role is Role.THING else 0.7
    if standing.catalogue or standing.role is Role.THING:
        return 0.2
    content = reading.category.startswith(("user.content", "user.contact.address"))
    if not reading.alone and not content:
        return 0.55 if standing.role is Role.PERSON else 0.45  # product_name, zip_file, country_code: somebody has to look
    if standing.role is Role.PERSON:
        return 0.85
    if reading.words == "name" and not (standing.named or standing.bank):
        return 0.45  # of the thing that belongs to somebody
    if reading.category.startswith("user.contact.address"):
        return (0.75 if reading.alone else 0.55) if standing.address else 0.35
    return 0.75 if reading.category.startswith(("user.content", "user.payment", "user.contact", "user.location", "user.social")) else 0.6


def _in_table(reading: names.Reading, standing: Standing) -> str:
    """Adjust a weak word to its table: a title of a person is a part of a name, that of a message its content."""
    if reading.strong:
        return reading.category
    if standing.bank and reading.words == "konto":
        return "user.financial.bank_account"
    if reading.words in {"title", "titel"}:
        return "user.name" if standing.role is Role.PERSON else "user.content"
    return reading.category


def _clinical(column: Column, bare: str, standing: Standing) -> bool:
    fitting = column.base_type in TEXT | {"numeric", "real", "double precision"} or column.category == "E"
    told = names.harmless(bare) or names.bookkeeping(bare) or names.words(bare)[-1:] == ("id",)
    return standing.health and fitting and not told


def _value_signals(standing: Standing, look: Look | None) -> Iterable[Signal]:
    if look is None or not look.filled:
        return
    for kind, category in _KIND_CATEGORY.items():
        share = look.share(kind)
        if share >= _ENOUGH.get(kind, _MOST):
            weight = 0.97 if kind not in {Kind.FIRST, Kind.LAST, Kind.CARD} else 0.8
            yield Signal(category, weight if look.filled >= 5 else 0.6, f"{share:.0%} of {look.filled} sampled values are {kind}")
    inside = look.share(Kind.INSIDE)
    if inside >= 0.001 and look.share(Kind.EMAIL) < _MOST:
        yield Signal("user.content", min(0.9, 0.6 + inside), f"{inside:.1%} of {look.filled} sampled values are {Kind.INSIDE}")
    elif look.share(Kind.PROSE) >= _MOST and standing.role is not Role.THING and not standing.catalogue:
        yield Signal("user.content", 0.6, f"{look.share(Kind.PROSE):.0%} of {look.filled} sampled values are {Kind.PROSE}")
    if look.filled >= 20 and look.years[0] >= 0.9 * look.filled and look.years[1] >= 20:
        yield Signal("user.demographic.date_of_birth", 0.6, f"{look.years[1]} different years, of which most could be of births")


def _without(column: Column, bare: str, standing: Standing, look: Look | None, best: Verdict | None) -> Verdict:
    """Decide about a column that nothing strong speaks for: harmless, or a question."""
    if column.base_type in NUMBERS | TIMES | {"uuid", "interval", "oid"} or column.category in {"E", "R"}:
        return Verdict(None, 0.8, (f"a {column.base_type} without a telling name",))
    if names.harmless(bare) or _workflow(bare, standing):
        return Verdict(None, 0.85, ("its name is about a thing",))
    if best is not None and best.confidence >= _QUIET:
        return Verdict(None, 0.5, best.reasons, open=True)
    if standing.role is Role.THING or standing.catalogue:
        return Verdict(None, 0.7, (f"{standing.role}",))
    if look is not None and look.filled >= 200 and look.distinct <= _FEW_VALUES and not look.hits:
        return Verdict(None, 0.7, (f"only {look.distinct} different values in {look.filled}",))
    if _code(column) or names.bookkeeping(bare):
        return Verdict(None, 0.7, ("too short for more than a code",))
    if standing.role is Role.PERSON and column.base_type in TEXT:
        return Verdict("user", PERSONAL, ("a text in rows that are people, and nothing says what it is",), open=True)
    return Verdict(None, 0.5, (f"{standing.role}, and nothing says what this is",), open=True)
