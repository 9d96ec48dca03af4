"""Invented numbers that look real and reach nobody: phone, IBAN, tax and VAT numbers, cards, IP addresses, UUIDs, marks."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import cache

from obhut.masking import checkdigits
from obhut.masking.make.base import Cells, Invent, Seeds, pick, table_of

# Numbers that regulators keep for films and books. Germany: Bundesnetzagentur, Mitteilung 148/2021; Great Britain: Ofcom; France: ARCEP;
# North America: NANPA. Each entry: E.164 prefix, digits that are free, first free value, number of values.
_FICTION: dict[str, Sequence[tuple[str, int, int, int]]] = {
    "DE": tuple((prefix, 3, 0, 1000) for prefix in ("+493023125", "+496990009", "+494066969", "+492214710", "+498999998")),
    "GB": (("+442079460", 3, 0, 1000), ("+447700900", 3, 0, 1000), ("+441632960", 3, 0, 1000)),
    "FR": (("+3319900", 4, 0, 10_000), ("+3363998", 4, 0, 10_000)),
    "US": (("+1212555", 4, 100, 100), ("+1312555", 4, 100, 100), ("+1415555", 4, 100, 100), ("+1713555", 4, 100, 100)),
}  # fmt: skip
_CALLING = (("+49", "DE"), ("0049", "DE"), ("+44", "GB"), ("0044", "GB"), ("+33", "FR"), ("0033", "FR"), ("+1", "US"), ("001", "US"))
# Bank codes that no bank has, and how the account part goes on: digits after the fixed part.
_BANKS = {"DE": ("9", 17), "AT": ("99", 14), "CH": ("99", 15), "FR": ("99", 21), "NL": ("ZZZZ", 10), "GB": ("ZZZZ99", 12)}


def phone(country: str | None, home: str) -> Invent:
    """Return numbers of a range for fiction, in the country of the original's prefix unless one is given."""
    if country in _FICTION:
        only = _fiction(str(country))
        return lambda seeds, _: pick(only, seeds.words(28))
    tables = _ByPrefix(home if home in _FICTION else "DE")

    def invent(seeds: Seeds, cells: Cells) -> list[bytes]:
        chosen = map(tables.__getitem__, [cell[:5] for cell in cells])
        return [table[word] for table, word in zip(chosen, seeds.words(28), strict=True)]

    return invent


class _ByPrefix(dict[bytes, list[bytes]]):
    """Numbers of the country that the first signs of a number name, looked up once for each beginning."""

    def __init__(self, default: str) -> None:
        super().__init__()
        self._default = default

    def __missing__(self, key: bytes) -> list[bytes]:
        text = key.decode("ascii", "replace").replace(" ", "").replace("(", "")
        country = next((found for prefix, found in _CALLING if text.startswith(prefix)), self._default)
        if len(self) > 10_000:
            self.clear()
        self[key] = _fiction(country)
        return self[key]


@cache
def _fiction(country: str) -> list[bytes]:
    """Return all numbers of a country's ranges, mixed evenly over 65,536 entries."""
    ranges = _FICTION[country]
    numbers = [f"{prefix}{first + n:0{digits}d}".encode() for prefix, digits, first, count in ranges for n in range(count)]
    return table_of(numbers)


def iban(country: str | None, limit: int | None) -> Invent:
    """Return IBANs of the original's country where its form is known, else of Germany."""

    def invent(seeds: Seeds, cells: Cells) -> list[bytes]:
        pairs = zip(cells, seeds.longs(2), seeds.longs(3), strict=True)
        return [_iban(country or cell[:2].decode("ascii", "replace").upper(), one << 64 | two, limit) for cell, one, two in pairs]

    return invent


def _iban(country: str, number: int, limit: int | None) -> bytes:
    form = country if country in _BANKS else "DE"
    if limit is not None and len(_BANKS[form][0]) + _BANKS[form][1] + 4 > limit:
        form = "NL"  # the shortest one
    bank, digits = _BANKS[form]
    return checkdigits.iban(form, f"{bank}{number % 10**digits:0{digits}d}").encode()


def tax_number(seeds: Seeds, _: Cells) -> list[bytes]:
    """Return German tax identification numbers."""
    return [checkdigits.tax_number(long).encode() for long in seeds.longs(2)]


def vat_number(seeds: Seeds, _: Cells) -> list[bytes]:
    """Return German VAT numbers."""
    return [checkdigits.vat_number(long).encode() for long in seeds.longs(2)]


def card(seeds: Seeds, _: Cells) -> list[bytes]:
    """Return card numbers that begin with 9999 00, where no card scheme issues any."""
    bodies = (f"999900{long % 10**9:09d}" for long in seeds.longs(2))
    return [f"{body}{checkdigits.luhn(body)}".encode() for body in bodies]


_V4 = tuple(int(ipaddress.IPv4Address(first)) for first in ("192.0.2.0", "198.51.100.0", "203.0.113.0"))


_WIDEST = len("2001:db8::ffff:ffff:ffff")
_HOSTS = table_of([str(ipaddress.IPv4Address(base + host)).encode() for base in _V4 for host in range(1, 255)])


def ip(limit: int | None) -> Invent:
    """Return single addresses of the documentation ranges (RFC 5737, RFC 3849)."""
    narrow = limit is not None and limit < _WIDEST

    def invent(seeds: Seeds, cells: Cells) -> list[bytes]:
        if narrow or b":" not in b"".join(cells):
            return pick(_HOSTS, seeds.words(28))
        rows = zip(cells, seeds.words(28), seeds.longs(2), strict=True)
        return [_v6(long) if b":" in cell else _HOSTS[word] for cell, word, long in rows]

    return invent


def _v6(long: int) -> bytes:
    return b"2001:db8::%x:%x:%x" % (long >> 32 & 0xFFFF | 1, long >> 16 & 0xFFFF, long & 0xFFFF)


def uuid(seeds: Seeds, _: Cells) -> list[bytes]:
    """Return UUIDs of version 4: the marks of other versions hold times or machines."""
    pairs = zip(seeds.longs(6), seeds.longs(7), strict=True)
    return [_uuid(one, two) for one, two in pairs]


def _uuid(one: int, two: int) -> bytes:
    text = b"%016x%016x" % (one & 0xFFFFFFFFFFFF0FFF | 0x4000, two & 0x3FFFFFFFFFFFFFFF | 0x8000000000000000)
    return b"%b-%b-%b-%b-%b" % (text[:8], text[8:12], text[12:16], text[16:20], text[20:])


def digest(length: int, limit: int | None) -> Invent:
    """Return keyed digests in hexadecimal."""
    size = min(length, limit or length, 128)
    return lambda seeds, _: [digits[:size] for digits in seeds.hexes(8, -(-size // 16))]


def token(limit: int | None) -> Invent:
    """Return marks of 128 bits, or fewer where the column is narrow."""
    size = min(32, limit or 32)
    return lambda seeds, _: [mark[:size] for mark in seeds.marks(4, 2)]
