"""Vocabulary, JSON Schema, Fideslang and the picture: what the map is turned into and made from."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from datamap_schemas import HEAD, PAGILA, column, load_map, people
from ruamel.yaml import YAML

from obhut.datamap import fides, schema, vocabulary
from obhut.datamap.discovery.lexicon import lexicon
from obhut.datamap.graph import map_version, require
from obhut.datamap.load import loads
from obhut.datamap.picture import svg
from obhut.datamap.show import outline
from obhut.datamap.suggest import suggest
from obhut.datamap.writing import write
from obhut.foundation import language
from obhut.postgres.catalogue import Action

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("email", "user.contact.email"),
        ("billing_email", "user.contact.email"),
        ("vorname", "user.name.first"),
        ("lastName", "user.name.last"),
        ("geburtsdatum", "user.demographic.date_of_birth"),
        ("steuer_id", "user.government_id.national_identification_number"),
        ("password_hash", "user.authorization.password"),
        ("plz", "user.contact.address.postal_code"),
        ("ip_adresse", "user.device.ip_address"),
        ("bemerkung", "user.content"),
        ("email_verified", None),
        ("created_at", None),
        ("price", None),
        ("film_id", None),
    ],
)
def test_names_in_english_and_german(name: str, category: str | None) -> None:
    """Names of both languages are understood, and facts about a column are not its content."""
    found = vocabulary.guess(name)
    assert (found.category if found else None) == category


def test_every_word_has_an_installed_category() -> None:
    """The word lists use categories of the installed taxonomy only."""
    assert {meaning.category for meaning in lexicon().phrases.values()} <= vocabulary.categories()


def test_schema_is_the_one_that_is_shipped() -> None:
    """The generated schema stands in the reference and in the package; editors get today's words."""
    text = schema.text()
    assert (ROOT / "docs/reference/datamap.schema.json").read_text(encoding="utf-8") == text
    assert resources.files("obhut.datamap").joinpath("datamap.schema.json").read_text(encoding="utf-8") == text


SHORT = """\
      public.note:
        columns:
          a: user.content
          b: {category: user.content, anonymise: null}
          c: {category: user.content, anonymise: empty}
          d: {category: user.content, anonymise: {constant: 0}}
          e: {category: user.content, anonymise: {json: ["$.name", "$.guests[*].name"]}}
          f: {category: user.content, anonymise: {json: {"$.name": null, "$.x": gone, "$.y": remove}}}
          g: {category: user.content, anonymise: {keep: tells nothing}}
          h: {category: user.content, anonymise: {generalise: year}}
        not_personal: "*"
        links:
          - {to: public.patient, json: e, path: "$.guests[*].id", key: id, erase: unlink}
          - {to: public.patient, array: ids, erase: {keep: law, for: P10Y, then: anonymise}}
          - {to: public.patient, columns: {x: id}, when: {kind: patient, main: true}, anonymises: [a]}
"""


@pytest.mark.parametrize("text", [PAGILA.read_text(encoding="utf-8"), HEAD, HEAD + SHORT], ids=["pagila", "head", "short forms"])
def test_what_loads_also_pays_the_schema(text: str) -> None:
    """An editor does not complain about any of the forms that load."""
    loads(text)
    jsonschema.Draft202012Validator(schema.schema()).validate(YAML(typ="safe").load(text))


@pytest.mark.parametrize(
    "rule", ["erase: destroy", "erase: {keep: law}", "colums: {}", "columns: {a: {category: User}}", "links: [{to: x}]"]
)
def test_what_does_not_load_is_marked_by_the_schema(rule: str) -> None:
    """An editor marks what the loader refuses."""
    value = YAML(typ="safe").load(HEAD + f"      public.x: {{{rule}}}\n")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema.schema()).validate(value)


def test_fides_round_trip_is_whole() -> None:
    """An exported map comes back with the same version, and the loss list names what Fideslang cannot say."""
    rules = load_map(SHORT).database("d")
    text, losses = fides.to_fides("d", rules)
    ((name, back, lost),) = fides.from_fides(text)
    assert (name, lost) == ("d", [])
    assert not isinstance(back, fides.Proposal)
    assert map_version(back) == map_version(rules)
    assert map_version(loads(fides.written("d", back)).database("d")) == map_version(rules)
    said = " ".join(loss.what for loss in losses)
    for word in ("keys in JSON", "keys in an array", "polymorphic", "tenant column", "incarnation"):
        assert word in said


def test_foreign_fides_file_becomes_a_proposal() -> None:
    """A dataset from elsewhere gives categories, links and masks; the rest is listed, and the text loads."""
    dataset = {
        "fides_key": "shop",
        "collections": [
            {"name": "customer", "fields": [
                {"name": "id", "fides_meta": {"primary_key": True}},
                {"name": "email", "data_categories": ["user.contact.email"], "fides_meta": {"identity": "email", "read_only": True}},
            ]},
            {"name": "orders", "fields": [
                {"name": "customer_id", "fides_meta": {"references": [{"dataset": "shop", "field": "customer.id", "direction": "from"}]}},
                {"name": "other", "fides_meta": {"references": [{"dataset": "crm", "field": "people.id", "direction": "to"}]}},
                {"name": "note", "data_categories": ["user.content", "user.name"]},
            ]},
        ],
    }  # fmt: skip
    ((_, proposal, losses),) = fides.from_fides(json.dumps({"dataset": [dataset]}))
    assert isinstance(proposal, fides.Proposal)
    rules = loads(write(proposal)).database("shop")
    assert rules.tables["public.orders"].links[0].columns == {"customer_id": "id"}
    assert rules.subjects["customer"].identifiers == ("email",)
    assert {loss.what.split(" (")[0].split(":")[0] for loss in losses} == {
        "read_only",
        "a reference into another dataset",
        "further categories",
    }


def test_what_is_no_dataset() -> None:
    """Anything else is refused with one error."""
    for text in ("", "a: 1", "dataset: []", "dataset: [1]", "dataset: [{fides_key: x}]"):
        with pytest.raises(fides.FidesFormatError):
            fides.from_fides(text)


def story() -> object:
    """Return the graph of patients with visits and a self reference."""
    made = (
        people()
        .table("visit", column("id"), column("patient_id"), column("previous"))
        .key("visit", "patient_id", "patient", Action.CASCADE)
    )
    made.key("visit", "previous", "visit", Action.SET_NULL)
    tables = (
        "      public.visit:\n        not_personal: [id]\n        links:\n          - {to: public.patient, columns: {patient_id: id}}\n"
        "          - {to: public.visit, columns: {previous: id}, erase: unlink}\n        erase: delete\n"
    )
    return require("d", load_map(tables).database("d"), made.catalogue)


def test_picture_shows_every_table_and_way() -> None:
    """The SVG is well-formed, names every table, and speaks German when asked to."""
    shown = outline(story(), "patient")  # type: ignore[arg-type]
    assert [(stop.table, stop.treatment, stop.distance) for stop in shown.stops] == [
        ("public.patient", "delete", 0),
        ("public.visit", "delete", 1),
    ]
    assert {(way.near, way.far, way.treatment) for way in shown.ways} == {
        ("public.patient", "public.visit", "delete"),
        ("public.visit", "public.visit", "unlink"),
    }
    drawn = svg(shown)
    ET.fromstring(drawn)  # noqa: S314 - our own text
    assert ">patient<" in drawn
    assert ">visit<" in drawn
    with language.speaking(language.Language.GERMAN):
        assert "löschen" in svg(shown)


def test_suggestion_asks_instead_of_guessing() -> None:
    """A text column near a person without a telling name stays unclassified; a blocked person is anonymised."""
    made = (
        people()
        .table("visit", column("id"), column("patient_id", "integer!"), column("blob", "text"))
        .key("visit", "patient_id", "patient")
    )
    rules = loads(write(suggest("d", made.catalogue))).database("d")
    assert rules.subjects["patient"].incarnation == ("created_at",)
    assert "blob" not in rules.tables["public.visit"].columns
    assert "blob" not in rules.tables["public.visit"].not_personal
    assert "personal or not? blob" in write(suggest("d", made.catalogue))
