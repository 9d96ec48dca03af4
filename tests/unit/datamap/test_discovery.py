"""Discovery without a server: names taken apart, values judged, JSON keys that may be values, and what weighs how much."""

from __future__ import annotations

import json
import string

import pytest
from datamap_schemas import Schema, column, people
from hypothesis import given, settings
from hypothesis import strategies as st

from obhut.datamap.discovery import names
from obhut.datamap.discovery.documents import Inventory
from obhut.datamap.discovery.findings import discover
from obhut.datamap.discovery.lexicon import fold, merged
from obhut.datamap.discovery.looking import Sampled, contained, judged, sketched
from obhut.datamap.discovery.roles import Role, standings
from obhut.datamap.discovery.values import Kind, kinds
from obhut.datamap.discovery.weighing import SURE
from obhut.datamap.suggest import suggest
from obhut.datamap.writing import write
from obhut.foundation.language import Language, speaking


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("custFirstName", "user.name.first"),
        ("USR_EMAIL", "user.contact.email"),
        ("contactpersonemail", "user.contact.email"),
        ("mothersmaidenname", "user.name.last"),
        ("Straße", "user.contact.address.street"),
        ("telefon_dienstlich", "user.contact.phone_number"),
        ("geburtsdatum2", "user.demographic.date_of_birth"),
        ("xyzvorname", "user.name.first"),
        ("kundenEmailAdresse", "user.contact.email"),
        ("address_line_2", "user.contact.address.street"),
        ("password_reset_token", "user.authorization.credentials"),
        ("email_subject", "user.content"),
        ("email_count", None),
        ("phone_type", None),
        ("sort_order", None),
        ("quantity", None),
        ("", None),
    ],
)
def test_names_are_taken_apart(name: str, category: str | None) -> None:
    """Camel case, prefixes, compounds of both languages and umlauts are read; what a name says about something else is not."""
    reading = names.read(name)
    assert (reading.category if reading else None) == category


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet=string.ascii_letters + string.digits + "_-äöüß", max_size=40))
def test_every_name_can_be_read(name: str) -> None:
    """No name breaks the reader, taking apart loses no letter but linking ones, and reading twice gives the same."""
    parts = names.parts(name)
    assert all(parts)
    assert len("".join(parts)) <= len(fold(name))
    assert names.read(name) == names.read(name)


def test_a_shared_prefix_says_nothing() -> None:
    """What most columns of a table begin with is left out."""
    listed = ("cp_id", "cp_name", "cp_ort", "cp_plz", "cp_fax", "created_at")
    assert names.prefix(listed) == "cp_"
    assert names.prefix(("id", "name", "ort", "plz", "fax", "mail")) == ""


def test_a_strong_word_of_one_language_beats_a_weak_one_of_another() -> None:
    """Word lists of several languages are merged by strength, not by the order of files."""
    book = merged([{"weak": {"user.content": "handy"}}, {"strong": {"user.contact.phone_number": "handy"}}])
    assert book.phrases[("handy",)].category == "user.contact.phone_number"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("anna@example.invalid", Kind.EMAIL),
        ("+49 30 901820", Kind.PHONE),
        ("0171 1234567", Kind.PHONE),
        ("(030) 901820", Kind.PHONE),
        ("DE89 3704 0044 0532 0130 00", Kind.IBAN),
        ("4111111111111111", Kind.CARD),
        ("86095742719", Kind.TAX),
        ("2001:db8::17", Kind.IP),
        ("192.0.2.7", Kind.IP),
        ("Lindenstraße 4b", Kind.STREET),
        ("47 MySakila Drive", Kind.STREET),
        ("Jürgen", Kind.FIRST),
        ("von Müller", Kind.LAST),
        ("Anna Schmidt", Kind.FULL),
        ("Schmidt, Anna", Kind.FULL),
        ("Mozilla/5.0 (X11; Linux x86_64)", Kind.AGENT),
        ("$2b$12$" + "a" * 53, Kind.SECRET),
    ],
)
def test_values_are_recognised(value: str, kind: Kind) -> None:
    """Each kind by a value that is one."""
    assert kind in kinds(value)


@pytest.mark.parametrize(
    "value",
    ["DE89370400440532013001", "4111111111111112", "86095742718", "999.1.1.1", "12:30", "2024-01-01", "Schraube", "A-17", "0123", ""],
)
def test_near_misses_are_not(value: str) -> None:
    """A wrong check digit, an impossible address, a time and a word are nothing."""
    assert kinds(value) == set()


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=120))
def test_every_value_can_be_judged(value: str) -> None:
    """No text breaks a detector."""
    assert kinds(value) <= set(Kind)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.dictionaries(st.text(max_size=12), st.one_of(st.text(max_size=12), st.integers(), st.none()), max_size=6), max_size=30))
def test_only_identifiers_become_paths(documents: list[dict[str, object]]) -> None:
    """A path holds identifiers only, so an address, a number or a word with blanks in a key is never told; leaving one out is remembered."""
    inventory = Inventory()
    for document in documents:
        inventory.add(document)
    told = [path.split(".")[1] for path in inventory.paths()]
    assert all(key.isidentifier() and key.isascii() for key in told)
    keys = {key for document in documents for key, value in document.items() if value is not None}
    assert inventory.unruly or keys <= set(told)


def test_many_different_keys_are_values() -> None:
    """A level with more keys than a schema has is not told at all; neither is a key that is a first name."""
    inventory = Inventory()
    for n in range(100):
        inventory.add({"scores": {f"player{n % 90}x": 1}, "open": True, "by": {"katharina": 2}})
    assert inventory.unruly
    assert list(inventory.paths()) == ["$.open"]


def test_a_look_holds_counts_only() -> None:
    """What is kept of a sample is how many values were of a kind; no value is in it."""
    look = judged(["anna@example.invalid", "anna@example.invalid", "nichts"])
    assert (look.filled, look.distinct, look.hits) == (3, 2, {Kind.EMAIL: 2})
    assert "example" not in repr(look)


def test_the_same_word_weighs_by_its_table() -> None:
    """A name in a table of people is one, in a list of countries it is harmless; a title belongs to a person or to a text."""
    made = (
        people()
        .table("country", column("id"), column("name", "text"))
        .table("doctor", column("id"), column("title", "text"), column("vorname", "text"), column("nachname", "text"))
        .table("note", column("id"), column("patient_id", "integer!"), column("title", "text"), column("product_name", "text"))
        .key("note", "patient_id", "patient")
    ).catalogue
    oid = {table.name: table.oid for table in made.roots}
    found = discover(made).verdicts
    assert found[oid["country"]]["name"].category is None
    assert (found[oid["doctor"]]["title"].category, found[oid["note"]]["title"].category) == ("user.name", "user.content")
    assert found[oid["note"]]["product_name"].open
    assert found[oid["patient"]]["email"].confidence >= SURE
    assert {name: standings(made)[oid[name]].role for name in ("doctor", "note", "country")} == {
        "doctor": Role.PERSON,
        "note": Role.OF_PEOPLE,
        "country": Role.THING,
    }


def test_who_touched_a_row_does_not_own_it() -> None:
    """A product that somebody created is not about that person."""
    made = (
        people()
        .table("product", column("id"), column("created_by", "integer"), column("description", "text"))
        .key("product", "created_by", "patient")
    ).catalogue
    oid = {table.name: table.oid for table in made.roots}
    assert standings(made)[oid["product"]].role is Role.THING
    assert discover(made).verdicts[oid["product"]]["description"].category is None


def test_values_beat_names() -> None:
    """A column called after a thing that is full of addresses is proposed as such, with the share as its reason."""
    made = Schema().table("person", column("id"), column("email", "text"), column("farbe", "text")).catalogue
    look = judged([f"a{n}@example.invalid" for n in range(50)])
    verdict = discover(made, Sampled({1: {"farbe": look}})).verdicts[1]["farbe"]
    assert (verdict.category, verdict.reasons) == ("user.contact.email", ("100% of 50 sampled values are e-mail addresses",))


def test_a_copy_of_an_identifier_is_found_under_any_name() -> None:
    """A column that has the values of a known personal one gets its category as a question; one that shares a few does not."""
    made = (
        Schema().table("person", column("id"), column("kundennummer", "text")).table("lager", column("id"), column("x", "text")).catalogue
    )
    key, numbers = b"k" * 32, [f"K-{n}" for n in range(5000)]
    looks = {1: {"kundennummer": judged(numbers, key)}, 2: {"x": judged([f" k-{n}" for n in range(4000, 4200)], key)}}
    found = discover(made, Sampled(looks)).verdicts[2]["x"]
    assert (found.category, found.sure) == ("user.unique_id", False)
    assert found.reasons == ("100% of its values stand in public.person.kundennummer, too",)
    looks[2]["x"] = judged([f"K-{n}" for n in range(4990, 5100)], key)
    assert discover(made, Sampled(looks)).verdicts[2]["x"].category is None


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 4000), st.integers(1, 4000))
def test_sketches_estimate_what_is_contained(shared: int, own: int) -> None:
    """From at most 1,024 digests a column the share of common values is estimated as well as a draw of that size can."""
    outer = sketched([f"v{n}" for n in range(4000)], b"k" * 32)
    inner = sketched([f"v{n}" for n in range(shared)] + [f"w{n}" for n in range(own)], b"k" * 32)
    compared = (shared + own) * min(1.0, 1024 / 4000, 1024 / (shared + own))
    if compared > 32:
        assert abs(contained(inner, outer) - shared / (shared + own)) < 5 * (0.25 / compared) ** 0.5


def test_sketches_say_nothing_without_their_key() -> None:
    """The same values under two keys have no digest in common, and a handful of values is no share."""
    values = [f"v{n}" for n in range(500)]
    assert not sketched(values, b"a" * 32) & sketched(values, b"b" * 32)
    assert contained(sketched(values[:10], b"a" * 32), sketched(values, b"a" * 32)) == 0.0


def test_a_confident_guess_asks_nothing_and_a_weak_one_asks() -> None:
    """Behind a column stand confidence and reason; below the threshold the remark is a question."""
    made = (
        people()
        .table("letter", column("id"), column("patient_id", "integer!"), column("recipient", "text"))
        .key("letter", "patient_id", "patient")
    )
    lines = {line.split(":")[0].strip(): line for line in write(suggest("d", made.catalogue)).splitlines()}
    assert lines["email"].endswith("# 0.95, its name says email")
    assert lines["recipient"].endswith("# DECIDE: user.name? (0.60, its name says recipient)")


def test_json_paths_become_the_rule() -> None:
    """A document whose paths are all understood loses the personal ones; one with keys that may be values loses everything."""
    inventory, made = Inventory(), people().table("visit", column("id"), column("patient_id", "integer!"), column("data", "jsonb!"))
    for n in range(30):
        inventory.add(json.loads(f'{{"email": "a{n}@example.invalid", "count": {n}}}'))
    looks = {path: judged(texts) for path, texts in inventory.texts().items()}
    catalogue = made.key("visit", "patient_id", "patient").catalogue
    oid = next(table.oid for table in catalogue.roots if table.name == "visit")
    tame = judged([])
    tame.filled, tame.paths = 30, looks
    assert '{json: ["$.email"]}' in write(suggest("d", catalogue, Sampled({oid: {"data": tame}})))
    tame.unruly = True
    assert "data: {category: user.contact.email, anonymise: empty}" in write(suggest("d", catalogue, Sampled({oid: {"data": tame}})))


def test_a_thousand_tables_of_people_are_proposed() -> None:
    """A chain of a thousand tables that lead to a person each: every one is a kind of data subject."""
    made = people()
    for n in range(1000):
        made.table(
            f"member{n}",
            column("id"),
            column("patient_id", "integer!"),
            column("other_id"),
            column("name", "text"),
            column("email", "text"),
        )
        made.key(f"member{n}", "patient_id", "patient")
        if n:
            made.key(f"member{n}", "other_id", f"member{n - 1}")
    assert len(suggest("d", made.catalogue).subjects) == 1001


def test_remarks_speak_german() -> None:
    """In German every question is another sentence, the word DECIDE stays, and nothing but remarks differs; the map loads either way."""
    schema = Schema().table("company", column("id"), column("name", "text"))
    schema.table("person", column("id"), column("email", "text"), column("friend_ids", "bigint[]"), column("recipient", "text"))
    proposal = suggest("shop", schema.catalogue)
    assert proposal.decisions >= 2
    english = write(proposal).splitlines()
    with speaking(Language.GERMAN):
        german = write(proposal).splitlines()
    asked = [
        (mine.split("DECIDE: ")[1], theirs.split("DECIDE: ")[1])
        for mine, theirs in zip(english, german, strict=True)
        if "# DECIDE:" in mine
    ]
    assert len(asked) >= 2
    assert [mine for mine, theirs in asked if mine == theirs and not mine.startswith("user")] == []
    assert [line.split("#")[0] for line in english] == [line.split("#")[0] for line in german]
