"""A whole restore on real servers, from sealed backups to the certificate."""

from __future__ import annotations

import json
import re

import pytest

from obhut.erasure.addresses import RowAddresses
from obhut.erasure.effects import Seed
from obhut.erasure.entries import Action as ErasureAction
from obhut.erasure.erase import Eraser
from obhut.erasure.plan import Cohort
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.foundation.errors import ObhutError
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.postgres.connections import Session
from obhut.postgres.errors import UnreachableError
from obhut.promises import examine
from obhut.promises.model import State
from obhut.restores import late, opening, run, side, store
from obhut.restores import verify as verification
from obhut.restores.errors import NotProvedError, QuarantineError, RestoreStateError, SchemaLeakError, TargetNotEmptyError
from obhut.restores.plan import parse_target

ACTOR = Actor(Role.OPERATOR, "acc-7")
CLOCK = SystemClock()


def restore(story, to: str, **more) -> run.Outcome:
    """Restore up to the certificate."""
    return run.begin(story.settings, run.Request("courses", parse_target(to), **more), ACTOR, CLOCK)


def test_restore_leaves_out_the_erased_and_keeps_all_others(story) -> None:
    """A restore to before an erasure holds every row but the erased person's, the anonymised one anonymised again, with a proof."""
    outcome = restore(story, story.lsn)
    assert outcome.state is RunState.PARTIAL
    assert outcome.holds
    content = json.loads(outcome.certificate.read_text())["certificate"]
    failed = [s for s in content["statements"] if s["result"] != "passed"]
    assert [s["name"] for s in failed] == ["index-structure"]
    passed = {s["name"] for s in content["statements"] if s["result"] == "passed"}
    assert {"absence", "bystanders", "figures", "canaries", "bytes", "page-checksums", "schema-text", "sequences"} <= passed
    searched = next(s["numbers"] for s in content["statements"] if s["name"] == "bytes")
    # An e-mail address each: two people, the canary, and two who only lose the key of one of them, whose own are not searched for.
    assert 0 < searched["searched"] < searched["identifiers"] == 5
    tables = {f"{t['schema']}.{t['name']}": t for t in content["tables"]}
    assert tables["public.booking"]["source"] == story.before["booking"]
    assert tables["public.person"]["source"] - tables["public.person"]["deleted"] == tables["public.person"]["target"]

    done = opening.open_database(story.settings, outcome.run, ACTOR, CLOCK)
    assert runs.get(outcome.run).state is RunState.DONE
    with Session.connect(done.url) as session:
        assert session.value("SELECT count(*) FROM person WHERE id = 7") == 0
        assert session.value("SELECT count(*) FROM booking WHERE person_id = 7") == 0
        assert session.value("SELECT count(*) FROM event WHERE person_id = 7") == 0
        assert session.row("SELECT email, name, extra FROM person WHERE id = 8") == ("x@anonym.invalid", None, None)
        assert session.value("SELECT boss FROM person WHERE id = 20") is None
        assert session.value("SELECT count(*) FROM team WHERE 7 = ANY(members)") == 0
        assert session.value("SELECT shown FROM person WHERE id = 9") == "VORNAME9"
        assert session.value("SELECT count(*) FROM names") == 2
        assert (
            session.value("SELECT count(*) FROM booking WHERE title LIKE 'später%'") == 26
        )  # 30, two of the erased person, two titles gone
        assert session.value("SELECT value::text FROM setting") == '{"x":  1}'
        assert session.value("SELECT has_table_privilege('app user', 'person', 'SELECT')")
        assert session.value("SELECT count(*) FROM pg_trigger WHERE tgname = 'no_touch'") == 1
        assert session.value("SELECT nextval('person_id_seq')") > 301
        assert session.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'obhut_restore'") == 0
        assert session.value("SELECT what::text FROM watched") == "booking"  # by name: oids are others here
        assert session.value("SHOW fsync") == "on"
    for _ in range(2):  # a second time there is nothing to do
        opening.stop(story.settings, outcome.run)
    with pytest.raises(UnreachableError):
        Session.connect(done.url)
    for _ in range(2):
        assert opening.start(story.settings, outcome.run) == done.url
    found = verification.verify(outcome.certificate, key=None, settings=story.settings, url=done.url)
    assert found.passed, [finding for finding in found.findings if finding.result != "passed"]
    with Session.connect(done.url) as session:
        session.execute("UPDATE booking SET price = price + 1 WHERE id = 5")
    changed = verification.verify(outcome.certificate, key=None, settings=story.settings, url=done.url)
    assert [finding.where for finding in changed.failed] == ["public.booking"]
    assert not (story.settings.state.directory / "restores" / outcome.run / "quarantine").exists()


def test_target_by_time_equals_target_by_position(story) -> None:
    """A moment leads to the same rows as the position of that moment."""
    outcome = restore(story, story.moment.isoformat())
    for early in (opening.start, opening.stop):  # nobody gets in before it is opened
        with pytest.raises(RestoreStateError):
            early(story.settings, outcome.run)
    content = json.loads(outcome.certificate.read_text())["certificate"]
    assert {t["name"]: t["source"] for t in content["tables"]}["booking"] == story.before["booking"]
    run.abandon(story.settings, outcome.run, CLOCK)
    assert not (story.settings.state.directory / "restores" / outcome.run).exists()


def test_latest_and_named_points(story) -> None:
    """The last commit and a named restore point can be restored to; nothing erased in production is missing a second time."""
    latest = restore(story, "latest")
    content = json.loads(latest.certificate.read_text())["certificate"]
    assert {t["name"]: t["source"] for t in content["tables"]}["booking"] > story.before["booking"] - 20
    assert content["point"]["asked"] == "latest"
    run.abandon(story.settings, latest.run, CLOCK)
    named = restore(story, "name:before_erasure")
    content = json.loads(named.certificate.read_text())["certificate"]
    assert {t["name"]: t["source"] for t in content["tables"]}["booking"] == story.before["booking"]
    run.abandon(story.settings, named.run, CLOCK)


def test_unreachable_targets_are_refused(story) -> None:
    """A point after the last commit, before the first backup, or behind the WAL is refused before anything is opened."""
    for to in ("2099-01-01T00:00:00Z", "FF/0", "2001-01-01T00:00:00Z"):
        with pytest.raises(ObhutError) as refused:
            restore(story, to)
        assert refused.value.code in {"restore-target-invalid", "restore-refused", "backup-none"}


def test_a_point_inside_a_change_of_the_schema_is_refused(story) -> None:
    """A table that was locked at the point could never be read there: that is said at once, instead of waiting for ever."""
    with Session.connect(story.url) as changing, Session.connect(story.url) as other:
        changing.execute("BEGIN")
        changing.execute("LOCK TABLE setting IN ACCESS EXCLUSIVE MODE")
        other.value("SELECT pg_logical_emit_message(true, 'test', 'meanwhile')")
        inside = str(other.value("SELECT pg_current_wal_insert_lsn()"))
        other.value("SELECT pg_logical_emit_message(true, 'test', 'still')")
        changing.execute("ROLLBACK")
        other.value("SELECT pg_logical_emit_message(true, 'test', 'after')")
    with pytest.raises(QuarantineError, match="locks a table"):
        restore(story, inside)
    run.abandon(story.settings, runs.list_runs(kind=RunKind.RESTORE)[0].id, CLOCK)


def test_an_erasure_during_the_restore_is_carried_in_before_opening(story) -> None:
    """Somebody erased between the proof and the opening is taken out and the proof made anew; the database opens without the person."""
    outcome = restore(story, story.lsn)
    with Eraser(story.settings, "courses") as eraser:
        eraser.erase("participant", [["33"]], ErasureAction.ERASE, ACTOR, CLOCK)
    done = opening.open_database(story.settings, outcome.run, ACTOR, CLOCK)
    with Session.connect(done.url) as session:
        assert session.value("SELECT count(*) FROM person WHERE id IN (7, 33)") == 0
        assert session.value("SELECT count(*) FROM booking WHERE person_id IN (7, 33)") == 0
    kept = store.find(outcome.run)
    assert kept.holds
    assert kept.document["certificate"]["erasure_list"]["people_left_out"] >= 3


def test_a_schema_that_names_the_person_is_refused_and_can_be_left_out(story) -> None:
    """A partial index with an erased person's address stops the restore and is named, never quoted; left out, the restore passes."""
    with Session.connect(story.url) as session:
        session.execute("INSERT INTO person (id, org_id, email) OVERRIDING SYSTEM VALUE VALUES (900, 1, 'undicht.wilhelmine@example.org')")
        session.execute("CREATE INDEX leak ON person (id) WHERE email = 'undicht.wilhelmine@example.org'")
        session.execute("COMMENT ON TABLE setting IS 'ask undicht.wilhelmine@example.org'")
        lsn = session.value("SELECT pg_current_wal_insert_lsn()::text")
    with Eraser(story.settings, "courses") as eraser:
        eraser.erase("participant", [["900"]], ErasureAction.ERASE, ACTOR, CLOCK)
    story.flush()
    with pytest.raises(SchemaLeakError) as refused:
        restore(story, lsn)
    assert "leak" in str(refused.value)
    assert "wilhelmine" not in str(refused.value)
    failed = runs.list_runs(kind="restore", limit=1)[0]
    run.abandon(story.settings, failed.id, CLOCK)
    outcome = restore(story, lsn, left_out=("INDEX public.leak",))
    content = json.loads(outcome.certificate.read_text())["certificate"]
    assert content["left_out"] == ["COMMENT public.TABLE setting", "INDEX public.leak"]
    assert "wilhelmine" not in outcome.certificate.read_text()
    run.abandon(story.settings, outcome.run, CLOCK)
    with Session.connect(story.url) as session:
        session.execute("DROP INDEX leak; COMMENT ON TABLE setting IS NULL")


def test_a_name_that_holds_an_identifier_is_said_nowhere(story) -> None:
    """An index named after an erased person is called by its kind and a digest: in the refusal, the journal and the certificate."""
    named = "ix undicht.berta@example.org"
    with Session.connect(story.url) as session:
        session.execute("INSERT INTO person (id, org_id, email) OVERRIDING SYSTEM VALUE VALUES (901, 1, 'undicht.berta@example.org')")
        session.execute(f'CREATE INDEX "{named}" ON person (id); COMMENT ON INDEX "{named}" IS \'of undicht.berta@example.org\'')
        lsn = session.value("SELECT pg_current_wal_insert_lsn()::text")
        session.value("SELECT pg_logical_emit_message(true, 'test', 'x')")  # recovery stops behind this, and not within what follows
        session.execute(
            "CREATE TABLE \"event_undicht.berta@example.org\" PARTITION OF event FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')"
        )
        later = session.value("SELECT pg_current_wal_insert_lsn()::text")
        session.value("SELECT pg_logical_emit_message(true, 'test', 'x')")
    with Eraser(story.settings, "courses") as eraser:
        eraser.erase("participant", [["901"]], ErasureAction.ERASE, ACTOR, CLOCK)
    story.flush()
    with pytest.raises(SchemaLeakError) as refused:
        restore(story, lsn)
    opaque = re.search(r"--leave-out \"(INDEX #[0-9a-f]{16})\"", str(refused.value))
    assert opaque and "berta" not in str(refused.value)
    run.abandon(story.settings, runs.list_runs(kind="restore", limit=1)[0].id, CLOCK)
    for given in (opaque[1], f"INDEX public.{named}"):
        outcome = restore(story, lsn, left_out=(given,))
        content = outcome.certificate.read_text()
        assert opaque[1] in json.loads(content)["certificate"]["left_out"]
        assert "berta" not in content + outcome.page.read_text()
        assert "berta" not in json.dumps(runs.get(outcome.run).parameters) + json.dumps(
            [step.facts for step in runs.list_steps(outcome.run)]
        )
        with Session.connect(opening.url_of(story.settings, outcome.run)) as session:
            assert session.value("SELECT count(*) FROM pg_class WHERE relname LIKE '%%berta%%'") == 0
        run.abandon(story.settings, outcome.run, CLOCK)
    with pytest.raises(SchemaLeakError) as refused:
        restore(story, later, left_out=(opaque[1],))
    assert "berta" not in str(refused.value)
    run.abandon(story.settings, runs.list_runs(kind="restore", limit=1)[0].id, CLOCK)
    with Session.connect(story.url) as session:
        session.execute(f'DROP INDEX "{named}"; DROP TABLE "event_undicht.berta@example.org"')


def test_side_schema_of_one_controller(story) -> None:
    """One controller's rows come into a side schema, the erased person not among them, and the certificate holds."""
    request = side.SideRequest("courses", parse_target(story.lsn), schema="back", controller=("2",))
    outcome = side.begin(story.settings, request, ACTOR, CLOCK)
    with Session.connect(story.url) as session:
        assert session.value("SELECT count(*) FROM back.person WHERE org_id = 1") == 0
        assert session.value("SELECT count(*) FROM back.person WHERE id = 7") == 0
        assert session.value("SELECT count(*) FROM back.person") > 100
        people = session.value("SELECT count(*) FROM back.booking b WHERE NOT EXISTS (SELECT FROM back.person p WHERE p.id = b.person_id)")
        assert people == 0
        session.execute("DROP SCHEMA back CASCADE")
    assert outcome.holds


def test_side_schema_of_one_person_journals_no_key(story) -> None:
    """One person's rows come into a side schema; the journal does not hold the key; an erased person is not restored."""
    request = side.SideRequest("courses", parse_target(story.lsn), schema="one", subject_kind="participant", subject=("20",))
    outcome = side.begin(story.settings, request, ACTOR, CLOCK)
    assert '"20"' not in json.dumps(runs.get(outcome.run).parameters)
    with Session.connect(story.url) as session:
        assert session.rows("SELECT id FROM one.person") == [(20,)]
        assert session.value("SELECT count(*) FROM one.booking WHERE person_id <> 20") == 0
        session.execute("DROP SCHEMA one CASCADE")


def test_restore_into_a_given_empty_database(story, monkeypatch) -> None:
    """An empty database of a given server is filled while nobody else may connect, and opened after the proof to those who could before."""
    door = "SELECT datconnlimit, has_database_privilege('app user', oid, 'CONNECT') FROM pg_database WHERE datname = 'given'"
    with Session.connect(story.vendor.url()) as session:
        session.execute("CREATE DATABASE given TEMPLATE template0 CONNECTION LIMIT 17")
        session.execute("REVOKE CONNECT ON DATABASE given FROM PUBLIC")
    url = story.vendor.url("given")
    outcome = restore(story, story.lsn, target=url)
    with Session.connect(story.vendor.url()) as session:
        assert session.row(door) == (0, False)
    from obhut.backups import models  # not before Django is ready

    models.SequenceMark.objects.update_or_create(
        database="courses",
        schema="public",
        name="person_id_seq",
        defaults={"id": "mark-person", "increment": 1, "value": 5_000, "seen_at": CLOCK.now()},
    )
    with monkeypatch.context() as killed:
        killed.setattr(opening, "_forget_load", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            opening.open_database(story.settings, outcome.run, ACTOR, CLOCK)
    with Session.connect(url) as session:
        assert session.value("SELECT count(*) FROM obhut_restore.done") > 0
    with pytest.raises(RestoreStateError):
        run.resume(story.settings, outcome.run, ACTOR, CLOCK)
    opening.open_database(story.settings, outcome.run, ACTOR, CLOCK)
    assert runs.get(outcome.run).state is RunState.DONE
    with Session.connect(story.vendor.url()) as session:
        assert session.row(door) == (17, False)
    with Session.connect(url) as session:
        assert session.value("SELECT count(*) FROM person WHERE id = 7") == 0
        assert session.value("SELECT nextval('person_id_seq')") == 5_001  # seen in production after the proof
        assert session.value("SELECT to_regnamespace('obhut_restore') IS NULL")
    with pytest.raises(TargetNotEmptyError):
        restore(story, story.lsn, target=url)
    with Session.connect(story.vendor.url()) as session:
        session.execute("DROP DATABASE given")


def test_a_restore_without_its_positive_control_is_unproven(story) -> None:
    """The promise counts an opened restore as proved only if its certificate says that a canary was found before and not after."""
    done = next(found for found in runs.list_runs(kind="restore", limit=100) if found.state is RunState.DONE)
    assert [seen.state for seen in examine.restores(story.settings, CLOCK)] == [State.KEPT]
    from obhut.restores import models  # not before Django is ready

    row = models.Certificate.objects.get(run=done.id)
    for statement in row.document["certificate"]["statements"]:
        if statement["name"] == "canaries":
            statement["result"] = "unchecked"
    row.save()
    assert [seen.state for seen in examine.restores(story.settings, CLOCK)] == [State.UNPROVEN]


def _interrupt(*_arguments) -> None:
    raise KeyboardInterrupt


def test_a_row_left_behind_fails_the_proof(story, monkeypatch) -> None:
    """A row that slips through after the load makes the proof fail and keeps the database closed."""
    truly = late.carry_out

    def with_a_row(target, *arguments, **options):
        target.execute("INSERT INTO team VALUES (99, '{7}')")
        target.execute("UPDATE booking SET title = 'not anonymised' WHERE id = (SELECT min(id) FROM booking WHERE person_id = 8)")
        return truly(target, *arguments, **options)

    monkeypatch.setattr(late, "carry_out", with_a_row)
    with pytest.raises(NotProvedError) as failed:
        restore(story, story.lsn)
    assert "figures" in str(failed.value)
    tampered = runs.list_runs(kind="restore", limit=1)[0]
    assert tampered.state is RunState.FAILED
    statements = {s["name"]: s for s in store.find(tampered.id).document["certificate"]["statements"]}
    assert set(statements["absence"]["places"]) == {"public.team", "public.booking"}
    with pytest.raises(NotProvedError):
        opening.open_database(story.settings, tampered.id, ACTOR, CLOCK)
    run.abandon(story.settings, tampered.id, CLOCK)


def test_an_innocent_person_left_out_fails_the_proof(story, monkeypatch) -> None:
    """A filter that takes one person too many, with everything that is theirs, balances in its figures and fails the proof all the same."""
    true_resolve = run.resolve

    def with_an_innocent(source, graph, seeds):
        ((oid, address),) = source.addresses("SELECT tableoid, ctid FROM person WHERE id = 55")
        rows = {oid: RowAddresses.from_tids([address])}
        return true_resolve(source, graph, [*seeds, Seed(Cohort(ErasureAction.ERASE), graph.subject("participant"), rows)])

    monkeypatch.setattr(run, "resolve", with_an_innocent)
    with pytest.raises(NotProvedError) as failed:
        restore(story, story.lsn)
    assert "bystanders (public.person)" in str(failed.value)
    tampered = runs.list_runs(kind="restore", limit=1)[0]
    statements = store.find(tampered.id).document["certificate"]["statements"]
    assert [s["name"] for s in statements if s["result"] == "failed"] == ["bystanders"]
    assert {s["name"]: s for s in statements}["bystanders"]["numbers"]["unexplained"] == 1
    run.abandon(story.settings, tampered.id, CLOCK)
