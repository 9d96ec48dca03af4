"""The single checks, each on the smallest schema that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from datamap_schemas import HEAD, Schema, codes, column, findings, load_map, people

from obhut.datamap.check import check, errors
from obhut.datamap.findings import Severity
from obhut.datamap.load import loads
from obhut.datamap.surroundings import Surroundings, View
from obhut.postgres.catalogue import Action

VISIT = "      public.visit:\n        links: [{to: public.patient, columns: {patient_id: id}}]\n"


def visits(*extra: object, on_delete: Action = Action.CASCADE, nullable: bool = False) -> Schema:
    """Return patients with visits."""
    kind = "integer" if nullable else "integer!"
    return people().table("visit", column("id"), column("patient_id", kind), *extra).key("visit", "patient_id", "patient", on_delete)  # type: ignore[arg-type]


def visit(rest: str, columns: str = "") -> str:
    """Return the rule of the visits."""
    head = VISIT + (f"        columns: {{{columns}}}\n" if columns else "")
    return head + f"        not_personal: [id]\n        {rest}\n"


def test_a_complete_map_has_no_findings() -> None:
    """The map that the other tests break is clean."""
    assert findings(people()) == []
    assert findings(visits(), visit("erase: delete")) == []


def test_every_column_is_classified() -> None:
    """A column that is nowhere in the map is an error that names it; one that a link explains is not."""
    found = findings(visits(column("note", "text")), visit("erase: delete"))
    assert [(finding.code, "public.visit.note" in finding.fact) for finding in found] == [("column-unclassified", True)]


def test_every_table_is_known() -> None:
    """A table that is not in the map is an error."""
    assert codes(people().table("log", column("id"))) == {"table-unknown"}


def test_partitions_and_extension_tables_are_not_asked_for() -> None:
    """Partitions follow their root, and an extension's tables are its own."""
    schema = people().table("spatial", column("id"), extension="postgis")
    assert codes(schema) == set()


def test_missing_names_are_found_with_their_line() -> None:
    """A wrong column name is reported at its own line."""
    loaded = load_map(visit("erase: delete").replace("[id]", "[id, nmae]"))
    located = loaded.locate(check(loaded, "d", visits().catalogue))
    assert [(item.finding.code, item.position.line) for item in located] == [("column-missing", HEAD.count("\n") + 3)]
    assert "public.visit has no column nmae" in str(located[0])


def test_personal_table_without_way_to_a_person() -> None:
    """Personal columns that no link leads to a person from would survive every erasure."""
    schema = people().table("note", column("id"), column("body", "text"))
    rule = "      public.note:\n        columns: {body: {category: user.content, anonymise: null}}\n        not_personal: [id]\n"
    assert codes(schema, rule) == {"table-unreachable"}


def test_unlinking_leads_no_further() -> None:
    """What hangs on a row that is only unlinked is not reached."""
    schema = (
        visits(nullable=True).table("finding", column("id"), column("visit_id"), column("text", "text")).key("finding", "visit_id", "visit")
    )
    tables = visit("erase: unlink") + (
        "      public.finding:\n        columns: {text: {category: user.content, anonymise: null}}\n        not_personal: [id]\n"
        "        links: [{to: public.visit, columns: {visit_id: id}, erase: delete}]\n"
    )
    assert "table-unreachable" in codes(schema, tables)


def test_link_without_treatment() -> None:
    """A link says what becomes of its rows, or its table does."""
    assert "treatment-missing" in codes(visits(), visit("note: nothing said"))


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ("text", "integer", "link-as-text"),
        ("boolean", "integer", "link-types"),
        ("uuid", "integer", "link-types"),
        ("bigint", "integer", None),
    ],
)
def test_types_of_a_link(mine: str, theirs: str, expected: str | None) -> None:
    """Columns that cannot hold the same values cannot be linked; a number kept as text only earns a warning."""
    schema = people().table("visit", column("id"), column("patient_id", mine))
    assert theirs == "integer"
    found = codes(schema, visit("erase: delete"))
    assert found == ({expected} if expected else set())


def test_array_and_json_links_need_their_types() -> None:
    """An array link needs an array of the key's type, a JSON link a json column."""
    schema = people().table("visit", column("id"), column("guests", "text[]"), column("data", "text"))
    rule = "      public.visit:\n        not_personal: [id, data]\n        links:\n"
    assert "link-types" in codes(schema, rule + "          - {to: public.patient, array: guests, erase: unlink}\n")
    tables = rule + "          - {to: public.patient, json: data, path: '$.who[*]', erase: unlink}\n"
    assert "link-types" in codes(schema, tables.replace("[id, data]", "[id, guests, data]"))


def test_unlink_needs_nullable_columns() -> None:
    """A link column that is NOT NULL cannot be unlinked."""
    assert "unlink-not-null" in codes(visits(on_delete=Action.NO_ACTION), visit("erase: unlink"))


def test_rows_that_would_forbid_a_deletion() -> None:
    """A RESTRICT child without a link blocks the erasure."""
    schema = visits(on_delete=Action.RESTRICT)
    rule = "      public.visit:\n        not_personal: [id, patient_id]\n"
    assert codes(schema, rule) == {"delete-blocked"}


def test_set_null_on_not_null() -> None:
    """ON DELETE SET NULL on a NOT NULL column fails when the parent goes."""
    rule = "      public.visit: {not_personal: [id, patient_id]}\n"
    assert "delete-set-null" in codes(visits(on_delete=Action.SET_NULL), rule)


@pytest.mark.parametrize("action", [Action.CASCADE, Action.SET_NULL, Action.RESTRICT, Action.NO_ACTION])
def test_keep_under_a_deleted_parent(action: Action) -> None:
    """A kept row whose parent goes is changed, deleted or blocks; every kind is an error."""
    keep = visit("erase: {keep: § 147 AO, for: P10Y}")
    assert "keep-under-delete" in codes(visits(on_delete=action, nullable=True), keep)


def test_anonymised_row_under_a_deleted_parent() -> None:
    """A row that stays cannot keep a NOT NULL key of a row that goes."""
    rule = visit("erase: anonymise", "note: {category: user.content, anonymise: null}")
    assert "anonymise-under-delete" in codes(visits(column("note", "text")), rule)
    assert "anonymise-under-delete" not in codes(visits(column("note", "text"), nullable=True), rule)


def test_keep_and_delete_of_one_table() -> None:
    """One table cannot keep rows by one link and delete them by another."""
    schema = people().table("mail", column("id"), column("sender", "integer"), column("recipient", "integer"))
    rule = (
        "      public.mail:\n        not_personal: [id]\n        links:\n"
        "          - {to: public.patient, columns: {sender: id}, erase: delete}\n"
        "          - {to: public.patient, columns: {recipient: id}, erase: {keep: law, for: P1Y}}\n"
    )
    assert "keep-and-delete" in codes(schema, rule)


def test_personal_column_without_rule_stays_readable() -> None:
    """Where a person can be anonymised every personal column needs a rule, or the rows go."""
    schema = visits(column("note", "text"))
    assert "anonymise-without-rule" in codes(schema, visit("erase: delete", "note: user.content"))
    assert codes(schema, visit("erase: delete\n        when_anonymised: delete", "note: user.content")) == set()


@pytest.mark.parametrize(
    ("type_", "rule", "expected"),
    [
        ("text!", "null", "anonymise-not-null"),
        ("text", "null", None),
        ("integer", "{constant: many}", "anonymise-value"),
        ("smallint", "{constant: 70000}", "anonymise-value"),
        ("integer", "{constant: 0}", None),
        ("character varying(5)", "{constant: anonymous}", "anonymise-value"),
        ("character varying(9)", "{constant: anonymous}", None),
        ("character varying(5)", "{template: 'erased-{id}'}", "anonymise-value"),
        ("character varying(40)", "{template: 'erased-{id}'}", None),
        ("text", "{template: 'erased-{email}'}", "column-missing"),
        ("mood", "{constant: furious}", "anonymise-value"),
        ("mood", "{constant: calm}", None),
        ("integer", "empty", "anonymise-type"),
        ("text", "{generalise: year}", "anonymise-type"),
        ("date", "{generalise: year}", None),
        ("text", "{truncate: 2}", None),
        ("integer", "{truncate: 2}", "anonymise-type"),
        ("integer", "{bucket: 100}", None),
        ("text", "age_band", "anonymise-type"),
        ("date", "age_band", None),
        ("character varying(5)", "redact", "anonymise-value"),
        ("text", "redact", None),
        ("text", "{json: ['$.name']}", "anonymise-type"),
        ("jsonb", "{json: ['$.name']}", None),
        ("uuid", "{constant: nobody}", "anonymise-value"),
        ("boolean", "{constant: perhaps}", "anonymise-value"),
        ("inet", "{constant: 0.0.0.0}", None),
    ],
)
def test_anonymised_values_fit_their_columns(type_: str, rule: str, expected: str | None) -> None:
    """What the database would refuse is found before it is tried."""
    schema = visits(column("x", type_), nullable=True)
    around = Surroundings(enums={"mood": ("calm", "angry")})
    found = codes(schema, visit("erase: anonymise", f"x: {{category: user.content, anonymise: {rule}}}"), around=around)
    assert found == ({expected} if expected else set())


def test_generated_and_key_columns_cannot_be_anonymised() -> None:
    """Generated columns, primary keys, referenced columns and partition keys keep their values."""
    generated = visits(column("x", "text", generated="s"), nullable=True)
    rule = visit("erase: anonymise", "x: {category: user.content, anonymise: null}")
    assert "anonymise-key" in codes(generated, rule)
    divided = visits(column("x", "text"), nullable=True)
    assert "anonymise-key" in codes(divided, rule, around=Surroundings(partition_keys={divided.names["public.visit"]: ("x",)}))
    primary = people().table("visit", column("x"), column("patient_id")).key("visit", "patient_id", "patient")
    assert "anonymise-key" in codes(primary, rule.replace("        not_personal: [id]\n", ""))


def test_one_value_for_everybody_breaks_a_unique_index() -> None:
    """A constant under a unique index is an error; a template with the key is none."""
    schema = (
        people()
        .table("visit", column("id"), column("patient_id"), column("code", "text"), unique=("code",))
        .key("visit", "patient_id", "patient")
    )
    constant = visit("erase: anonymise", "code: {category: user.unique_id, anonymise: {constant: gone}}")
    assert codes(schema, constant) == {"anonymise-not-unique"}
    assert codes(schema, constant.replace("{constant: gone}", "{template: 'gone-{id}'}")) == set()
    nulls = constant.replace("{constant: gone}", "null")
    assert codes(schema, nulls) == set()
    oid = schema.names["public.visit"]
    schema.tables[oid] = replace(schema.tables[oid], keys=tuple(replace(key, one_null=True) for key in schema.tables[oid].keys))
    assert codes(schema, nulls) == {"anonymise-not-unique"}, "an index NULLS NOT DISTINCT takes one NULL only"


def test_subject_key_must_not_identify() -> None:
    """The erasure list remembers keys, so an e-mail address is no key."""
    head = HEAD.replace("table: public.patient, c", "table: public.patient, key: [email], c")
    assert {"subject-key-identifies", "subject-key-not-unique"} <= codes(people(), head=head)


def test_incarnation() -> None:
    """An integer key needs an incarnation that stays; a uuid key or a stated reason earns a warning only."""
    without = HEAD.replace("incarnation: [created_at], ", "")
    assert [finding.severity for finding in findings(people(), head=without)] == [Severity.ERROR]
    reasoned = HEAD.replace("incarnation: [created_at]", "never_reused: numbers of the state")
    assert [finding.severity for finding in findings(people(), head=reasoned)] == [Severity.WARNING]
    assert "incarnation-changes" in codes(people(), head=HEAD.replace("[created_at], created", "[email], created"))


def test_identifiers_are_asked_for() -> None:
    """Without identifiers no leak check can look for anybody."""
    assert codes(people(), head=HEAD.replace(", identifiers: [email]", "")) == {"identifiers-missing"}


def test_categories() -> None:
    """Categories are those of the installed taxonomy, with the nearest named, and personal ones only."""
    found = findings(people(), head=HEAD.replace("user.contact.email", "user.contact.emial"))
    assert [finding.code for finding in found] == ["category-unknown"]
    assert "user.contact.email" in found[0].todo
    assert codes(people(), head=HEAD.replace("user.contact.email", "system.operations")) == {"category-not-personal"}


def test_personal_looking_names() -> None:
    """A telling name among the columns that are not personal is a warning."""
    schema = people().table("film", column("id"), column("phone_number", "text"))
    found = findings(schema, "      public.film: {personal: false}\n")
    assert [(finding.code, finding.severity) for finding in found] == [("column-looks-personal", Severity.WARNING)]


def test_surroundings_are_reported_and_stop_nothing() -> None:
    """Triggers, rules, policies, unlogged tables, large objects and views are for the reviewer."""
    schema = visits(column("scan", "oid"))
    oid = schema.names["public.visit"]
    schema.tables[oid] = replace(schema.tables[oid], row_security=True, persistence="u")
    around = Surroundings(
        triggers={oid: ("copy",)},
        rules={oid: ("twist",)},
        views={90: View("public.v", False, frozenset({oid})), 91: View("public.m", True, frozenset({90}))},
    )
    found = findings(schema, visit("erase: delete", "scan: {category: user.content, anonymise: null}"), around=around)
    assert errors(found) == []
    expected = {"table-triggers", "table-rules", "table-row-security", "table-unlogged", "table-large-objects", "view-personal"}
    assert {finding.code for finding in found} == expected
    assert sum(1 for finding in found if finding.code == "view-personal") == 2


def test_shared_parents_need_somebody_to_share_them() -> None:
    """delete_if_orphaned without any reference would never fire, and its columns need rules."""
    schema = people().table("address", column("id"), column("street", "text"))
    rule = "      public.address:\n        columns: {street: {category: user.contact.address.street, anonymise: null}}\n        not_personal: [id]\n        erase: delete_if_orphaned\n"
    assert "shared-unreferenced" in codes(schema, rule)


@pytest.mark.slow
def test_a_map_of_a_thousand_tables_is_clean() -> None:
    """A large schema is checked whole: no finding is lost or made up by its size."""
    schema, tables = people(), []
    for number in range(1000):
        schema.table(f"t{number}", column("id"), column("patient_id"), *(column(f"c{index}", "text") for index in range(8)))
        schema.key(f"t{number}", "patient_id", "patient", Action.CASCADE)
        rules = "".join(f"          c{index}: {{category: user.content, anonymise: null}}\n" for index in range(8))
        tables.append(
            f"      public.t{number}:\n        columns:\n{rules}        not_personal: [id]\n        links: [{{to: public.patient}}]\n        erase: delete\n"
        )
    loaded = loads(HEAD + "".join(tables))
    assert check(loaded, "d", schema.catalogue) == []


def test_activity_of_other_tables_needs_a_way_to_the_person() -> None:
    """A table whose rows count as activity exists, has the moment, and is linked; an expression is taken as it is."""
    dated, rule = visits(column("at", "date")), visit("erase: delete\n        when_anonymised: delete", "at: user.behavior")

    def found(activity: str, schema: Schema = dated, tables: str = rule) -> set[str]:
        return codes(schema, tables, head=HEAD.replace("identifiers: [email]", f"identifiers: [email], activity: [{activity}]"))

    assert found("{table: public.visit, column: at}") == set()
    assert found("{sql: now()}") == set()
    assert found("{table: public.visit, column: patient_id}") == {"moment-type"}
    assert found("{table: public.visit, column: came}") == {"column-missing"}
    assert found("{table: public.vist, column: at}") == {"table-missing"}
    loose = people().table("visit", column("id"), column("at", "date"))
    assert found("{table: public.visit, column: at}", loose, "      public.visit: {personal: false}\n") == {"activity-unlinked"}


def test_rows_that_go_by_themselves_need_a_moment_and_an_end() -> None:
    """Retain names a column with a moment, and anonymising changes something."""
    dated = visits(column("at", "date"), column("note", "text"))
    ruled = visit("erase: delete\n        when_anonymised: delete\n        retain: {%s}", "at: user.behavior, note: user.content")
    assert codes(dated, ruled % "for: P90D, after: at") == set()
    assert codes(dated, ruled % "for: P90D, after: patient_id") == {"retain-moment"}
    assert codes(dated, ruled % "for: P90D, after: came") == {"column-missing"}
    assert codes(dated, ruled % "for: P90D, after: at, then: anonymise") >= {"retain-nothing"}
