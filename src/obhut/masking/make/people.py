"""Invented people: names, addresses, companies, e-mail addresses, user names. Words by index, in bulk; nothing of the original."""

from __future__ import annotations

from collections.abc import Callable

from obhut.masking import canonical
from obhut.masking.make.base import Cells, Invent, Seeds, pick
from obhut.masking.wordlists import Words

Spelling = Callable[[Cells], Seeds]

# User agents and how often; made up of versions that are old enough to be nobody's.
_AGENTS = tuple(
    f"Mozilla/5.0 ({system}) {engine}".encode()
    for system in ("Windows NT 10.0; Win64; x64", "X11; Linux x86_64", "Macintosh; Intel Mac OS X 10_15_7")
    for engine in (
        "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
        "Gecko/20100101 Firefox/121.0",
        "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15",
    )
)


def lookup(words: Words, table: str, place: int) -> Invent:
    """Return one word of a list."""
    chosen = words.tables[table]
    return lambda seeds, _: pick(chosen, seeds.words(place))


def name(words: Words) -> Invent:
    """Return first and last name."""
    first, last = words.tables["first_names"], words.tables["last_names"]
    return lambda seeds, _: list(
        map(b"%b %b".__mod__, zip(pick(first, seeds.words(0)), pick(last, seeds.words(1)), strict=True))  # one C call a name
    )


def street(words: Words) -> Invent:
    """Return a street with a number of up to three digits, as the country writes it."""
    table = words.tables["houses"]
    return lambda seeds, _: pick(table, seeds.words(2))


def address(words: Words) -> Invent:
    """Return street, postcode and town in one line."""
    streets, postcodes, cities = street(words), words.tables["postcodes"], words.tables["cities"]
    form = words.place.replace("{postcode}", "%(p)b").replace("{city}", "%(c)b").encode()

    def invent(seeds: Seeds, cells: Cells) -> list[bytes]:
        places = seeds.words(4)
        triples = zip(streets(seeds, cells), pick(postcodes, places), pick(cities, places), strict=True)
        return [b"%b, %b" % (line, form % {b"p": code, b"c": town}) for line, code, town in triples]

    return invent


def company(words: Words) -> Invent:
    """Return a company with a legal form."""
    names, branches, forms = words.tables["last_names"], words.tables["company_words"], words.tables["company_forms"]
    return lambda seeds, _: list(
        map(b"%b %b %b".__mod__, zip(pick(names, seeds.words(1)), pick(branches, seeds.words(5)), pick(forms, seeds.words(6)), strict=True))
    )


def email(words: Words, domain: str, limit: int | None, spelling: Spelling | None) -> Invent:
    """Return addresses: a first name, a mark of 64 bits, a reserved domain.

    Args:
        words: for the name in front; left out where the column is too narrow.
        domain: a reserved one.
        limit: characters at the most.
        spelling: keyed seeds of the values as written, where two spellings of one address stand in a unique index and must stay apart.
    """
    tail = b"@" + domain.encode()
    names = words.tables["plain_names"]
    longest = max(map(len, set(names))) + 16 + len(tail)
    plain = limit is not None and limit < longest

    def invent(seeds: Seeds, cells: Cells) -> list[bytes]:
        marks = seeds.marks(4)
        if plain:
            made = [mark + tail for mark in marks]
        else:
            made = [found + mark + tail for found, mark in zip(pick(names, seeds.words(0)), marks, strict=True)]
        return _varied(made, cells, spelling) if spelling else made

    return invent


def _varied(made: list[bytes], cells: Cells, spelling: Spelling) -> list[bytes]:
    """Return results whose case varies where the original is not in its canonical form: the same address spelt otherwise stays that.

    The pattern is a keyed function of the spelling, so that it tells nothing about it.
    """
    forms = canonical.text(cells)
    others = [index for index, (old, form) in enumerate(zip(cells, forms, strict=True)) if old != form]
    if others:
        for index, pattern in zip(others, spelling([cells[index] for index in others]).longs(0), strict=True):
            local, at, domain = made[index].partition(b"@")
            made[index] = bytes(_cased(letter, pattern >> place & 1) for place, letter in enumerate(local)) + at + domain
    return made


def _cased(letter: int, large: int) -> int:
    return letter - 32 if large and 97 <= letter <= 122 else letter


def username(words: Words, limit: int | None, spelling: Spelling | None) -> Invent:
    """Return user names: a first name and a mark of 64 bits."""
    names = words.tables["plain_names"]
    plain = limit is not None and limit < max(map(len, set(names))) + 16

    def invent(seeds: Seeds, cells: Cells) -> list[bytes]:
        marks = seeds.marks(4)
        made = marks if plain else [found + mark for found, mark in zip(pick(names, seeds.words(0)), marks, strict=True)]
        return _varied(made, cells, spelling) if spelling else made

    return invent


def url(domain: str) -> Invent:
    """Return web addresses in a reserved domain."""
    head = b"https://" + domain.encode() + b"/"
    return lambda seeds, _: [head + mark for mark in seeds.marks(4)]


def user_agent(seeds: Seeds, _: Cells) -> list[bytes]:
    """Return user agents of common browsers."""
    return [_AGENTS[number % len(_AGENTS)] for number in seeds.words(28)]


def cut(invent: Invent, limit: int | None) -> Invent:
    """Return a maker whose results have at most ``limit`` characters."""
    if limit is None:
        return invent
    return lambda seeds, cells: [_shortened(made, limit) for made in invent(seeds, cells)]


def _shortened(made: bytes, limit: int) -> bytes:
    if len(made) <= limit:
        return made
    return made.decode()[:limit].rstrip().encode()
