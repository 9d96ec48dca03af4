"""German beside English, from one catalogue."""

from __future__ import annotations

import re
import tomllib
from importlib import resources

import pytest

from obhut.foundation.language import Language, catalogue, current, from_environment, speaking, text, use

HOLE = re.compile(r"\{(\w+)\}")


@pytest.fixture(autouse=True)
def _english():
    with speaking(Language.ENGLISH):
        yield


def test_english_is_the_sentence_itself():
    """Without German in force a sentence is returned as written, its placeholders filled."""
    assert text("{path}: there is a settings file already", path="x.toml") == "x.toml: there is a settings file already"


def test_german_is_looked_up_by_the_english_sentence():
    """In German the same call gives the catalogue's sentence."""
    with speaking(Language.GERMAN):
        assert text("{path}: there is a settings file already", path="x.toml") == "x.toml: die Einstellungsdatei gibt es schon"
    assert current() is Language.ENGLISH


def test_a_filled_sentence_is_recognised():
    """An error's fact already holds its values; the entry's placeholders find them again."""
    use(Language.GERMAN)
    assert text("/a b/x.toml: there is a settings file already") == "/a b/x.toml: die Einstellungsdatei gibt es schon"


def test_what_has_no_entry_stays_english():
    """A sentence without an entry is shown as it is, braces included."""
    use(Language.GERMAN)
    assert text("nobody translated {this}") == "nobody translated {this}"


def test_both_sentences_have_the_same_placeholders():
    """A value that stands in the English sentence stands in the German one, none is invented, and no sentence is empty or padded."""
    differing = [english for english, german in catalogue().items() if set(HOLE.findall(english)) != set(HOLE.findall(german))]
    padded = [english for english, german in catalogue().items() if german.strip() != german or not german]
    assert (differing, padded) == ([], [])
    assert len(catalogue()) > 500


def test_no_sentence_is_entered_twice():
    """A sentence has one German form, whatever section it is in."""
    document = tomllib.loads(resources.files("obhut.foundation").joinpath("german.toml").read_text(encoding="utf-8"))
    sentences = [english for section in document.values() for english in section]
    assert len(sentences) == len(set(sentences)), [one for one in sentences if sentences.count(one) > 1]


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "de_DE.UTF-8"}, Language.GERMAN),
        ({"LANG": "de"}, Language.GERMAN),
        ({"LANG": "en_GB.UTF-8"}, Language.ENGLISH),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "en_US"}, Language.ENGLISH),
        ({"LANG": "de_DE.UTF-8", "LC_MESSAGES": "C"}, None),
        ({"LANG": "C.UTF-8"}, None),
        ({"LANG": "fr_FR"}, None),
        ({}, None),
    ],
)
def test_the_locale_chooses(environment, language):
    """LC_ALL wins over LC_MESSAGES over LANG; C, and languages that Obhut does not speak, choose nothing."""
    assert from_environment(environment) == language
