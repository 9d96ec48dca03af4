"""Drift without a server: differences of schemas, what they ask of the map, the stored snapshot, and other commits."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from datamap_schemas import HEAD, load_map
from hypothesis import given, settings
from hypothesis import strategies as st

from obhut.cli.main import main
from obhut.datamap.drift import snapshot
from obhut.datamap.drift.compare import Change, Kind, compare
from obhut.datamap.drift.review import Accepted, reclassified, review
from obhut.datamap.drift.state import ColumnState, SchemaState, TableState, of_map
from obhut.datamap.findings import Severity

TYPES = st.sampled_from(["integer", "text", "character varying(40)", "jsonb", "timestamp with time zone"])
NAMES = st.text(alphabet="abcdefg_", min_size=1, max_size=6)
PATHS = st.lists(st.sampled_from(["$.a", "$.b.c", "$.d[*].e"]), unique=True, max_size=2).map(lambda paths: tuple(sorted(paths)))
COLUMNS = st.builds(
    lambda type_, required, paths: ColumnState(type_, required, paths if type_ == "jsonb" else ()), TYPES, st.booleans(), PATHS
)
TABLES = st.dictionaries(NAMES, COLUMNS, min_size=1, max_size=6).map(TableState)
STATES = st.dictionaries(NAMES.map(lambda name: f"public.{name}"), TABLES, max_size=4).map(SchemaState)


def state(**tables: str) -> SchemaState:
    """Return a state: ``patient="id integer, email text, data jsonb $.a $.b"``."""
    made = {}
    for name, text in tables.items():
        columns = {}
        for part in text.split(", "):
            column, type_, *paths = part.split(" ")
            columns[column] = ColumnState(type_.replace("~", " "), False, tuple(paths))
        made[f"public.{name}"] = TableState(columns)
    return SchemaState(made)


BEFORE = "id integer, email text, plz text, phone text, born date"


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (state(a=BEFORE), state(a=BEFORE), []),
        (state(a=BEFORE), state(a=BEFORE + ", iban text"), [Change(Kind.COLUMN_NEW, "public.a", "iban", now="text")]),
        (state(a=BEFORE), state(a=BEFORE.replace(", plz text", "")), [Change(Kind.COLUMN_DROPPED, "public.a", "plz", was="text")]),
        (state(a=BEFORE), state(a=BEFORE.replace("plz", "zip")), [Change(Kind.COLUMN_RENAMED, "public.a", "zip", "plz", "text")]),
        (
            state(a=BEFORE),
            state(a=BEFORE.replace("born date", "born text")),
            [Change(Kind.COLUMN_RETYPED, "public.a", "born", "date", "text")],
        ),
        (
            state(a=BEFORE + ", one text"),
            state(a=BEFORE + ", two text"),  # dropped and added at the end: nothing says that it is the same
            [Change(Kind.COLUMN_DROPPED, "public.a", "one", was="text"), Change(Kind.COLUMN_NEW, "public.a", "two", now="text")],
        ),
        (
            state(a=BEFORE + ", mail text"),
            state(a=BEFORE + ", email2 text"),
            [Change(Kind.COLUMN_RENAMED, "public.a", "email2", "mail", "text")],
        ),
        (state(a=BEFORE), state(b=BEFORE), [Change(Kind.TABLE_RENAMED, "public.b", was="public.a")]),
        (state(a=BEFORE), state(a=BEFORE, b="id integer"), [Change(Kind.TABLE_NEW, "public.b")]),
        (state(a=BEFORE, b="id integer"), state(a=BEFORE), [Change(Kind.TABLE_DROPPED, "public.b", was="public.b")]),
        (
            state(a="id integer, data jsonb $.x"),
            state(a="id integer, data jsonb $.x $.y[*].z"),
            [Change(Kind.PATH_NEW, "public.a", "data", now="$.y[*].z")],
        ),
    ],
    ids=lambda value: "" if isinstance(value, SchemaState) else "+".join(change.kind for change in value) or "nothing",
)
def test_each_kind_of_change_is_told_apart(before: SchemaState, after: SchemaState, changes: list[Change]) -> None:
    """A renamed column is told from a dropped and a new one by its place, a renamed table by its columns."""
    assert compare(before, after) == changes


@settings(deadline=None, max_examples=30)
@given(STATES)
def test_a_schema_does_not_differ_from_itself(one: SchemaState) -> None:
    """Nothing is found where nothing changed, also through the stored form, which is the same text each time."""
    text = snapshot.written("d", one)
    assert snapshot.read(text, "d", "file") == one
    assert compare(one, snapshot.read(text, None, "file")) == []
    assert snapshot.written("d", snapshot.read(text, "d", "file")) == text


@settings(deadline=None, max_examples=40)
@given(STATES, STATES)
def test_no_change_is_overlooked_or_told_twice(before: SchemaState, after: SchemaState) -> None:
    """Whatever is in one state only is told exactly once, as new, gone or renamed."""
    changes = compare(before, after)
    assert len(changes) == len(set(changes))
    arrived = [change.table for change in changes if change.kind in {Kind.TABLE_NEW, Kind.TABLE_RENAMED}]
    left = [change.was for change in changes if change.kind in {Kind.TABLE_DROPPED, Kind.TABLE_RENAMED}]
    assert sorted(arrived) == sorted(set(after.tables) - set(before.tables))
    assert sorted(left) == sorted(set(before.tables) - set(after.tables))
    for name in set(before.tables) & set(after.tables):
        own = [change for change in changes if change.table == name]
        fresh = [change.column for change in own if change.kind in {Kind.COLUMN_NEW, Kind.COLUMN_RENAMED}]
        assert sorted(fresh) == sorted(set(after.tables[name].columns) - set(before.tables[name].columns))


MAP = """\
      public.visit:
        columns:
          notes: {category: user.content, anonymise: null}
          data: {category: user, anonymise: {json: ["$.name"]}}
          blob: {category: user, anonymise: empty}
        not_personal: [id, kind]
        links: [{to: public.patient, columns: {patient_id: id}}]
        erase: delete
"""
OLD = "id integer, kind text, notes text, patient_id integer, data jsonb $.name, blob jsonb $.x"


def verdicts(after: str, accepted: SchemaState | None = None, text: str = MAP) -> list[tuple[str, str, str]]:
    """Return code, severity and what to do for each change of the table of visits."""
    rules = load_map(text).database("d")
    new = state(visit=after)
    found = review("d", compare(state(visit=OLD), new), Accepted(rules, accepted), new, None)
    return [(finding.code, str(finding.severity), finding.todo) for finding in found]


def test_a_new_column_comes_with_its_line() -> None:
    """What is not classified is an error with the line to add; what is classified is a remark."""
    assert verdicts(f"{OLD}, email text") == [
        (
            "drift-column-new",
            "error",
            "Add under columns: email: {category: user.contact.email, anonymise: null}; or add it to not_personal.",
        )
    ]
    assert verdicts(f"{OLD}, created_at timestamp~with~time~zone")[0][2].startswith("Add created_at to not_personal")
    assert verdicts(f"{OLD}, email text", text=MAP.replace("[id, kind]", "[id, kind, email]"))[0][1] == "info"


def test_gone_and_renamed_columns_ask_for_the_map() -> None:
    """A name that the map still has is an error until it is removed or renamed there."""
    assert verdicts(OLD.replace("kind text, ", ""))[0][:2] == ("drift-column-dropped", "error")
    assert verdicts(OLD.replace("kind text, ", ""), text=MAP.replace("[id, kind]", "[id]"))[0][1] == "info"
    renamed = OLD.replace("notes text", "remarks text")
    assert verdicts(renamed)[0] == (
        "drift-column-renamed",
        "error",
        "Write remarks instead of notes, also in links, templates and subjects.",
    )
    assert verdicts(renamed, text=MAP.replace("notes:", "remarks:"))[0][1] == "info"


def test_another_kind_of_values_has_to_be_accepted() -> None:
    """A longer text is nothing, a text that became a document is an error until the stored snapshot has it."""
    assert verdicts(OLD.replace("kind text", "kind character~varying(9)"))[0][1] == "info"
    changed = OLD.replace("kind text", "kind jsonb")
    assert verdicts(changed)[0][:2] == ("drift-column-retyped", "error")
    assert verdicts(changed, state(visit=changed))[0][1] == "warning"


def test_a_new_path_is_an_error_unless_something_covers_it() -> None:
    """A path beside a json rule is an error; one below a named path, in a document that goes as a whole, or in the snapshot is not."""
    beside = OLD.replace("$.name", "$.name $.phone")
    assert verdicts(beside)[0][:2] == ("drift-json-path-new", "error")
    assert '"$.phone" to the json rule of data' in verdicts(beside)[0][2]
    assert verdicts(beside, state(visit=beside))[0][1] == "info"
    assert verdicts(OLD.replace("$.name", "$.name $.name.first"))[0][1] == "info"
    assert verdicts(OLD.replace("$.x", "$.x $.y"))[0][1] == "info"


def test_a_new_table_comes_with_its_entry() -> None:
    """The entry proposed for a new table classifies all of its columns or says which need a decision."""
    new = SchemaState({**state(visit=OLD).tables, **state(guest="id integer, email text, wert text").tables})
    rules = load_map(MAP).database("d")
    found = review("d", compare(state(visit=OLD), new), Accepted(rules), new, None)
    (finding,) = found
    assert finding.severity is Severity.ERROR
    assert finding.todo.startswith(
        "Add under tables: public.guest: {columns: {email: {category: user.contact.email, anonymise: null}}, not_personal: [id], links"
    )
    assert "decide about wert" in finding.todo


def test_a_map_that_says_less_is_named() -> None:
    """A personal column that is not any more, and rows that stay where they were deleted, are for the reviewer."""
    old = load_map(MAP).database("d")
    less = MAP.replace("          notes: {category: user.content, anonymise: null}\n", "").replace("[id, kind]", "[id, kind, notes]")
    new = load_map(less.replace("erase: delete", "erase: anonymise")).database("d")
    assert [finding.code for finding in reclassified("d", old, new)] == ["drift-reclassified", "drift-erasure"]
    kept = load_map(
        MAP.replace("blob: {category: user, anonymise: empty}", "blob: {category: user, anonymise: empty, mask: {keep: x}}")
    ).database("d")
    assert [finding.code for finding in reclassified("d", old, kept)] == ["drift-mask"]
    assert reclassified("d", old, old) == []


def test_a_map_alone_is_compared_by_names() -> None:
    """Without types a renamed column is known by its name only, and tables whose columns are not listed say nothing of them."""
    before = of_map(load_map(MAP).database("d"))
    assert not before.typed
    after = of_map(load_map(MAP.replace("notes:", "note:")).database("d"))
    assert compare(before, after) == [Change(Kind.COLUMN_RENAMED, "public.visit", "note", "notes")]
    star = of_map(load_map(MAP.replace("[id, kind]", '"*"')).database("d"))
    assert star.tables["public.visit"].partial
    assert not [change for change in compare(star, state(visit=OLD + ", x text")) if change.column == "x"]


def test_paths_are_remembered() -> None:
    """A snapshot of a database without rows forgets no path, but one of a column that is another now."""
    stored, fresh = state(a="id integer, data jsonb $.x, other jsonb $.y"), state(a="id integer, data jsonb, other text")
    found = snapshot.remembered(fresh, stored).tables["public.a"].columns
    assert (found["data"].paths, found["other"].paths) == (("$.x",), ())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"obhut-snapshot": 2, "tables": {}}', '{"obhut-snapshot": 1, "tables": {"a": {"b": 1}}}']
)
def test_another_file_is_no_snapshot(text: str) -> None:
    """What is no snapshot is refused by its name, also one of another database."""
    with pytest.raises(snapshot.SnapshotError, match=r"^file "):
        snapshot.read(text, None, "file")
    with pytest.raises(snapshot.SnapshotError, match="another database"):
        snapshot.read(snapshot.written("e", SchemaState()), "d", "file")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Give a git repository with a map and a snapshot on main."""
    (tmp_path / "datamap.yaml").write_text(HEAD + MAP, encoding="utf-8")
    known = state(clinic="id integer", patient="id integer, clinic_id integer, email text, created_at date", visit=OLD)
    (tmp_path / "d.snapshot.json").write_text(snapshot.written("d", known), encoding="utf-8")
    for words in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    return tmp_path


def run(checkout: Path, capfd: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, object]]:
    """Check offline against main and return status and document."""
    capfd.readouterr()
    status = main(["--json", "datamap", "check", "--map", str(checkout / "datamap.yaml"), "--against", "main", "--offline", *more])
    return status, json.loads(capfd.readouterr().out or "{}")


def test_offline_against_main(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a database the stored snapshots of both commits tell: nothing first, then an error with file and line, then an answer."""
    status, document = run(checkout, capfd)
    assert (status, document["findings"]) == (0, [])
    path, file = checkout / "d.snapshot.json", checkout / "datamap.yaml"
    known = snapshot.read(path.read_text(encoding="utf-8"), "d", "d")
    table = known.tables["public.visit"]
    columns = {**table.columns, "iban": ColumnState("text")}
    path.write_text(snapshot.written("d", SchemaState({**known.tables, "public.visit": replace(table, columns=columns)})), encoding="utf-8")
    status, document = run(checkout, capfd)
    (finding,) = document["findings"]  # type: ignore[misc]
    assert (status, finding["code"], finding["file"]) == (5, "drift-column-new", str(file))
    assert "public.visit:" in file.read_text(encoding="utf-8").splitlines()[finding["line"] - 1]
    assert "user.financial.bank_account" in finding["todo"]
    file.write_text(file.read_text(encoding="utf-8").replace("[id, kind]", "[id, kind, iban]"), encoding="utf-8")
    status, document = run(checkout, capfd)
    assert (status, document["counts"]) == (0, {"error": 0, "warning": 0, "info": 1})


@pytest.mark.parametrize("reference", ["nobody", "--output=x", "main:datamap.yaml", ""])
def test_a_commit_that_is_not_here_is_named(checkout: Path, capfd: pytest.CaptureFixture[str], reference: str) -> None:
    """An unknown commit is no empty one: status 2 and a hint about shallow checkouts; a reference is never an option of git."""
    words = ["datamap", "check", "--map", str(checkout / "datamap.yaml"), f"--against={reference}", "--offline"]
    assert main(words) == 2
    assert "fetch the branch" in " ".join(capfd.readouterr().err.split())
    assert sorted(path.name for path in checkout.iterdir()) == [".git", "d.snapshot.json", "datamap.yaml"]


def test_a_file_that_main_does_not_have(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A map that is new has nothing to be compared with, and says so."""
    new = checkout / "new.yaml"
    new.write_text(HEAD + MAP, encoding="utf-8")
    (checkout / "d.snapshot.json").rename(checkout / "other.snapshot.json")
    capfd.readouterr()
    assert (
        main(["--json", "datamap", "check", "--map", str(new), "--against", "main", "--offline", "--snapshot", str(checkout / "x.json")])
        == 0
    )
    assert [finding["code"] for finding in json.loads(capfd.readouterr().out)["findings"]] == ["drift-nothing"]


def test_a_thousand_renamed_tables_are_told_apart() -> None:
    """Each of a thousand tables alike is paired with itself under its new name or schema, whatever the others are."""
    columns = {f"c{n}": ColumnState("text") for n in range(15)}
    many = SchemaState({f"public.t{n}": TableState(columns) for n in range(1000)})
    other = SchemaState({f"{'app' if n % 40 else 'public'}.{'t' if n % 40 else 'u'}{n}": TableState(columns) for n in range(1000)})
    changes = compare(many, other)
    assert {change.kind for change in changes} == {Kind.TABLE_RENAMED}
    assert len(changes) == 1000
    moved = [change for change in changes if change.table.startswith("app.")]
    assert all(change.was.removeprefix("public.") == change.table.removeprefix("app.") for change in moved)
    assert len(moved) == 975
