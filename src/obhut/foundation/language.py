"""English and German words for what people read: output, errors, certificate labels, promise sentences.

The message id is the English sentence, so the code reads without a catalogue, and a sentence without a translation is still a
sentence. A sentence that already carries its values (an error's fact, say) is recognised by the placeholders of its catalogue entry.
Codes, keys of JSON documents and command names are never translated.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import cache
from importlib import resources

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Language(StrEnum):
    """A language that Obhut speaks; the value is the BCP 47 tag."""

    ENGLISH = "en"
    GERMAN = "de"


_current: ContextVar[Language] = ContextVar("obhut_language", default=Language.ENGLISH)


def current() -> Language:
    """Return the language in force."""
    return _current.get()


def use(language: Language) -> None:
    """Speak a language from here on (in this thread of control)."""
    _current.set(language)


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Speak a language inside the block."""
    token = _current.set(language)
    try:
        yield
    finally:
        _current.reset(token)


def from_environment(environment: Mapping[str, str] | None = None) -> Language | None:
    """Return the language of the locale variables, or None where they name none that Obhut speaks (``C``, ``C.UTF-8``, unset)."""
    values = os.environ if environment is None else environment
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := values.get(variable):
            tag = re.split(r"[_.@-]", value, maxsplit=1)[0].lower()
            return Language(tag) if tag in set(Language) else None
    return None


def text(sentence: str, /, **values: object) -> str:
    """Return the sentence in the language in force, with ``{placeholders}`` replaced.

    Args:
        sentence: the English sentence; the catalogue's key.
        values: for the placeholders; never personal data.
    """
    return _fill(_translated(sentence), values) if values else _translated(sentence)


def _translated(sentence: str) -> str:
    if _current.get() is Language.ENGLISH:
        return sentence
    words = catalogue()
    found = words.get(sentence)
    if found is not None:
        return found
    for pattern, german in _patterns():
        if match := pattern.fullmatch(sentence):
            # A filled-in value may be a sentence of its own, such as a reason within a refusal; a single word may be a name.
            return _fill(german, {name: _translated(value) if " " in value else value for name, value in match.groupdict().items()})
    return sentence


def _fill(sentence: str, values: Mapping[str, object]) -> str:
    """Replace placeholders; a brace that is none stays, so that text with braces needs no escaping."""
    return _PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), sentence)


@cache
def catalogue() -> dict[str, str]:
    """Return the German sentences by their English ones."""
    document = tomllib.loads(resources.files("obhut.foundation").joinpath("german.toml").read_text(encoding="utf-8"))
    return {english: german for section in document.values() for english, german in section.items()}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return a pattern for each entry with placeholders, the most words first, so that the closest entry wins."""
    found = []
    for english, german in catalogue().items():
        if not _PLACEHOLDER.search(english):
            continue
        seen: set[str] = set()
        parts = []
        for index, part in enumerate(_PLACEHOLDER.split(english)):
            if index % 2 == 0:
                parts.append(re.escape(part))
            else:
                parts.append(f"(?P={part})" if part in seen else f"(?P<{part}>.+?)")
                seen.add(part)
        found.append((len(_PLACEHOLDER.sub("", english)), re.compile("".join(parts), re.DOTALL), german))
    return tuple((pattern, german) for _, pattern, german in sorted(found, key=lambda entry: -entry[0]))
