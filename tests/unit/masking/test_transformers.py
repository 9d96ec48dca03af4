"""Every transformer of the client against what the catalogue declares about it, on values that hypothesis makes up."""

from __future__ import annotations

import itertools
import json
import pickle
import re
import uuid
from datetime import date
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obhut.datamap.kinds import Kind
from obhut.datamap.transformers import CATALOGUE, Effect, Family, Per, Place, Uniqueness
from obhut.masking.checkdigits import luhn, mod_11_10, valid_iban, valid_tax_number
from obhut.masking.errors import MaskingFactsError, MaskingKeyError, MaskingStreamError
from obhut.masking.facts import Bounds, Distribution, Facts, widened
from obhut.masking.fields import array_of, elements, escape, unescape
from obhut.masking.identity import JsonKey, KeyDomain, Variant
from obhut.masking.keys import RunKey
from obhut.masking.make.registry import _INVENT, _WHOLE
from obhut.masking.model import ColumnPlan, Person, TablePlan
from obhut.masking.permutation import Permutation, permuted
from obhut.masking.stream import Masker, stream
from obhut.masking.wordlists import WordListError, locales, words

TEXT = Kind(Family.TEXT, "text")
KINDS = {
    Family.TEXT: TEXT,
    Family.INTEGER: Kind(Family.INTEGER, "integer", low=-(2**31), high=2**31 - 1),
    Family.NUMBER: Kind(Family.NUMBER, "numeric"),
    Family.DATE: Kind(Family.DATE, "date"),
    Family.BOOLEAN: Kind(Family.BOOLEAN, "boolean"),
    Family.ENUM: Kind(Family.ENUM, "state", labels=("new", "old")),
    Family.UUID: Kind(Family.UUID, "uuid"),
    Family.ADDRESS: Kind(Family.ADDRESS, "inet"),
    Family.JSON: Kind(Family.JSON, "jsonb"),
    Family.BYTES: Kind(Family.BYTES, "bytea"),
    Family.WORDS: Kind(Family.WORDS, "tsvector"),
    Family.OTHER: Kind(Family.OTHER, "interval"),
}
ID = KeyDomain("public.t.id", 1, "public.t", "id", KINDS[Family.INTEGER])
POOL = Distribution(classes=((b"new", 5), (b"old", 3)))
NUMBERS = Distribution(quantiles=tuple(b"%d" % n for n in range(0, 1000, 10)))
DAYS = Distribution(quantiles=tuple(f"2020-01-{n:02d}".encode() for n in range(1, 29)))
POOLS = {
    Family.DATE: DAYS,
    Family.INTEGER: NUMBERS,
    Family.NUMBER: NUMBERS,
    Family.UUID: Distribution(classes=((b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 5),)),
    Family.ADDRESS: Distribution(classes=((b"192.0.2.1", 5),)),
}
CLIENT = sorted(name for name, one in CATALOGUE.items() if one.place is Place.CLIENT)
OPTIONS: dict[str, dict[str, Any]] = {"choice": {"of": ["a", "b"]}, "tsvector": {"columns": ["other"]}}
VALUES = {
    Family.TEXT: st.text(max_size=40).filter(lambda text: "\0" not in text),
    Family.INTEGER: st.integers(-(2**31), 2**31 - 1).map(str),
    Family.NUMBER: st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9).map(str),
    Family.DATE: st.dates().map(date.isoformat),
    Family.BOOLEAN: st.sampled_from("tf"),
    Family.ENUM: st.sampled_from(["new", "old"]),
    Family.UUID: st.uuids().map(str),
    Family.ADDRESS: st.ip_addresses().map(str),
    Family.JSON: st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=6,
    ).map(json.dumps),
    Family.BYTES: st.binary(max_size=20).map(lambda data: "\\x" + data.hex()),
    Family.WORDS: st.just("'a':1"),
    Family.OTHER: st.sampled_from(["1 day", "2 days"]),
}


def column(transformer: str, family: Family = Family.TEXT, **changes: Any) -> ColumnPlan:
    """Return the plan of a column ``it``, by value or row as the catalogue says; persons need their own column."""
    one = CATALOGUE[transformer]
    per = Per.VALUE if one.per is Per.PERSON else one.per
    given_ = {
        "not_null": False,
        "transformer": transformer,
        "options": OPTIONS.get(transformer, {}),
        "per": per,
        "identity": transformer,
        **changes,
    }
    if transformer == "rekey":
        given_.setdefault("key", (Variant(ID.name),))
    return ColumnPlan("it", given_.pop("kind", KINDS[family]), **given_)


def masker(plan: ColumnPlan, key: RunKey, **facts: Distribution) -> Masker:
    """Return the masker of a table whose first column is ``it`` and whose second is kept."""
    keep = ColumnPlan("other", TEXT, False, "keep")
    pool = facts.get("pool") or POOLS.get(plan.kind.family, POOL)
    reads = 2 if plan.transformer == "tsvector" or plan.person else 1
    table = TablePlan(1, "public.t", (plan, keep), reads, (ID,))
    return Masker(table, key, Facts({ID.name: Bounds(1, 5000)}, {"public.t.it": pool}))


def lines(values: list[str | None], other: list[str] | None = None) -> bytes:
    """Return COPY lines of the values and a second column."""
    second = other or ["kept\\ttext"] * len(values)
    return b"".join(
        (rb"\N" if value is None else escape(value.encode("utf-8", "surrogatepass"))) + b"\t" + escape(b.encode()) + b"\n"
        for value, b in zip(values, second, strict=True)
    )


def run(plan: ColumnPlan, values: list[str | None], key: RunKey | None = None, **facts: Distribution) -> list[str | None]:
    """Return what becomes of the values; checks that the kept column is untouched."""
    chunk = lines(values)
    out = masker(plan, key or RunKey(), **facts).mask(chunk)
    cells = [line.split(b"\t") for line in out.split(b"\n")[:-1]]
    assert len(cells) == len(values)
    if plan.transformer != "tsvector":
        assert {cell[1] for cell in cells} <= {rb"kept\\ttext"}
    return [None if cell[0] == rb"\N" else unescape(cell[0]).decode() for cell in cells]


def families() -> list[tuple[str, Family]]:
    """Return every pair of a client transformer and a family that it takes."""
    return [
        (name, family)
        for name in CLIENT
        for family in sorted(CATALOGUE[name].families)
        if family in KINDS and (name, family) != ("rekey", Family.UUID)
    ]


def fits(family: Family, kind: Kind, text: str) -> bool:
    """Whether PostgreSQL would take the text as a value of the family."""
    checks: dict[Family, Any] = {
        Family.INTEGER: lambda: kind.low <= int(text) <= kind.high,
        Family.NUMBER: lambda: float(text) == float(text),
        Family.DATE: lambda: bool(date.fromisoformat(text)),
        Family.BOOLEAN: lambda: text in {"t", "f", "true", "false", "new", "old"},
        Family.UUID: lambda: bool(uuid.UUID(text)),
        Family.ADDRESS: lambda: bool(ip_address(text)),
        Family.JSON: lambda: (json.loads(text), True)[1],
        Family.BYTES: lambda: re.fullmatch(r"\\x([0-9a-f]{2})*", text) is not None,
    }
    return bool(checks.get(family, lambda: "\0" not in text)())


def test_every_declared_transformer_of_the_client_is_made_and_no_other() -> None:
    """The catalogue and the makers name the same transformers."""
    assert set(CLIENT) == set(_INVENT) | set(_WHOLE) | {"rekey", "scramble"}


@pytest.mark.parametrize(("name", "family"), families(), ids=str)
def test_null_stays_null_values_keep_their_type_and_none_becomes_null(name: str, family: Family) -> None:
    """NULL stays NULL; a value stays one, of the column's type; the row's other column is untouched."""
    if name == "choice" and family is not Family.TEXT:
        return  # its values are the map's own, judged against the type by the check

    @settings(max_examples=8, deadline=None, database=None)
    @given(st.lists(st.none() | VALUES[family], min_size=1, max_size=12))
    def holds(values: list[str | None]) -> None:
        made = run(column(name, family), values)
        assert [value is None for value in values] == [value is None for value in made]
        assert all(fits(family, KINDS[family], value) for value in made if value is not None)

    holds()


KEYED = [(name, family) for name, family in families() if CATALOGUE[name].needs_key and name != "json"]
# Few results by nature, so that two keys meet: drawn from lists, or moved by days.
FEW = {
    "first_name",
    "last_name",
    "name",
    "city",
    "postcode",
    "street",
    "address",
    "company",
    "phone",
    "ip",
    "user_agent",
    "shift",
    "rekey",
    "scramble",
}


@pytest.mark.parametrize(("name", "family"), KEYED, ids=str)
def test_one_key_agrees_with_itself_and_two_keys_share_nothing(name: str, family: Family) -> None:
    """Within a run a value has one result, in every table; another run's results are others."""
    sample: list[str | None] = {
        Family.UUID: [str(uuid.UUID(int=n)) for n in range(60)],
        Family.ADDRESS: [f"10.0.0.{n}" for n in range(60)],
        Family.DATE: [f"2001-01-{n % 28 + 1:02d}" for n in range(60)],
        Family.INTEGER: [str(n) for n in range(1, 61)],
    }.get(family, [f"value number {n}" for n in range(60)])
    key, other = RunKey(), RunKey()
    first = run(column(name, family), sample, key)
    assert first == run(column(name, family), sample[::-1], key)[::-1]
    assert first == [run(column(name, family), [value], key)[0] for value in sample]
    second = run(column(name, family), sample, other)
    assert first != second
    if name not in FEW:
        assert not set(first) & set(second)


PRESERVED = [(name, family) for name, family in families() if CATALOGUE[name].uniqueness is Uniqueness.PRESERVED]


@pytest.mark.parametrize(("name", "family"), PRESERVED, ids=str)
def test_what_is_declared_to_keep_values_apart_does(name: str, family: Family) -> None:
    """Thousands of different values, some of them alike but for case and spaces, stay different."""
    count = 1500
    sample: list[str | None] = {
        Family.INTEGER: [str(n) for n in range(-5, count)],
        Family.UUID: [str(uuid.UUID(int=n)) for n in range(count)],
        Family.ADDRESS: [f"10.{n >> 8}.{n & 255}.1" for n in range(count)],
        Family.DATE: [date.fromordinal(700_000 + n).isoformat() for n in range(count)],
        Family.NUMBER: [f"{n}.5" for n in range(count)],
        Family.BOOLEAN: ["t", "f"],
        Family.ENUM: ["new", "old"],
        Family.OTHER: [f"{n} days" for n in range(count)],
    }.get(family, [f"A{n:05d}" for n in range(count)])
    made = run(column(name, family, unique=True), sample)
    assert len(set(made)) == len(set(sample))


@settings(max_examples=30, deadline=None, database=None)
@given(st.sets(st.integers(-(2**31), 2**31 - 1) | st.integers(1, 5000), min_size=1, max_size=100))
def test_keys_are_permuted_inside_their_range_and_the_rest_outside_of_it(keys: set[int]) -> None:
    """No two keys meet, those of rows stay in the range, those that name no row stay out of it, and an order of chunks tells nothing."""
    made = [int(value) for value in run(column("rekey", Family.INTEGER), [str(key) for key in sorted(keys)]) if value]
    assert len(set(made)) == len(keys)
    assert [1 <= key <= 5000 for key in sorted(keys)] == [1 <= key <= 5000 for key in made]
    assert all(-(2**31) <= key < 2**31 for key in made)


def test_a_text_column_that_follows_numbers_may_hold_other_texts() -> None:
    """What is no number of 64 bits gets a mark; the numbers beside it still follow."""
    key = RunKey()
    sample = ["7", "abc", "99999999999999999999999", "9999999999999999999", "1_000", "", None, "-3"]
    made = run(column("rekey"), list(sample), key)
    assert (
        made[0] == run(column("rekey", Family.INTEGER), ["7"], key)[0] and made[-1] == run(column("rekey", Family.INTEGER), ["-3"], key)[0]
    )
    assert made == [run(column("rekey"), [value], key)[0] for value in sample], "whatever stands beside it"
    assert all(value and re.fullmatch(r"[a-p]{32}", value) for value in made[1:5]) and made[5:7] == ["", None]


def test_a_table_of_keys_says_what_the_permutation_says() -> None:
    """Once many keys were asked for, a table answers: with the same numbers, also with a range that does not begin at zero or below it."""
    for low, high in ((1, 4096), (-20, 3000), (0, 70_000), (7, 40_000)):
        table = TablePlan(1, "public.t", (column("rekey", Family.INTEGER),), 1, (ID,))
        one = Masker(table, RunKey(bytes(32)), Facts({ID.name: Bounds(low, high)}))
        chunk = b"".join(b"%d\n" % number for number in range(low, high + 1, 7))
        first = one.mask(chunk)
        again = [one.mask(chunk) for _ in range(4)]
        assert set(again) == {first}
        assert all(low <= int(line) <= high for line in first.split())


def test_keys_that_the_narrowest_follower_cannot_hold_stay_apart_from_the_others() -> None:
    """A bigint key beyond an integer follower's range is issued anew beyond it."""
    made = [int(str(value)) for value in run(column("rekey", Family.INTEGER), [str(key) for key in (1, 2**31, 2**40, -(2**50), 2**63 - 1)])]
    assert 1 <= made[0] <= 5000 and len(set(made)) == 5
    assert all(not -(2**31) <= key < 2**31 and -(2**63) <= key < 2**63 for key in made[1:])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 256, 257, 1000, 65536, 70000])
def test_a_permutation_hits_every_number_once(size: int) -> None:
    """All numbers below the size come out, each once, and not in the order in which they went in."""
    images = list(Permutation(bytes(32), size)(range(size)))
    assert sorted(images) == list(range(size))
    assert size < 7 or images != list(range(size))


def test_a_permutation_reaches_sixty_four_bits() -> None:
    """The largest size works, and neighbours do not stay neighbours."""
    images = list(Permutation(bytes(32), 1 << 64)([0, 1, 2, (1 << 64) - 1]))
    assert len(set(images)) == 4 and all(abs(a - b) > 1 << 40 for a, b in itertools.pairwise(images))


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(1, 3000), st.binary(max_size=4))
def test_a_permutation_by_shape_is_one_for_every_size(size: int, tweak: bytes) -> None:
    """Scrambling a small shape never gives two texts one result."""
    probe = range(0, size, max(1, size // 50))
    images = [permuted(bytes(32), tweak, number, size) for number in probe]
    assert len(set(images)) == len(images) and all(0 <= image < size for image in images)


def test_scrambled_long_texts_keep_their_shape_and_stay_apart() -> None:
    """Sixty letters and digits: more than any fixed number of bits."""
    sample = [f"AB-{n:040d}-xyzäö {n % 10}" for n in range(50)]
    made = run(column("scramble"), list(sample))
    shape = re.compile(r"[A-Z]{2}-\d{40}-[a-z]{3}äö \d")
    assert all(value and shape.fullmatch(value) for value in made) and len(set(made)) == 50


def test_words_of_one_person_belong_together() -> None:
    """Name, first name, town and postcode by the same person agree, in another table too, and two people differ."""
    key = RunKey()
    person = Person("person", "other")
    made = {}
    for name in ("first_name", "last_name", "name", "city", "postcode", "address"):
        plan = column(name, per=Per.PERSON, person=person, identity="person.person")
        out = masker(plan, key).mask(lines([f"x{n}" for n in range(40)], [str(n % 20) for n in range(40)]))
        made[name] = [line.split(b"\t")[0].decode() for line in out.split(b"\n")[:-1]]
    assert made["name"] == [f"{first} {last}" for first, last in zip(made["first_name"], made["last_name"], strict=True)]
    assert all(f"{code} {town}" in line for code, town, line in zip(made["postcode"], made["city"], made["address"], strict=True))
    assert made["name"][:20] == made["name"][20:] and len(set(made["name"])) > 15


@pytest.mark.parametrize("name", ["phone", "iban"])
def test_every_country_that_can_be_chosen_has_numbers(name: str) -> None:
    """No choice of the catalogue falls back to another country."""
    prefix = {"DE": "+49", "FR": "+33", "GB": "+44", "US": "+1"}
    for country in CATALOGUE[name].option("country").choices:  # type: ignore[union-attr]
        made = run(column(name, options={"country": country}), ["x1", "x2"])
        assert all(str(value).startswith(prefix[country] if name == "phone" else country) for value in made), country


def test_values_that_mean_the_same_become_the_same() -> None:
    """Case, spaces and Unicode forms of text, spellings of a phone number, of an IBAN."""
    key = RunKey()
    for name, spellings in {
        "email": ["Änne@Firma.de", "A\u0308nne@firma.de", " änne@FIRMA.de"],
        "phone": ["0171 1234567", "+49 171 1234567", "0049171/1234567", "+49 (0)171-1234567"],
        "iban": ["DE89 3704 0044 0532 0130 00", "de89370400440532013000"],
        "uuid": ["{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11"],
    }.items():
        made = run(column(name), list(spellings), key)
        assert len(set(made)) == 1, name
    unique = run(column("email", unique=True), ["Bob@x.de", "bob@x.de", "BOB@x.de"], key)
    assert len(set(unique)) == 3 and len({value.lower() for value in unique if value}) == 1
    spelt = [f"{' ' * (n % 4)}bob@x.de{' ' * (n // 4)}" for n in range(12)]
    for name in ("email", "username"):
        apart = run(column(name, unique=True), list(spelt), key)
        assert len(set(apart)) == 12 and len({value.lower() for value in apart if value}) == 1
        assert apart[0] == run(column(name), ["bob@x.de"], key)[0], "the canonical spelling is that of every other column"


@settings(max_examples=15, deadline=None, database=None)
@given(st.lists(VALUES[Family.TEXT], min_size=1, max_size=8), st.integers(16, 60))
def test_results_fit_the_column(values: list[str], limit: int) -> None:
    """No result is longer than the column, whatever the transformer, where its width fits at all."""
    for name in CLIENT:
        one = CATALOGUE[name]
        if Family.TEXT in one.families and one.width <= limit and name not in {"scramble", "shuffle", "sample", "choice", "url"}:
            if name == "email" and limit < 28:
                continue
            assert all(len(made) <= limit for made in run(column(name, limit=limit), list(values)) if made is not None), name


def test_numbers_that_look_real_are_valid_and_reach_nobody() -> None:
    """Check digits are right; phone numbers, domains and addresses are reserved ones."""
    sample = [f"v{n}" for n in range(300)]
    assert all(valid_iban(value) and value[4] == "9" for value in run(column("iban"), sample) if value)
    assert all(valid_tax_number(value) for value in run(column("tax_number"), sample) if value)
    assert all(int(value[-1]) == mod_11_10(value[2:-1]) for value in run(column("vat_number"), sample) if value)
    assert all(int(value[-1]) == luhn(value[:-1]) and value.startswith("9999") for value in run(column("card"), sample) if value)
    assert all(value.endswith("@example.org") for value in run(column("email"), sample) if value)
    reserved = [ip_network(block) for block in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]
    for address in run(column("ip", Family.ADDRESS), ["10.0.0.1", "fe80::1", "1.2.3.4", "2a00::5"]):
        assert any(ip_address(str(address)) in block for block in reserved if block.version == ip_address(str(address)).version)
    assert re.fullmatch(r"\+44(2079460|7700900|1632960)\d{3}", str(run(column("phone"), ["+44 20 7000 1111"])[0]))
    assert re.fullmatch(r"\+1\d{3}55501\d\d", str(run(column("phone"), ["+1 650 253 0000"])[0]))
    assert [mod_11_10("13669597"), valid_tax_number("86095742719"), valid_iban("DE89370400440532013000")] == [6, True, True]


@settings(max_examples=25, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.dates(date(1900, 1, 1), date(2100, 1, 1))), min_size=2, max_size=20))
def test_intervals_of_a_person_survive_a_shift(rows: list[tuple[int, date]]) -> None:
    """All dates of one person move by the same days, and by some."""
    plan = column("shift", Family.DATE, per=Per.PERSON, person=Person("person", "other"), identity="person.person")
    out = masker(plan, RunKey()).mask(lines([day.isoformat() for _, day in rows], [str(person) for person, _ in rows]))
    moved = [date.fromisoformat(line.split(b"\t")[0].decode()) for line in out.split(b"\n")[:-1]]
    for person in {person for person, _ in rows}:
        distances = {(new - old).days for (who, old), new in zip(rows, moved, strict=True) if who == person}
        assert len(distances) == 1 and 0 < abs(distances.pop()) <= 180


def test_moments_outside_the_calendar_do_not_pass() -> None:
    """Infinity stays, a date before our era or after the year 9999 does not."""
    made = run(column("shift", Family.DATE), ["infinity", "-infinity", "0044-03-15 BC", "12024-01-01", "9999-12-31", "0001-01-01"])
    assert made[:2] == ["infinity", "-infinity"] and made[2:4] == ["0001-01-01", "0001-01-01"]
    assert run(column("shift", Family.DATE), ["2020-02-29 23:59:59.5+00"])[0][10:] == " 23:59:59.5+00"  # type: ignore[index]


@settings(max_examples=40, deadline=None, database=None)
@given(VALUES[Family.NUMBER])
def test_noise_never_needs_more_digits(value: str) -> None:
    """numeric(4,2) that held 99.99 holds the result, with as many places, and no sign changes."""
    made = str(run(column("noise", Family.NUMBER, options={"ratio": 0.5}), [value])[0])
    before, _, after = made.lstrip("-").partition(".")
    whole, _, places = value.lstrip("-").partition(".")
    assert len(before) <= len(whole) and len(after) == len(places) and abs(float(made) - float(value)) <= abs(float(value)) * 0.51 + 0.01


def test_filled_nulls_cannot_be_told_apart() -> None:
    """With nulls: fill no NULL is left, or, drawn from the distribution, it stands where it did not."""
    assert None not in run(column("first_name", options={"nulls": "fill"}), ["Anna", None] * 50)
    assert None not in run(column("email", options={"nulls": "fill"}, unique=True), ["a@b.de", None] * 50)
    pool = Distribution(classes=POOL.classes, nulls=0.5)
    made = run(column("sample", options={"nulls": "fill"}), ["new", None] * 200, pool=pool)
    assert 100 < made.count(None) < 300 and [value is None for value in made] != [False, True] * 200


def test_a_distribution_is_followed_and_rare_values_are_none_of_it() -> None:
    """Classes come as often as they were; an empty distribution gives NULL, and an error where NULL is not allowed."""
    made = run(column("sample"), ["rare"] * 4000, pool=Distribution(classes=((b"new", 900), (b"old", 100))))
    assert set(made) == {"new", "old"} and 3300 < made.count("new") < 3900
    assert run(column("sample"), ["rare"], pool=Distribution(classes=((None, 9),))) == [None]
    with pytest.raises(MaskingFactsError):
        run(column("sample", not_null=True), ["rare"], pool=Distribution(classes=((None, 9),)))
    with pytest.raises(MaskingFactsError):
        Masker(TablePlan(1, "public.t", (column("sample"),), 1), RunKey(), Facts())


def test_text_has_like_length_and_tells_nothing() -> None:
    """Within a tenth of the length, in the words of the list, in both locales; the empty text stays empty."""
    source = ["Frau Müller war am 3. Mai bei uns. " * 5, "", "kurz", "x" * 70000]
    for locale in locales():
        vocabulary = {word.decode().lower() for word in words(locale).text}
        made = run(column("text", options={"locale": locale}), list(source))
        assert made[1] == ""
        assert all(abs(len(new or "") - len(old)) <= max(2, len(old) * 0.12) for new, old in zip(made, source, strict=True))
        inner = re.findall(r"\w+", str(made[3]).lower())[1:-1]
        assert len(set(inner) - vocabulary) < len(inner) * 0.01
    with pytest.raises(WordListError):
        words("tlh")


def test_documents_pass_only_what_the_map_knows() -> None:
    """Named paths get their transformer, other texts are replaced, numbers go, names that are values go, the form stays."""
    paths = {
        "$.email": "email",
        "$.guests[*].name": "name",
        "$.lang": {"keep": "two letters"},
        "$.open": {"keep": "a flag"},
        "$.n": {"noise": None},
    }
    document = {"email": "A@x.de", "guests": [{"name": "Anna", "age": 41}, {"name": None}], "lang": "de", "open": True, "n": 1000,
                "a@x.de": "value", "call 0301234567": 1, "deep": [["Secret", {"more": "Secret"}]], "count": 7}  # fmt: skip
    key = RunKey()
    made = json.loads(str(run(column("json", Family.JSON, options={"paths": paths}), [json.dumps(document)], key)[0]))
    assert made["email"] == run(column("email"), ["a@X.de"], key)[0]
    assert made["guests"][1]["name"] is None and made["guests"][0]["name"] != "Anna" and made["guests"][0]["age"] is None
    assert made["lang"] == "de" and made["open"] is True and 850 < made["n"] < 1150 and made["n"] != 1000 and made["count"] is None
    assert set(made) == {"email", "guests", "lang", "open", "n", "deep", "count"} and "Secret" not in json.dumps(made)
    kept = run(
        column("json", Family.JSON, options={"paths": {"$.a": {"keep": "all below"}}, "numbers": "keep", "keys": "drop"}),
        ['{"a": [1, "x"], "b": 2}'],
    )
    assert json.loads(str(kept[0])) == {"a": [1, "x"]}


def test_keys_in_documents_follow() -> None:
    """A key at a path gets the number that its row gets, as a number; the rest of the document is left alone."""
    plan = column("json", Family.JSON, options={"rest": "keep"}, keys_at=(JsonKey(("by",), ID.name), JsonKey(("all", None), ID.name)))
    key = RunKey()
    made = json.loads(str(run(plan, ['{"by": 7, "all": ["8", 9], "text": "stays", "n": 5}'], key)[0]))
    new = {old: run(column("rekey", Family.INTEGER), [old], key)[0] for old in ("7", "8", "9")}
    assert made == {"by": int(str(new["7"])), "all": [new["8"], int(str(new["9"]))], "text": "stays", "n": 5}


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.none() | st.text(max_size=10).filter(lambda text: "\0" not in text), max_size=6))
def test_arrays_are_taken_apart_and_put_together(values: list[str | None]) -> None:
    """Quotes, commas, braces, backslashes, empty texts and the word NULL as a text survive the way through."""
    encoded = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
    text = array_of(encoded, [b"{", *[b","] * (len(values) - 1), b"}"] if values else [b"{}"])
    assert elements(text)[0] == encoded
    assert array_of(*elements(text)) == text


def test_arrays_are_masked_element_by_element() -> None:
    """The addresses of a list become those of the single column; nested lists and bounds keep their form."""
    key = RunKey()
    kind = Kind(Family.TEXT, "text", array=True)
    made = run(column("email", kind=kind), ['{a@x.de,"b@x.de",NULL,{}}', "[2:3]={a@x.de,b@x.de}", "{}", None], key)
    one, two = (str(value) for value in run(column("email"), ["a@x.de", "B@x.de"], key))
    assert made == [f'{{"{one}","{two}",NULL,{{}}}}', f'[2:3]={{"{one}","{two}"}}', "{}", None]


def test_a_search_vector_is_made_of_the_new_words() -> None:
    """Its words are those of the masked columns."""
    plan = column("tsvector", Family.WORDS)
    made = masker(plan, RunKey()).mask(lines(["'old':1", None], ["Der neue Text, it's", "x"]))
    assert unescape(made.split(b"\t")[0]).decode() == "'der':1 'it':4 'neue':2 's':5 'text':3"
    assert made.split(b"\n")[1].startswith(rb"\N")


def test_secrets_leave_nothing() -> None:
    """A token is no function of the secret: the same secret gives another each time."""
    made = run(column("token"), ["hunter2"] * 50)
    assert len(set(made)) == 50 and CATALOGUE["token"].effect is Effect.DESTROYS


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_stream_may_be_cut_anywhere(size: int) -> None:
    """Blocks that end inside a line or an escape give the same rows as whole lines."""
    chunk = lines([f"line\n{n}\t\\" if n % 3 else None for n in range(200)])
    key = RunKey()
    whole = masker(column("username"), key).mask(chunk)
    pieces = [memoryview(chunk[start : start + size]) for start in range(0, len(chunk), size)]
    assert b"".join(stream(pieces, masker(column("username"), key), size=500)) == whole


def test_counts_tell_what_came_out_as_it_went_in() -> None:
    """Cells, NULLs and unchanged values are counted for the leak check; a NULL that stays is not an unchanged value."""
    one = masker(column("choice", options={"of": ["a"]}), RunKey())
    one.mask(lines(["a", "b", None, "a"]))
    assert vars_of(one.counts["it"]) == (4, 1, 2)


def vars_of(count: Any) -> tuple[int, int, int]:
    return count.cells, count.nulls, count.unchanged


def test_the_key_is_gone_when_it_is_destroyed() -> None:
    """No sub-key after that, no copy of it on a disk, nothing of it in words."""
    key = RunKey(bytes(range(32)))
    secret = key._secret
    assert key.sub("email") == RunKey(bytes(range(32))).sub("email") != key.sub("phone")
    with pytest.raises(TypeError):
        pickle.dumps(key)
    assert "…" in repr(key)
    key.destroy()
    assert secret == bytearray(32) and key.destroyed
    with pytest.raises(MaskingKeyError):
        key.sub("email")


def test_a_kept_key_gives_the_same_from_copy_to_copy() -> None:
    """The stable mode: what one copy made of a value, the next one makes too; a random key does not."""
    secret = bytes(range(32))
    one, two = RunKey.kept(secret), RunKey.kept(secret)
    sample = [f"person{n}@x.de" for n in range(20)]
    assert one.stable and not RunKey().stable
    assert run(column("email"), list(sample), one) == run(column("email"), list(sample), two)
    with pytest.raises(ValueError):
        RunKey.kept(b"short")


def test_a_stream_of_another_form_is_refused_without_quoting_it() -> None:
    """Too few columns, half a line, a closed masker: an error that names the table and no value."""
    one = masker(column("email"), RunKey())
    for chunk in (b"secret\n", b"a\tb\nsecret\n", b"secret\tx"):
        with pytest.raises(MaskingStreamError) as caught:
            one.mask(chunk)
        assert "secret" not in str(caught.value) and "public.t" in str(caught.value)
    one.close()
    with pytest.raises(MaskingStreamError):
        one.mask(b"a\tb\n")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (None, None, (1, 4096)),
        (1, 10, (1, 4096)),
        (5, 10, (1, 4096)),
        (1, 5000, (1, 8192)),
        (1, 2**31 - 1, (1, 2**31 - 1)),
        (-5, 5, (-5, 4090)),
    ],
)
def test_small_ranges_are_widened(low: int | None, high: int | None, expected: tuple[int, int]) -> None:
    """A table of ten rows does not keep its ten numbers; the type is never left."""
    made = widened(KINDS[Family.INTEGER], low, high)
    assert (made.low, made.high) == expected


def test_an_empty_text_stays_one() -> None:
    """It tells what NULL tells; filling replaces it, too."""
    for name in ("email", "first_name", "phone", "text", "scramble", "hash", "token"):
        assert run(column(name), ["", "x1", None])[0] == "", name
    person = Person("person", "other")
    assert run(column("last_name", per=Per.PERSON, person=person, identity="person.person"), ["", None, "Meyer"])[:2] == ["", None]
    assert "" not in run(column("email", options={"nulls": "fill"}, unique=True), ["", "a@b.de"])


def test_a_document_agrees_with_the_narrowest_column() -> None:
    """An address in JSON is cut to the form that the columns of its identity domain can hold."""
    key = RunKey()
    plan = column("json", Family.JSON, options={"paths": {"$.email": "email"}})
    table = TablePlan(1, "public.t", (plan,), 1, limits={"email": 30})
    made = Masker(table, key, Facts()).mask(b'{"email": "a@b.de"}\n')
    assert json.loads(unescape(made[:-1]))["email"] == run(column("email", limit=30), ["a@b.de"], key)[0]


def test_keys_in_arrays_follow_the_value_of_another_column() -> None:
    """A polymorphic list: its elements are re-issued in the rows that name people, and in no other."""
    key = RunKey()
    plan = column("rekey", kind=Kind(Family.INTEGER, "integer", array=True), key=(Variant(ID.name, (("other", "P"),)),), reads=("other",))
    table = TablePlan(1, "public.t", (plan, ColumnPlan("other", TEXT, False, "keep")), 2, (ID,))
    made = Masker(table, key, Facts({ID.name: Bounds(1, 5000)})).mask(lines(["{7,NULL}", "{7}", None], ["P", "Q", "P"])).split(b"\n")
    new = run(column("rekey", Family.INTEGER), ["7"], key)[0]
    assert made[:3] == [f'{{"{new}",NULL}}\tP'.encode(), b"{7}\tQ", rb"\N" + b"\tP"]


def test_a_column_too_many_never_passes() -> None:
    """Also where every column is taken apart, so that nothing is left to look at."""
    table = TablePlan(1, "public.t", (column("email"),), 1)
    with pytest.raises(MaskingStreamError):
        Masker(table, RunKey(), Facts()).mask(b"a@b.de\tsecret\n")
