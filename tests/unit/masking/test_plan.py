"""What the planner decides, and each refusal on the smallest schema that earns it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from datamap_schemas import HEAD, codes, column, people
from masking_maps import patient, planned, refused, table

from obhut.datamap.surroundings import Surroundings
from obhut.datamap.transformers import CATALOGUE, Effect, Per, Place
from obhut.masking.errors import MaskingRefusedError
from obhut.masking.model import ColumnPlan, MaskPlan
from obhut.postgres.catalogue import Key

ROOT = Path(__file__).parents[3]


def x_of(rule: str, kind: str, **changes: object) -> tuple[ColumnPlan, MaskPlan]:
    unique = changes.pop("unique", ())
    schema, head = patient(rule, column("x", kind, **changes), unique=unique)  # type: ignore[arg-type]
    made = planned(schema, head=head)
    return table(made, "patient").column("x"), made


def test_client_columns_come_first_and_the_rest_stays_whole() -> None:
    """What the client masks or reads leads the line; names are the same for both sides."""
    made = table(planned(people()), "patient")
    assert made.names[: made.leading] == ("id", "email")
    assert set(made.names) == {"id", "clinic_id", "email", "created_at"}
    assert [one.name for one in made.masked] == ["id", "email"]
    assert made.select_list().as_string(None) == '"id", "email", "clinic_id", "created_at"'


def test_a_table_without_people_flows_untouched() -> None:
    """Controllers keep their keys, and nothing of their rows is looked into."""
    made = planned(people())
    assert table(made, "clinic").masked == () and table(made, "clinic").leading == 0
    assert [domain.name for domain in made.keys] == ["public.patient.id"] and made.refusals == ()


@pytest.mark.parametrize(
    ("category", "kind", "transformer"),
    [
        ("user.contact.email", "text", "email"),
        ("user.name.last", "character varying(40)", "last_name"),
        ("user.contact.email", "character varying(10)", "text"),
        ("user.contact.email", "bigint", "noise"),
        ("user.authorization.password", "text", "null"),
        ("user.authorization.password", "text!", "token"),
        ("user.demographic.date_of_birth", "date", "generalise"),
        ("user.demographic.gender", "text", "sample"),
        ("user.content", "text", "text"),
        ("user.content", "text[]", "text"),
        ("user", "jsonb", "json"),
        ("user.content.self_image", "bytea", "bytes"),
        ("user.device.ip_address", "inet", "ip"),
        ("user", "boolean", "sample"),
        ("user.content", "oid", "null"),
    ],
)
def test_a_category_and_a_type_choose_the_transformer(category: str, kind: str, transformer: str) -> None:
    """Without a mask in the map the category decides, within what the type takes."""
    found, made = x_of(category, kind)
    assert found.transformer == transformer and made.refusals == ()


@pytest.mark.parametrize(("category", "kind", "transformer"), [("user.contact.phone_number", "text", "scramble"), ("user", "uuid", "uuid"), ("user.name.last", "text", "scramble"), ("user.account.username", "text", "username"), ("user", "integer", "rekey")])  # fmt: skip
def test_in_a_unique_index_the_default_keeps_values_apart(category: str, kind: str, transformer: str) -> None:
    """A phone number that must be unique is scrambled, because the ranges for fiction are small."""
    if transformer == "rekey":
        return  # numbers without a domain of keys: see the next test
    found, made = x_of(category, kind, unique=("x",))
    assert found.transformer == transformer and found.unique and made.refusals == ()


REFUSALS = [
    ("mask-type", "{category: user, mask: email}", "integer", {}),
    ("mask-type", "{category: user, mask: {generalise: year}}", "text", {}),
    ("mask-type", "{category: user, mask: {truncate: 2}}", "text[]", {}),
    ("mask-not-null", "{category: user, mask: null}", "text!", {}),
    ("mask-not-null", "{category: user, mask: default}", "text!", {}),
    ("mask-length", "{category: user, mask: email}", "character varying(20)", {}),
    ("mask-length", "{category: user, mask: {constant: far too long}}", "character varying(3)", {}),
    ("mask-not-unique", "{category: user, mask: first_name}", "text", {"unique": ("x",)}),
    ("mask-not-unique", "{category: user, mask: {email: {per: person}}}", "text", {"unique": ("x",)}),
    ("mask-not-unique", "{category: user, mask: shuffle}", "text", {"unique": ("clinic_id", "x")}),
    ("mask-not-unique", "{category: user, mask: {constant: a}}", "text", {"unique": ("clinic_id", "x")}),
    ("mask-secret", "{category: user.authorization.password, mask: hash}", "text", {}),
    ("mask-secret", "{category: user.authorization.credentials, mask: {keep: is harmless}}", "text", {}),
    ("mask-domain", "{category: user, mask: {email: {domain: example.de}}}", "text", {}),
    ("mask-value", "{category: user, mask: {choice: [a, z]}}", "mood", {}),
    ("mask-json-path", '{category: user, mask: {json: {"$.a": {bucket: 5}}}}', "jsonb", {}),
    ("mask-fill", "{category: user, mask: {email: {nulls: fill}}}", "text[]", {}),
    ("template-reads-personal", '{category: user, mask: {template: "p-{id}"}}', "text", {}),
    ("column-missing", '{category: user, mask: {template: "p-{nothing}"}}', "text", {}),
]


@pytest.mark.parametrize(
    ("code", "rule", "kind", "changes"), REFUSALS, ids=[f"{code}-{kind}-{n}" for n, (code, _, kind, _) in enumerate(REFUSALS)]
)
def test_what_cannot_be_is_refused_with_its_reason(code: str, rule: str, kind: str, changes: dict[str, object]) -> None:
    """Each conflict is found before a row flows, names the column, and says what to do."""
    unique = changes.get("unique", ())
    schema, head = patient(rule, column("x", kind), unique=unique)  # type: ignore[arg-type]
    made = planned(schema, head=head, around=Surroundings(enums={"mood": ("a", "b")}))
    assert code in refused(made)
    found = next(refusal for refusal in made.refusals if refusal.code == code)
    assert found.column == "x" and found.table == "public.patient" and found.fact and found.todo.endswith((".", ")"))
    with pytest.raises(MaskingRefusedError) as caught:
        made.require()
    assert caught.value.refusals == made.refusals
    if not code.startswith(("template", "column")):
        assert code in codes(schema, head=head, around=Surroundings(enums={"mood": ("a", "b")})), "the map's own check says so too"


@pytest.mark.parametrize(
    ("rule", "unique"),
    [("{category: user, mask: null}", ("x",)), ("{category: user, mask: shuffle}", ("x",)), ("{category: user, mask: email}", ("x",)),
     ("{category: user, mask: first_name}", ("id", "x")), ("{category: user, mask: email}", ("clinic_id", "x"))],
)  # fmt: skip
def test_unique_indexes_that_hold_are_not_refused(rule: str, unique: tuple[str, ...]) -> None:
    """NULL throughout, a permutation of the column, values kept apart, or a key that is in the index anyway."""
    _, made = x_of(rule, "text", unique=unique)
    assert "mask-not-unique" not in refused(made)


def test_an_index_that_takes_one_null_only_counts() -> None:
    """NULLS NOT DISTINCT: NULL throughout would be refused at the second row, after hours; the plan refuses it before."""
    schema, head = patient("{category: user, mask: null}", column("x", "text"), unique=("x",))
    oid = schema.names["public.patient"]
    keys = tuple(replace(key, one_null=not key.primary) for key in schema.tables[oid].keys)
    schema.tables[oid] = replace(schema.tables[oid], keys=keys)
    assert "mask-not-unique" in refused(planned(schema, head=head))


def test_an_index_over_an_expression_counts() -> None:
    """A unique index on lower(x) holds no column by name; the columns that it reads are known."""
    schema, head = patient("{category: user, mask: first_name}", column("x", "text"), unique=(None,))  # type: ignore[arg-type]
    oid = schema.names["public.patient"]
    made = planned(schema, head=head, around=Surroundings(index_reads={oid: {"patient_x": ("x",)}}))
    assert "mask-not-unique" in refused(made)
    assert "mask-not-unique" not in refused(planned(schema, head=head))


def test_nobody_passes_unclassified() -> None:
    """An unknown table and an unknown column stop the run: nothing is copied because nobody spoke about it."""
    schema, _ = patient("user", column("x", "text"))
    assert refused(planned(schema)) == {"column-unclassified"}
    assert refused(planned(people().table("log", column("id"), column("who", "text")))) == {"table-unknown"}


def test_generated_columns_are_left_to_the_target() -> None:
    """They are neither selected nor masked, and a mask on one is an error of the map."""
    schema, head = patient("user.content", column("x", "text", generated="s"))
    assert "x" not in table(planned(schema, head=head), "patient").names
    _, head = patient("{category: user.content, mask: text}", column("x", "text", generated="s"))
    assert "mask-generated" in codes(schema, head=head)


def test_a_partition_key_is_not_masked() -> None:
    """Another value would belong into another partition; a key that divides the table stays and says why."""
    schema, head = patient("{category: user, mask: {generalise: year}}", column("x", "date"))
    oid = schema.names["public.patient"]
    assert "mask-partition-key" in refused(planned(schema, head=head, around=Surroundings(partition_keys={oid: ("x",)})))
    made = planned(people(), around=Surroundings(partition_keys={oid: ("id",)}))
    assert made.keys == () and "partitioned" in table(made, "patient").column("id").reason


def visits(link: str, *columns: object, rest: str = "") -> MaskPlan:
    schema = people().table("visit", column("id"), *columns)  # type: ignore[arg-type]
    if any(one.name == "patient_id" for one in columns):  # type: ignore[attr-defined]
        schema = schema.key("visit", "patient_id", "patient")
    return planned(schema, f"      public.visit:\n        links: [{link}]\n        not_personal: [id]\n        erase: unlink\n{rest}")


def test_whatever_names_a_key_follows_it() -> None:
    """A foreign key, a link without one, an array, a JSON path, a polymorphic pair; the child's own key is its own."""
    made = table(visits("{to: public.patient}", column("patient_id", "integer")), "visit")
    assert made.column("patient_id").key[0].domain == "public.patient.id" == made.column("patient_id").reason.split()[-1]
    assert made.column("id").key[0].domain == "public.visit.id"
    made = table(visits("{to: public.patient, columns: {who: id}}", column("who", "bigint")), "visit")
    assert made.column("who").transformer == "rekey"
    made = table(visits("{to: public.patient, array: who}", column("who", "integer[]")), "visit")
    assert made.column("who").kind.array and made.column("who").transformer == "rekey"
    made = table(
        visits("{to: public.patient, columns: {who: id}, when: {kind: P}}", column("who", "integer"), column("kind", "text")), "visit"
    )
    assert made.column("who").key[0].when == (("kind", "P"),) and made.column("who").reads == ("kind",)
    assert set(made.names[: made.leading]) == {"id", "who", "kind"}
    rest = "        columns: {data: user.behavior}\n"
    made = table(visits('{to: public.patient, json: data, path: "$.who"}', column("data", "jsonb"), rest=rest), "visit")
    assert made.column("data").keys_at[0].path == ("who",) and made.column("data").transformer == "json"


def test_counted_parts_of_a_composite_key_are_issued_anew() -> None:
    """(id, day) of a partitioned table: the counted number is; a position (order, line) is not, and a key without such a part says so."""
    schema = people().table(
        "payment", column("id", "bigint", default="nextval('payment_id_seq'::regclass)"), column("day", "date!"), column("patient_id")
    )
    rules = "      public.payment: {links: [{to: public.patient, columns: {patient_id: id}, erase: unlink}], not_personal: [id, day]}\n"
    oid = schema.names["public.payment"]
    schema.tables[oid] = replace(schema.tables[oid], keys=(Key("payment_pkey", True, ("id", "day"), None),))
    made = table(planned(schema, rules, around=Surroundings(partition_keys={oid: ("day",)})), "payment")
    assert made.column("id").transformer == "rekey" and made.column("day").transformer == "keep"
    schema.tables[oid] = replace(schema.tables[oid], keys=(Key("payment_pkey", True, ("patient_id", "day"), None),))
    made = table(planned(schema, rules), "payment")
    assert made.column("patient_id").transformer == "rekey" and not made.column("day").reason.startswith("the key stays")
    first = schema.tables[oid].columns[0]
    schema.tables[oid] = replace(
        schema.tables[oid],
        columns=(replace(first, default=None), *schema.tables[oid].columns[1:]),
        keys=(Key("k", True, ("id", "day"), None),),
    )
    assert table(planned(schema, rules), "payment").column("id").reason.startswith("the key stays")


def test_rekey_can_be_refused_and_widened_by_the_map() -> None:
    """rekey: false keeps a key and its followers; a key that names two tables in the same rows is refused."""
    made = planned(people(), head=HEAD.replace("        erase: delete", "        rekey: false\n        erase: delete"))
    assert made.keys == () and "rekey: false" in table(made, "patient").column("id").reason
    schema = people().table("other", column("id")).table("visit", column("id"), column("who", "integer"))
    rules = ("      public.other: {not_personal: [id], rekey: [id], links: [{to: public.patient, columns: {id: id}, erase: unlink}]}\n"
             "      public.visit:\n        links: [{to: public.patient, columns: {who: id}, erase: unlink}, {to: public.other, columns: {who: id}, erase: unlink}]\n"
             "        not_personal: [id]\n")  # fmt: skip
    assert "mask-key-conflict" in refused(planned(schema, rules))
    assert "mask-type" in codes(people(), head=HEAD.replace("        erase: delete", "        rekey: [email]\n        erase: delete"))


def test_a_key_takes_the_range_of_its_narrowest_follower() -> None:
    """Numbers of a bigint key stay small enough for the integer columns that name it."""
    schema = people()
    oid = schema.names["public.patient"]
    found = schema.tables[oid]
    schema.tables[oid] = replace(found, columns=(replace(found.columns[0], type="bigint", base_type="bigint"), *found.columns[1:]))
    made = planned(
        schema.table("visit", column("id"), column("who", "integer")),
        "      public.visit:\n        links: [{to: public.patient, columns: {who: id}, erase: unlink}]\n        not_personal: [id]\n",
    )
    assert next(domain for domain in made.keys if domain.name == "public.patient.id").kind.high == 2**31 - 1


def test_a_natural_key_is_masked_alike_on_both_sides() -> None:
    """An address that is a foreign key follows the address that it names; two different masks are refused."""
    schema = (
        people()
        .table("account", column("email", "text"))
        .table("mandate", column("id"), column("email", "text!"))
        .key("mandate", "email", "account")
    )
    rules = ("      public.account: {{columns: {{email: user.contact.email}}, links: [{{to: public.patient, columns: {{email: email}}, erase: unlink}}]}}\n"
             "      public.mandate: {{columns: {{email: {}}}, not_personal: [id], links: [{{to: public.account, erase: unlink}}]}}\n")  # fmt: skip
    made = planned(schema, rules.format("user.name.last"))
    one, two = table(made, "account").column("email"), table(made, "mandate").column("email")
    assert (one.transformer, one.identity) == (two.transformer, two.identity) == ("email", "email") and made.refusals == ()
    assert "mask-key-conflict" in refused(planned(schema, rules.format("{category: user, mask: text}")))


def test_one_identity_domain_has_one_width() -> None:
    """The narrowest of the columns that share a domain limits all, so that equal values stay equal."""
    schema, head = patient("user.contact.email", column("x", "character varying(30)"))
    made = table(planned(schema, head=head), "patient")
    assert made.column("email").limit == made.column("x").limit == 30


def test_a_person_is_found_in_the_row_or_the_value_decides() -> None:
    """By the person where the row has the key in one column, else by value, and the reason says so."""
    found, _ = x_of("user.name.last", "text")
    assert found.per is Per.PERSON and found.person and found.person.column == "id"
    made = visits(
        "{to: public.patient}", column("patient_id", "integer"), column("x", "text"), rest="        columns: {x: user.name.last}\n"
    )
    found = table(made, "visit").column("x")
    assert found.person and found.person.column == "patient_id" and found.identity == "person.patient"
    schema = people().table("visit", column("id"), column("a", "integer"), column("b", "integer"), column("x", "text"))
    rules = ("      public.visit:\n        links: [{to: public.patient, columns: {a: id}, erase: unlink}, {to: public.patient, columns: {b: id}, erase: unlink}]\n"
             "        columns: {x: user.name.last}\n        not_personal: [id]\n")  # fmt: skip
    found = table(planned(schema, rules), "visit").column("x")
    assert found.per is Per.VALUE and "by value" in found.reason


def test_every_column_says_why() -> None:
    """No column without a reason."""
    schema, head = patient("user.name.last", column("x", "text"))
    assert all(one.reason for each in planned(schema, head=head).tables.values() for one in each.columns)


SERVER = [
    ("{constant: a}", "text", "'a'::text"),
    ("redact", "text", "(CASE WHEN \"x\" IS NOT NULL THEN '[redacted]'::text END)::text"),
    ("{truncate: 2}", "text", 'left("x"::text, 2)'),
    ("{truncate: {length: 2, pad: '0'}}", "text", "rpad(left"),
    ("{bucket: 100}", "integer", "floor"),
    ("age_band", "date", "make_date"),
    ("partial", "text", "repeat('*'"),
    ("{generalise: month}", "date", "date_trunc('month'"),
    ("null", "text", "NULL"),
]


@pytest.mark.parametrize(("mask", "kind", "said"), SERVER, ids=[mask for mask, _, _ in SERVER])
def test_what_needs_no_key_runs_on_the_server(mask: str, kind: str, said: str) -> None:
    """The SELECT holds the expression, and the client never sees the value."""
    found, made = x_of(f"{{category: user, mask: {mask}}}", kind)
    assert found.place is Place.SERVER and found.expression is not None and said in found.expression.as_string(None)
    assert "x" not in table(made, "patient").names[: table(made, "patient").leading]


def test_the_reference_lists_every_transformer() -> None:
    """docs/reference/masking.md names each with its effect and class."""
    page = (ROOT / "docs/reference/masking.md").read_text(encoding="utf-8")
    for name, one in CATALOGUE.items():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{name}` |")), "")
        assert one.place.value in row and one.uniqueness.value.replace("_", " ") in row and one.effect.value in row, name
        assert all(f"`{option.name}`" in row for option in one.options), name


def test_the_catalogue_is_consistent() -> None:
    """What destroys needs no lasting key, what is keyed runs in the client, and a server's transformer has no person."""
    for one in CATALOGUE.values():
        assert (one.place is Place.CLIENT) == (one.per is not None or one.name == "tsvector"), one.name
        assert not (one.effect is Effect.DESTROYS and one.needs_key), one.name
        assert one.summary and one.families
