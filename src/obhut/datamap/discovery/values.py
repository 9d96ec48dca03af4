"""Judges one value: what kinds of personal data it can be. Libraries decide where a standard exists; nothing is kept.

E-mail by shape, telephone numbers by the number plans (phonenumbers), IBANs, cards and tax numbers by their check digits (python-stdnum),
addresses of machines by the standard library, names by the shipped lists.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Final

import phonenumbers
from stdnum import iban, luhn
from stdnum.at import vnr
from stdnum.de import idnr, stnr
from stdnum.eu import vat
from stdnum.us import ssn

from obhut.datamap.discovery.lexicon import fold

REGIONS: Final = ("DE", "AT", "CH", "US", "GB")  # number plans tried for a number without country code


class Kind(StrEnum):
    """What a value can be."""

    EMAIL = "e-mail addresses"
    PHONE = "telephone numbers"
    IBAN = "IBANs with right check digits"
    CARD = "card numbers with a right check digit"
    TAX = "tax or insurance numbers with right check digits"
    IP = "IP addresses"
    STREET = "streets with a number"
    SECRET = "hashes of passwords or signed tokens"  # noqa: S105 - the name of a kind
    AGENT = "user agents of browsers"
    FIRST = "first names"
    LAST = "last names"
    FULL = "first and last names"
    PROSE = "sentences"
    INSIDE = "text with an address, a number or a name inside"


_EMAIL: Final = re.compile(r"[^@\s<>\"',;:()]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}")
_PHONE: Final = re.compile(r"(?:\+|00|0|\()[\d ()/.\-]{5,22}\d|\d{3}[-. ]\d{3}[-. ]\d{4}")
_IBAN: Final = re.compile(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?", re.IGNORECASE)
_CARD: Final = re.compile(r"[3-6]\d{3}(?:[ -]?\d){9,15}")
_STREET: Final = re.compile(
    r"[^\W\d][\w .'-]{1,}?(?:str\.|stra(?:ß|ss)e|weg|platz|allee|gasse|ring|ufer|damm)\s?\d+\s?[a-z]?"
    r"|\d{1,5}[a-z]? [^\W\d][\w .'-]*? "
    r"(?:street|st\.?|road|rd\.?|avenue|ave\.?|lane|drive|dr\.?|boulevard|blvd\.?|way|court|parkway|manor|loop|place)",
    re.IGNORECASE,
)
_SECRET: Final = re.compile(
    r"\$2[abxy]\$.{56}|\$argon2\w*\$.+|pbkdf2[_:].+|\$[156]\$.{20,}|scrypt:.+|\{S?SHA\d*\}.+|ey[\w-]{10,}\.[\w-]+\.[\w-]*"
)
_AGENT: Final = re.compile(r"(?:Mozilla|Opera|Dalvik|okhttp|curl)/\d.*")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*\.?")
_NAME_LENGTH: Final = 60
_PARTICLES: Final = frozenset({"von", "van", "de", "der", "den", "zu", "da", "di", "dos", "mc", "o"})
_PROSE_WORDS: Final = 5


def kinds(value: str) -> set[Kind]:
    """Return what a value can be; nothing for most values."""
    text = value.strip()
    return {kind for kind, fits in _WHOLE.items() if fits(text)} or _longer(text)


def _longer(text: str) -> set[Kind]:
    """Judge what is no single datum: sentences, and what may stand inside them."""
    tokens = text.split()
    found = {Kind.PROSE} if len(tokens) >= _PROSE_WORDS else set[Kind]()
    if len(tokens) > 1 and (_EMAIL.search(text) or any(_is_iban(match[0]) for match in _IBAN.finditer(text)) or _spoken_phone(text)):
        found.add(Kind.INSIDE)
    if len(tokens) >= _PROSE_WORDS and any(_is_full(" ".join(pair)) for pair in _capitalised(tokens)):
        found.add(Kind.INSIDE)
    return found


def _capitalised(tokens: list[str]) -> Iterator[tuple[str, str]]:
    stripped = [token.strip(".,;:!?()\"'") for token in tokens]
    for left, right in pairwise(stripped):
        if left[:1].isupper() and right[:1].isupper():
            yield left, right


def _spoken_phone(text: str) -> bool:
    return any(len(match[0]) >= 9 and _is_phone(match[0]) for match in _PHONE.finditer(text))


def _is_phone(text: str) -> bool:
    if not _PHONE.fullmatch(text):
        return False
    number = "+" + text[2:] if text.startswith("00") else text
    for region in (None,) if number.startswith("+") else REGIONS:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def _is_iban(text: str) -> bool:
    return bool(_IBAN.fullmatch(text)) and bool(iban.is_valid(text, check_country=False))


def _is_card(text: str) -> bool:
    return bool(_CARD.fullmatch(text)) and bool(luhn.is_valid(re.sub(r"[ -]", "", text)))


def _is_tax(text: str) -> bool:
    digits = re.sub(r"[ /]", "", text)
    if re.fullmatch(r"\d{11}", digits) and idnr.is_valid(digits):
        return True
    if re.fullmatch(r"\d{2,3}/\d{3,4}/\d{4,5}", text) and stnr.is_valid(text):
        return True
    if re.fullmatch(r"\d{4} ?\d{6}", text) and vnr.is_valid(digits):
        return True
    if re.fullmatch(r"\d{3}-\d{2}-\d{4}", text) and ssn.is_valid(text):
        return True
    return bool(re.fullmatch(r"[A-Z]{2}[A-Z0-9]{8,12}", digits)) and bool(vat.is_valid(digits))


def _is_ip(text: str) -> bool:
    if text.count(".") != 3 and text.count(":") < 2:
        return False
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


@cache
def _names() -> tuple[frozenset[str], frozenset[str]]:
    listing = resources.files("obhut.datamap.discovery").joinpath("words/persons.txt").read_text(encoding="utf-8")
    _, first, last = re.split(r"\[first\]|\[last\]", listing)
    return frozenset(first.split()), frozenset(last.split())


def _tokens(text: str) -> list[str]:
    """Return the words of what could be a name, or nothing."""
    if len(text) > _NAME_LENGTH or not text[:1].isalpha():
        return []
    words = text.replace(",", " ").split()
    return [fold(word.rstrip(".")) for word in words] if len(words) <= 4 and all(_WORD.fullmatch(word) for word in words) else []


def is_first(text: str) -> bool:
    """Whether the text is a first name of the list, or several."""
    first, _ = _names()
    return bool(words := _tokens(text)) and all(word in first for word in words)


def _is_last(text: str) -> bool:
    _, last = _names()
    return bool(words := _tokens(text)) and words[-1] in last and set(words[:-1]) <= _PARTICLES


def _is_full(text: str) -> bool:
    first, last = _names()
    words = _tokens(text)
    return len(words) >= 2 and ((words[0] in first and words[-1] in last) or (words[0] in last and words[-1] in first))


_WHOLE: Final[dict[Kind, Callable[[str], object]]] = {
    Kind.EMAIL: _EMAIL.fullmatch,
    Kind.PHONE: _is_phone,
    Kind.IBAN: _is_iban,
    Kind.CARD: _is_card,
    Kind.TAX: _is_tax,
    Kind.IP: _is_ip,
    Kind.STREET: _STREET.fullmatch,
    Kind.SECRET: _SECRET.fullmatch,
    Kind.AGENT: _AGENT.fullmatch,
    Kind.FULL: _is_full,
    Kind.FIRST: is_first,
    Kind.LAST: _is_last,
}
