"""Every change of personal data is in the right controller's log, whoever made it: an application, psql, a job; also while the schema changes."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from support.audit import SERVER, Logs, Read, logs_of
from support.clinic import installed_clinic
from support.commands import SOURCE
from support.installation import Installation, programs

from obhut.auditlog.entries import Sealed
from obhut.client import acting, say
from obhut.foundation.settings import load
from obhut.keystore.errors import KeyDestroyedError, KeyTableRolledBackError
from obhut.keystore.sealing import Key
from obhut.keystore.subjects import Keyring
from obhut.postgres.connections import Session

pytestmark = [pytest.mark.journey, pytest.mark.postgres]
LEFT = """
SELECT (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE nspname = 'obhut'), (SELECT count(*) FROM pg_replication_slots),
  (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_event_trigger), (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'obhut%')
"""  # what capture has left in a database
STRANGER = Path(__file__).parents[1] / "stranger" / "audit_bundle.pl"
UNTIL = ("audit", "start", "--until-caught-up")

# A Django application with the middleware: autocommit, a block, a savepoint that is rolled back, and two people after one another.
DJANGO = """
import sys, django
from django.conf import settings
host, name = sys.argv[1:]
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": host, "PORT": "5432", "NAME": name, "USER": "obhut"}},
                   ALLOWED_HOSTS=["*"], USE_TZ=True)
django.setup()
from django.db import connection, transaction
from django.test import RequestFactory
from obhut.client.django import AuditContextMiddleware
class Account:
    is_authenticated = True
    def __init__(self, pk): self.pk = pk
def sql(text):
    with connection.cursor() as cursor: cursor.execute(text)
def view(request):
    sql("UPDATE patient SET first_name = 'auto' WHERE id = 6")
    with transaction.atomic():
        try:
            with transaction.atomic():
                sql("UPDATE patient SET first_name = 'undone' WHERE id = 6")
                raise RuntimeError
        except RuntimeError:
            pass
        sql("UPDATE patient SET first_name = 'block' WHERE id = 6")
    return None
for pk in (1, 2):
    request = RequestFactory().get("/", HTTP_X_REQUEST_ID=f"req-{pk}")
    request.user = Account(pk)
    AuditContextMiddleware(view)(request)
sql("UPDATE patient SET first_name = 'nobody' WHERE id = 6")
"""


# Two applications on SQLAlchemy whose transactions take turns on one connection of the server: one says who acts, the other never does.
ALCHEMY = """
import sys
from sqlalchemy import create_engine, text
from obhut.client import acting
from obhut.client.sqlalchemy import install
ours, theirs = (create_engine(sys.argv[1], future=True) for _ in range(2))
install(ours)
pids = set()
def change(connection, word):
    pids.add(connection.execute(text("SELECT pg_backend_pid()")).scalar())
    connection.execute(text("UPDATE patient SET first_name = :word WHERE id = 10"), {"word": word})
for number in (1, 2):
    with acting(f"account-{number}", request=f"req-{number}"), ours.begin() as connection:
        change(connection, f"claimed {number}")
    with theirs.begin() as connection:
        change(connection, "the other one")
with acting("account-3"), ours.begin() as connection:
    try:
        with connection.begin_nested():
            change(connection, "undone")
            raise KeyError
    except KeyError:
        pass
    change(connection, "after the savepoint")
with ours.begin() as connection:
    change(connection, "nobody")
print(len(pids))
"""
before: dict[str, str] = {}  # replica identities before capture


def identities(url: str) -> dict[str, str]:
    """Return the replica identity of every table: d, n, f or i."""
    with Session.connect(url) as session:
        query = (
            "SELECT relname::text, relreplident::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        return dict(session.rows(query))


def exported(clinic: Installation, controller: str, name: str) -> Path:
    """Return the bundle that a controller gets, with ciphertext only."""
    folder = clinic.folder / name
    clinic.obhut("audit", "export", controller, folder)
    return folder


def key_table(clinic: Installation) -> str:
    """Return a dump of the key table and all that belongs to it, as a backup of the control database holds it."""
    program = programs(18).path("pg_dump")
    with clinic.control_session() as session:
        url = clinic.control_cluster().url(session.database)
    done = subprocess.run([program, "--data-only", "-t", "keystore_*", "-d", url], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def load_key_table(clinic: Installation, dump: str) -> None:
    """Put a dump in the place of the key table, past the triggers that refuse it."""
    with clinic.control_session() as session:
        url = clinic.control_cluster().url(session.database)
        tables = ", ".join(
            name for (name,) in session.rows("SELECT relname::text FROM pg_class WHERE relname LIKE 'keystore%' AND relkind = 'r'")
        )
    script = f"SET session_replication_role = replica; TRUNCATE {tables};\n{dump}"
    psql = [programs(18).path("psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", url]
    subprocess.run(psql, input=script, text=True, check=True, capture_output=True, timeout=60)


def about(logs: Logs, ids: set[bytes]) -> list[tuple[Read, Sealed, dict[str, Any] | None]]:
    """Return every sealed part under one of the keys, with what opens of it."""
    return [
        (read, part, value)
        for read in logs.changes()
        for part, value in zip(read.entry.sealed, read.values, strict=True)
        if part.key in ids
    ]


def readable(clinic: Installation, ids: set[bytes]) -> set[bytes]:
    """Return those of the keys that the installation hands out."""
    with Keyring(load(clinic.folder / "obhut.toml")) as keyring:
        try:
            return {identifier for identifier, held in keyring.by_id(ids).items() if isinstance(held, Key)}
        except KeyTableRolledBackError:
            return set()


def opened_directly(clinic: Installation, ids: set[bytes]) -> list[bytes]:
    """Unwrap keys as they stand in the key table, without asking what was destroyed."""
    with clinic.control_session() as session, Keyring(load(clinic.folder / "obhut.toml")) as keyring:
        found = session.rows(
            "SELECT o.controller, s.epoch, s.key_id, s.wrapped FROM keystore_subject s JOIN keystore_owner o ON o.number = s.owner WHERE s.key_id = ANY(%s)",
            (list(ids),),
        )
        assert found and all(row[3] for row in found)
        epochs = keyring.epochs.keys({(row[0], row[1]) for row in found})
        return [epochs[row[0], row[1]].unwrap(bytes(row[2]), bytes(row[3])).secret for row in found]


def stranger_verifies(clinic: Installation, controller: str, bundle: Path) -> bool:
    """Whether the verifier that was written from the specification alone accepts a bundle."""
    key = clinic.obhut("audit", "key", controller)["ed25519"]
    return subprocess.run(["perl", str(STRANGER), str(bundle), key], check=False, capture_output=True).returncode == 0


ALONE = """
import sys
def forbid(event, arguments):
    if event in {"socket.connect", "socket.sendto", "socket.getaddrinfo", "subprocess.Popen"}:
        raise RuntimeError(event)
sys.addaudithook(forbid)
from obhut.cli.main import main
sys.exit(main(["--json", "audit", "verify", *sys.argv[1:]]))
"""


def verified_alone(clinic: Installation, controller: str, bundle: Path) -> dict[str, Any]:
    """Verify a bundle as a controller does: no settings, no state, and a process that may open no connection."""
    key = clinic.obhut("audit", "key", controller)["ed25519"]
    with TemporaryDirectory() as empty:
        command = [sys.executable, "-c", ALONE, str(bundle), "--key", key]
        environment = {"PYTHONPATH": str(SOURCE), "HOME": empty}
        done = subprocess.run(command, cwd=empty, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def clinic() -> Iterator[Installation]:
    """Give a clinic whose audit log is on."""
    with installed_clinic(people=12, server=SERVER) as installation:
        refused = installation.obhut.refused("audit", "start", code="audit-not-enabled", status=3)
        assert "enable" in refused.document["error"]["hint"]
        # Tables of the vendor's that have an identity of their own.
        installation.sql("ALTER TABLE invoice REPLICA IDENTITY USING INDEX invoice_pkey")
        installation.sql("ALTER TABLE event REPLICA IDENTITY NOTHING")
        installation.sql("ALTER TABLE letter REPLICA IDENTITY FULL")
        before.update(identities(installation.url))
        done = installation.obhut("audit", "enable")
        assert (done["event_triggers"], done["unforgeable"], done["failover"]) == (True, True, True)
        yield installation


@pytest.fixture
def logs(clinic: Installation) -> Iterator[Logs]:
    """Give the logs of the clinic."""
    with logs_of(clinic) as opened:
        yield opened


def of_patient(logs: Logs, key: str) -> list[Read]:
    """Return the changes of one patient's own row."""
    return [read for read in logs.changes() if read.entry.table == "public.patient" and read.row and read.row["key"]["id"] == key]


def test_application_psql_and_job(clinic: Installation, logs: Logs) -> None:
    """Old and new value, claim and fact of each change are in the log of the person's controller and in no other one."""
    with psycopg.connect(clinic.url) as connection, acting("account-17", "support call", "req-5"):
        say(connection)
        connection.execute("UPDATE patient SET email = 'moved@mail.invalid' WHERE id = 3")
        connection.execute("INSERT INTO visit (patient_id, at, finding) VALUES (3, '2026-03-01', 'from the app')")
    script = Path(clinic.folder / "by-hand.sql")
    script.write_text("UPDATE patient SET born_on = '1960-01-01' WHERE id = 4;\n\\copy visit (patient_id, at, finding) from pstdin csv\n")
    rows = "4,2026-04-01,one\n4,2026-04-02,two\n4,2026-04-03,three\n"
    psql = [programs(18).path("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", clinic.url, "-f", script]
    subprocess.run(psql, input=rows, text=True, check=True, timeout=60)
    job = "SET application_name = 'nightly'; SET session_replication_role = replica; DELETE FROM invoice WHERE patient_id = 5"
    with clinic.session() as session:
        session.execute(job)
    clinic.obhut(*UNTIL)
    app = of_patient(logs, "3")[-1]
    assert (app.row["old"]["email"], app.row["new"]["email"]) == ("secret3@mail.invalid", "moved@mail.invalid")
    assert app.actor and (app.actor["actor"], app.actor["reason"], app.actor["request"]) == ("account-17", "support call", "req-5")
    assert app.controller == clinic.controllers["1"]
    by_hand = of_patient(logs, "4")[-1]
    assert (by_hand.row["old"], by_hand.row["new"]) == ({"born_on": "1950-01-05"}, {"born_on": "1960-01-01"})
    assert by_hand.controller == clinic.controllers["2"]
    assert by_hand.entry.fact and (by_hand.entry.fact.session_user, by_hand.entry.fact.application) == ("obhut", "psql")
    copied = [
        read for read in logs.changes() if read.entry.table == "public.visit" and read.row and read.row["new"].get("patient_id") == "4"
    ]
    assert [read.row["new"]["finding"] for read in copied] == ["one", "two", "three"]
    assert len({read.entry.position for read in copied if read.entry.position}) == 3
    (gone,) = [read for read in logs.changes() if read.brief == ("change", "public.invoice", "delete")]
    assert gone.row["old"]["recipient"] == "Secret5first"
    assert gone.entry.fact and gone.entry.fact.application == "nightly"
    assert {read.controller for read in logs.changes()} == set(clinic.controllers.values())


def test_django_middleware(clinic: Installation, logs: Logs) -> None:
    """Each change of a request carries its account, also after a savepoint that took the claim with it; none outside of one."""
    script = clinic.folder / "app.py"
    script.write_text(textwrap.dedent(DJANGO))
    host = str(clinic.cluster.socket_directory)
    subprocess.run([sys.executable, script, host, clinic.name], env={"PYTHONPATH": str(SOURCE)}, check=True, timeout=120)
    clinic.obhut(*UNTIL)
    found = [
        (read.row["new"]["first_name"], (read.actor or {}).get("actor"), (read.actor or {}).get("request"))
        for read in of_patient(logs, "6")
    ]
    assert found == [
        ("auto", "user-1", "req-1"),
        ("block", "user-1", "req-1"),
        ("auto", "user-2", "req-2"),
        ("block", "user-2", "req-2"),
        ("nobody", None, None),
    ]


@contextmanager
def pooled(clinic: Installation) -> Iterator[str]:
    """Give the URL of a PgBouncer in transaction mode that has one connection to the server."""
    folder = clinic.folder / "pool"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\nclinic = host={clinic.cluster.socket_directory} port=5432 dbname=clinic user=obhut\n"
        f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n"
    )
    account = ["-u", clinic.cluster.user.name] if clinic.cluster.user else []
    with (folder / "log").open("w") as log:
        pooler = subprocess.Popen(["/usr/sbin/pgbouncer", "-q", *account, settings], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not (folder / ".s.PGSQL.6432").exists():
            assert pooler.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"postgresql+psycopg2://obhut@/clinic?host={folder}&port=6432"
    finally:
        pooler.terminate()
        pooler.wait(20)


def test_sqlalchemy_behind_a_pooler(clinic: Installation, logs: Logs) -> None:
    """Behind PgBouncer in transaction mode a claim stays with its transaction: never the neighbour's, never the next one's."""
    script = clinic.folder / "alchemy.py"
    script.write_text(ALCHEMY)
    with pooled(clinic) as url:
        # Debian's Python and SQLAlchemy: the helper runs in the vendor's application, not in Obhut's environment.
        command = ["/usr/bin/python3", str(script), url]
        done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    clinic.obhut(*UNTIL)
    assert [(read.row["new"]["first_name"], (read.actor or {}).get("actor")) for read in of_patient(logs, "10")] == [
        ("claimed 1", "account-1"),
        ("the other one", None),
        ("claimed 2", "account-2"),
        ("the other one", None),
        ("after the savepoint", "account-3"),
        ("nobody", None),
    ]


def test_claims_under_load(clinic: Installation, logs: Logs) -> None:
    """Six sessions at once, read while they write: every change has the claim of its own transaction, and one without a claim has none."""
    claimed, silent = clinic.folder / "claimed.sql", clinic.folder / "silent.sql"
    change = "INSERT INTO visit (patient_id, at, finding) VALUES (9, '2026-05-01', '{}');\n"
    claim = "SELECT obhut.context('acc-:client_id', 'load');\n"
    claimed.write_text(f"BEGIN;\n{change.format('before')}{claim}{change.format('acc-:client_id') * 2}COMMIT;\n")
    silent.write_text(change.format("nobody"))
    pgbench = [
        clinic.cluster.binaries.path("pgbench"),
        "-n",
        "-c",
        "6",
        "-t",
        "80",
        "-f",
        f"{claimed}@2",
        "-f",
        f"{silent}@1",
        "-d",
        clinic.url,
    ]
    service = clinic.obhut.begin("serve", "audit")
    try:
        deadline = time.monotonic() + 60
        while not clinic.value("SELECT bool_or(active) FROM pg_replication_slots WHERE plugin = 'pgoutput'"):
            assert time.monotonic() < deadline, "nobody reads the stream"
            time.sleep(0.1)
        subprocess.run(pgbench, check=True, capture_output=True, timeout=120)
    finally:
        service.terminate()
        assert service.wait(30) == 0
    clinic.obhut(*UNTIL)
    visits = [read for read in logs.changes() if read.row and read.row["key"].get("at") == "2026-05-01"]
    wrong = [read for read in visits if (read.actor or {}).get("actor", read.row["new"]["finding"]) != read.row["new"]["finding"]]
    said = [read for read in visits if (read.actor or {}).get("actor")]
    assert not wrong and not [read for read in said if read.row["new"]["finding"] in {"before", "nobody"}]
    assert len(said) == clinic.value("SELECT count(*) FROM visit WHERE at = '2026-05-01' AND finding LIKE 'acc-%'") > 480
    assert len(visits) == clinic.value("SELECT count(*) FROM visit WHERE at = '2026-05-01'")


def test_only_obhut_writes_in_its_name(clinic: Installation) -> None:
    """A role without privileges may say who it is, and may neither write messages nor call the internal functions."""
    clinic.sql("CREATE ROLE plain LOGIN")
    with psycopg.connect(clinic.url, autocommit=True) as connection:
        connection.execute("SET ROLE plain")
        connection.execute("SELECT obhut.context('me')")
        for call in ("pg_logical_emit_message(true, 'obhut', '{}')", "obhut.known()", "obhut.watch(1::oid, true)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT {call}")


TRAPS = """
CREATE SCHEMA trap; CREATE TABLE trap.caught (run_as text); GRANT ALL ON SCHEMA trap TO PUBLIC; GRANT ALL ON trap.caught TO PUBLIC;
CREATE FUNCTION trap.set_config(text, text, boolean) RETURNS text LANGUAGE sql
  AS $$INSERT INTO trap.caught VALUES (current_user); SELECT pg_catalog.set_config($1, $2, $3)$$;
CREATE FUNCTION trap.current_setting(text) RETURNS text LANGUAGE sql
  AS $$INSERT INTO trap.caught VALUES (current_user); SELECT pg_catalog.current_setting($1)$$;
CREATE FUNCTION trap.host(inet) RETURNS text LANGUAGE sql AS $$INSERT INTO trap.caught VALUES (current_user); SELECT pg_catalog.host($1)$$;
CREATE FUNCTION trap.pg_logical_emit_message(boolean, text, text) RETURNS pg_lsn LANGUAGE sql
  AS $$INSERT INTO trap.caught VALUES (current_user); SELECT pg_catalog.pg_logical_emit_message($1, $2, $3)$$;
CREATE FUNCTION trap.differs(text, text) RETURNS boolean LANGUAGE sql
  AS $$INSERT INTO trap.caught VALUES (current_user); SELECT $1 OPERATOR(pg_catalog.<>) $2$$;
CREATE OPERATOR trap.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.differs);
"""


def test_a_search_path_leads_to_no_privileges(clinic: Installation) -> None:
    """What runs with Obhut's rights finds its functions and operators by schema, whatever path the application's session has."""
    clinic.sql(TRAPS)
    try:
        with psycopg.connect(clinic.url) as connection:
            connection.execute("SET LOCAL search_path = trap, public, pg_catalog")
            connection.execute("UPDATE public.patient SET born_on = born_on WHERE id = 3")
            connection.execute("SELECT obhut.context('account-17')")
            assert connection.execute("SELECT count(*) FROM trap.caught").fetchone() == (0,)
            used = "SELECT current_setting('role'::text) <> 'none'::text, host('::1'), set_config('a.b', 'c', true)"
            connection.execute(f"{used}, pg_logical_emit_message(true, 'test', 'x')")
            assert connection.execute("SELECT count(*) FROM trap.caught").fetchone() == (5,), "positive control: each trap catches"
    finally:
        clinic.sql("DROP SCHEMA trap CASCADE")


def test_schema_changes_while_capturing(clinic: Installation, logs: Logs) -> None:
    """Added, retyped, renamed and dropped columns and a new partition: rows keep coming, and what was hidden is a gap."""
    before = len(logs.gaps())
    with clinic.session() as session:
        session.execute("ALTER TABLE letter ADD COLUMN pages int")
        session.execute("UPDATE letter SET pages = 2 WHERE id = 7")
        session.execute("ALTER TABLE letter ALTER COLUMN pages TYPE text USING pages || ' pages'")
        session.execute("ALTER TABLE letter RENAME COLUMN pages TO length")
        session.execute("UPDATE letter SET length = 'long' WHERE id = 7")
        session.execute("ALTER TABLE letter DROP COLUMN length")
        session.execute("UPDATE letter SET sender_name = 'late' WHERE id = 7")
        session.execute(
            "UPDATE patient SET photo = (SELECT decode(string_agg(md5(i::text), ''), 'hex') FROM generate_series(1, 500) i) WHERE id = 11"
        )
        session.execute("UPDATE patient SET first_name = 'whole row' WHERE id = 11")
        session.execute("ALTER TABLE patient REPLICA IDENTITY DEFAULT")
        session.execute("UPDATE patient SET first_name = 'key only' WHERE id = 11")
        session.execute("ALTER TABLE patient REPLICA IDENTITY FULL")
        session.execute("CREATE TABLE public.visit_2027 PARTITION OF visit FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')")
        session.execute("INSERT INTO visit (patient_id, at, finding) VALUES (7, '2027-01-05', 'new year')")
        session.execute("UPDATE visit SET finding = 'changed' WHERE at = '2027-01-05'")
        session.execute("TRUNCATE visit_2027")
        # While a table is published, the server itself refuses to make it unlogged.
        session.execute("ALTER PUBLICATION obhut_audit DROP TABLE event")
        session.execute("ALTER TABLE event SET UNLOGGED")
        session.execute("UPDATE event SET words = 'never decoded' WHERE id = 1")
        session.execute("ALTER TABLE event SET LOGGED")
        session.execute("ALTER PUBLICATION obhut_audit ADD TABLE event")
    done = clinic.obhut(*UNTIL)
    assert done["unassigned"] == 0
    letters = [read for read in logs.changes() if read.entry.table == "public.letter" and read.row and read.row["key"]["id"] == "7"]
    seen = [{**read.row.get("new", {})} for read in letters if read.controller == clinic.controllers["1"]]
    assert {"pages": "2"} in seen
    assert {"length": "long"} in seen
    assert {"sender_name": "late"} in seen
    whole, short = (read.row for read in of_patient(logs, "11")[-2:])
    assert whole["new"].keys() == {"first_name", "shown"} and "unchanged" not in whole
    assert short["new"]["first_name"] == "key only" and short["unchanged"] == ["photo"], (
        "a long value that was not sent is marked, not invented"
    )
    assert "photo" not in short["new"]
    visits = [read for read in logs.changes() if read.entry.table == "public.visit" and read.row and read.row["key"]["at"] == "2027-01-05"]
    assert [(read.entry.operation, read.row["new"]["finding"]) for read in visits] == [("insert", "new year"), ("update", "changed")]
    assert visits[1].row["old"] == {"finding": "new year"}, "the new partition keeps whole old rows"
    gaps = [(read.entry.table, read.entry.operation) for read in logs.gaps()[before:]]
    for expected in (
        ("public.letter", "rewrite"),
        ("public.letter", "column-dropped"),
        ("public.patient", "identity"),
        ("public.visit", "truncate"),
        ("", "publication"),
        ("public.event", "unlogged"),
    ):
        assert expected in gaps
    assert "never decoded" not in str([read.values for read in logs.changes()])


def test_erased_people_cannot_be_read(clinic: Installation, logs: Logs) -> None:
    """Once a person is erased none of the entries opens: not live, not with the key table of before, not in a bundle; and every bundle verifies."""
    north = clinic.controllers["1"]
    known = of_patient(logs, "3")[-1]
    ids = {part.key for part in known.entry.sealed if part.part == "row"}
    values = base64.b64encode(next(part.data for part in known.entry.sealed if part.part == "row"))
    before_erasure, table_before = exported(clinic, north, "before"), key_table(clinic)
    assert any(values in path.read_bytes() for path in before_erasure.rglob("*") if path.is_file()), "the bundle holds the ciphertext"

    clinic.erase("patient", 3)
    clinic.obhut(*UNTIL)
    assert readable(clinic, ids) == set()
    later = about(logs, ids)
    assert ("change", "public.patient", "delete") in [read.brief for read, part, _ in later if part.dropped == "erased"]
    assert all(value is None for _, _, value in later)
    assert of_patient(logs, "4"), "another person's entries still open"

    load_key_table(clinic, table_before)
    clinic.obhut.refused("audit", "search", north, "--person", "patient", "3", "--values", code="audit-keys-rolled-back")
    assert readable(clinic, ids) == set(), "nobody gets a key from a table that has forgotten destructions"
    assert opened_directly(clinic, ids), "past every fence it would open until the epoch is over"
    assert clinic.obhut("keys", "reconcile")["destroyed"] >= 1
    assert readable(clinic, ids) == set()

    clinic.obhut("keys", "rotate", north, "--at-once")
    table_after = key_table(clinic)
    load_key_table(clinic, table_before)
    with pytest.raises(KeyDestroyedError):
        opened_directly(clinic, ids)
    load_key_table(clinic, table_after)
    assert [read for read in logs.changes() if read.controller == north and read.row], "survivors were wrapped anew"

    for bundle in (before_erasure, exported(clinic, north, "after")):
        report = clinic.obhut("audit", "verify", bundle)
        assert report["entries"] > 0
        assert stranger_verifies(clinic, north, bundle)
        assert verified_alone(clinic, north, bundle)["entries"] == report["entries"]
    shown = clinic.folder / "shown"
    clinic.obhut("audit", "export", north, shown, "--values")
    content = b"".join(path.read_bytes() for path in shown.rglob("*") if path.is_file())
    assert b"by-hand" not in content and b"moved@mail.invalid" not in content
    assert b"secret5" in content.lower(), "others' values are there"


def test_copy_for_tests_carries_nothing_of_it(clinic: Installation) -> None:
    """A masked copy of a captured database has none of its triggers and functions, no publication, and the identities of before."""
    copy = clinic.obhut("clone", "run")
    with Session.connect(copy["url"]) as session:
        assert session.row(LEFT) == (0, 0, 0, 0, 0)
        assert (
            session.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'obhut'::regnamespace AND relname <> 'copy'") == 1
        )  # its key
    assert identities(copy["url"]).items() >= {"invoice": "i", "event": "n", "letter": "f", "patient": "d"}.items()
    clinic.obhut("clone", "verify", copy["run"])


def test_restored_beside_the_old_one(clinic: Installation, logs: Logs) -> None:
    """On one server, restored while capture runs: the old database is read to its end, then the new one begins with a gap entry."""
    former = clinic.url
    clinic.sql("UPDATE patient SET first_name = 'restored' WHERE id = 8")
    clinic.backup()
    moment = clinic.moment()
    clinic.flush()
    with Session.connect(clinic.cluster.url()) as session:
        session.execute("CREATE DATABASE beside")
    service = clinic.obhut.begin("serve", "audit")
    try:
        target = ("--target", clinic.cluster.url("beside"), "--open")
        clinic.obhut("restore", "run", clinic.name, "--to", moment.isoformat(), *target)
        clinic.sql("UPDATE patient SET first_name = 'read' WHERE id = 8")
    finally:
        service.terminate()
        assert service.wait(20) == 0
    clinic.sql("UPDATE patient SET first_name = 'unread' WHERE id = 8")
    clinic.move(clinic.cluster.url("beside"))
    clinic.sql("UPDATE patient SET first_name = 'missed' WHERE id = 8")
    assert "slot-elsewhere" in clinic.obhut.run("audit", "status").stdout
    clinic.obhut.killed_at("audit-follow.former-released", *UNTIL)
    clinic.obhut.killed_at("audit-follow.slot-made", *UNTIL)
    clinic.obhut(*UNTIL)
    with Session.connect(former) as session:
        session.execute("UPDATE patient SET first_name = 'nobody looks' WHERE id = 8")
    clinic.sql("UPDATE patient SET first_name = 'back' WHERE id = 8")
    clinic.obhut(*UNTIL)
    names = [(read.row["old"]["first_name"], read.row["new"]["first_name"]) for read in of_patient(logs, "8")[-3:]]
    assert names == [("restored", "read"), ("read", "unread"), ("missed", "back")]
    assert len(logs.places()) == len(set(logs.places()))
    gaps = [read for read in logs.all() if read.entry.operation == "database"]
    assert len({read.controller for read in gaps}) == len(gaps) == 3, "one in every controller's log, and in the vendor's"
    before, after = (read.entry.position for read in of_patient(logs, "8")[-2:])
    place = gaps[0].entry.position
    assert place and before and after and (before.system, before.timeline) == (after.system, after.timeline)
    assert before.order() < place.order() < after.order()


def test_stream_goes_on_after_a_restore(clinic: Installation) -> None:
    """At the restored database capture says what it missed and goes on, on a server that Obhut has set up for it; nothing is set up again."""
    clinic.sql("UPDATE patient SET first_name = 'last' WHERE id = 8")
    clinic.obhut(*UNTIL)
    clinic.backup()
    moment = clinic.moment()
    clinic.flush()
    run = clinic.obhut("restore", "run", clinic.name, "--to", moment.isoformat())["run"]
    clinic.move(clinic.obhut("restore", "open", run)["url"])
    clinic.sql("UPDATE patient SET first_name = 'missed' WHERE id = 8")
    clinic.obhut(*UNTIL)
    clinic.sql("UPDATE patient SET first_name = 'back' WHERE id = 8")
    clinic.obhut(*UNTIL)
    with logs_of(clinic) as logs:
        assert of_patient(logs, "8")[-1].row["old"]["first_name"] == "missed"
        gap = logs.gaps()[-1].entry
        assert (gap.operation, gap.detail["before"]) == ("system", str(clinic.system))


def _findings(clinic: Installation) -> list[dict[str, Any]]:
    """Return what the status finds, whether it is critical or not."""
    document = clinic.obhut.run("audit", "status").document
    found: list[dict[str, Any]] = document.get("result", document)["findings"]
    return found


def test_polling_reads_the_same(clinic: Installation, logs: Logs) -> None:
    """By SQL the stream is the same; switching off is itself an entry, and leaves nothing in the database."""
    with (clinic.folder / "obhut.toml").open("a") as settings:
        settings.write(f'[databases.{clinic.name}.capture]\nmethod = "polling"\n')
    clinic.sql("UPDATE patient SET first_name = 'polled' WHERE id = 8")
    assert {"schema-namesake"} == {finding["code"] for finding in _findings(clinic) if finding["code"].startswith("schema")}
    clinic.obhut(*UNTIL)
    assert of_patient(logs, "8")[-1].row["new"] == {"first_name": "polled", "shown": "polled <secret8@mail.invalid>"}
    clinic.sql("CREATE TABLE migrated (id int)")  # as the role obhut, which has the schema's name
    assert {"schema-shared"} == {finding["code"] for finding in _findings(clinic) if finding["code"].startswith("schema")}
    for step in ("said", "slot"):
        clinic.obhut.killed_at(f"audit-stop.{step}", "audit", "stop")
    clinic.obhut("audit", "stop")
    clinic.sql("DROP TABLE obhut.migrated; DROP SCHEMA obhut")
    assert [read.entry.operation for read in logs.gaps()][-1] == "stopped"
    with Session.connect(clinic.url) as session:
        assert session.row(LEFT) == (0, 0, 0, 0, 0)
    assert identities(clinic.url).items() >= before.items()
