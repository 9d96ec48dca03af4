"""The word lists that ship with Obhut: one file a locale, read once."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

from obhut.masking.errors import WordListError
from obhut.masking.make.base import table_of


@dataclass(frozen=True)
class Words:
    """A locale's words, encoded; see ``words/de.toml`` for the form."""

    locale: str
    country: str
    house: str
    place: str
    first_names: tuple[bytes, ...]
    last_names: tuple[bytes, ...]
    streets: tuple[bytes, ...]
    postcodes: tuple[bytes, ...]
    cities: tuple[bytes, ...]
    company_words: tuple[bytes, ...]
    company_forms: tuple[bytes, ...]
    text: tuple[bytes, ...]

    @cached_property
    def tables(self) -> dict[str, list[bytes]]:
        """The lists as tables of 65,536 entries; towns and postcodes at one number belong together.

        ``plain_names`` are first names in lower-case ASCII with a dot, for addresses; ``houses`` streets with a number.
        """
        names = ("first_names", "last_names", "streets", "postcodes", "cities", "company_words", "company_forms", "text")
        return {
            **{name: table_of(getattr(self, name)) for name in names},
            "plain_names": table_of([_plain(name) + b"." for name in self.first_names]),
            "houses": table_of(self._houses()),
        }

    def _houses(self) -> list[bytes]:
        """Return every street with every number up to 199, as the country writes it."""
        form = self.house.replace("{street}", "%(street)s").replace("{number}", "%(number)d")
        return [(form % {"street": street.decode(), "number": number}).encode() for street in self.streets for number in range(1, 200)]


_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ı": "i", "ç": "c"})


def _plain(word: bytes) -> bytes:
    text = word.decode().lower().translate(_UMLAUTS)
    return "".join(letter for letter in text if letter.isascii() and letter.isalnum()).encode() or b"x"


@cache
def words(locale: str) -> Words:
    """Return the words of a locale.

    Raises:
        WordListError: there is no such file, or it lacks a list.
    """
    file = resources.files("obhut.masking").joinpath("words", f"{locale}.toml")
    if not locale.isalpha() or not file.is_file():
        raise WordListError(f"there is no word list for the locale {locale[:20]}", f"There are: {', '.join(locales())}.")
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    try:
        places = [place.split(" ", 1) for place in _items(content["places"], ";")]
        found = Words(
            locale,
            str(content["country"]),
            str(content["house"]),
            str(content["place"]),
            _encoded(_items(content["first_names"], None)),
            _encoded(_items(content["last_names"], None)),
            _encoded(_items(content["streets"], ";")),
            _encoded([place[0] + str(content.get("postcode_tail", "")) for place in places]),
            _encoded([place[1] for place in places]),
            _encoded(_items(content["company_words"], None)),
            _encoded(_items(content["company_forms"], ";")),
            _encoded(_items(content["text"], None)),
        )
    except (KeyError, IndexError):
        raise WordListError(f"the word list {locale} lacks a list", "words/de.toml shows the form.") from None
    if any(not value for value in vars(found).values()):
        raise WordListError(f"the word list {locale} has an empty list", "words/de.toml shows the form.")
    return found


def locales() -> list[str]:
    """Return the locales that have a word list."""
    folder = resources.files("obhut.masking").joinpath("words")
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def _items(text: str, separator: str | None) -> list[str]:
    pieces = text.split() if separator is None else text.replace("\n", " ").split(separator)
    return list(dict.fromkeys(piece.strip() for piece in pieces if piece.strip()))


def _encoded(words: list[str]) -> tuple[bytes, ...]:
    return tuple(word.encode() for word in words)
