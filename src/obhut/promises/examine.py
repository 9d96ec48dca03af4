"""Examiners: each looks at one thing on the running system and yields what it saw."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import datetime, timedelta

from obhut.backups import run as backups_run
from obhut.backups.findings import Finding, Severity
from obhut.controllers import register
from obhut.datamap.graph import require
from obhut.datamap.load import load
from obhut.erasure import known, ledger, reading
from obhut.erasure.entries import State as TombstoneState
from obhut.erasure.errors import ErasureListError
from obhut.erasure.plan import cohort_of, keep_periods
from obhut.erasure.subjects import lookup
from obhut.erasure.verify import verify
from obhut.foundation.clock import Clock
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.journal import runs
from obhut.journal.states import RunKind, RunState
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session, parameter
from obhut.promises.model import Evidence, State
from obhut.restores import store

PLAIN_CODES = frozenset({"backup-plain-wal", "backup-plain-base"})
AGE_CODES = frozenset({"backup-too-old", "backup-byte-too-old"})
GROWING = frozenset({"window-short", "incremental-off", "wal-retained"})  # true of every young installation; said, not held against it
PENDING = timedelta(hours=1)  # an erasure that is recorded and not effective for longer is stuck
SAMPLE = 1_000  # erased people looked for in production at each evaluation
UNPACKED = timedelta(days=1)  # a restore that nobody opens or abandons keeps a copy that no retention looks at
DRILL = timedelta(days=92)  # a restore older than a quarter proves little about today
_SSL = """
SELECT count(*) FILTER (WHERE a.client_addr IS NOT NULL AND NOT s.ssl), count(*)
FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.backend_type = 'client backend'
"""


_OPEN_DOORS = """
SELECT count(*) FROM pg_hba_file_rules
WHERE type IN ('host', 'hostnossl', 'hostgssenc') AND auth_method <> 'reject'
  AND coalesce(address, '') NOT IN ('127.0.0.1', '::1', 'samehost')
"""


def instructions(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """Every run that touched personal data names an instruction that exists; every controller has a contract in force."""
    now = clock.now()
    for name in settings.databases:
        controllers = register.list_controllers(name)
        if not controllers:
            yield Evidence("no controller is registered", State.UNPROVEN, now, name, 'Register them: "obhut controllers add".')
            continue
        without = [
            owner.id
            for owner in controllers
            if not any(
                contract.valid_from <= now and (contract.valid_until is None or now < contract.valid_until)
                for contract in register.list_contracts(owner.id)
            )
        ]
        if without:
            yield Evidence(
                f"{len(without)} of {len(controllers)} controllers have no contract in force",
                State.BROKEN,
                now,
                name,
                'Record them: "obhut controllers contract add".',
            )
        else:
            yield Evidence(f"{len(controllers)} controllers have a contract in force", State.KEPT, now, name)
        yield _tombstones_instructed(name, now)
    acts = [
        run for run in runs.list_runs(limit=1_000) if run.kind in {RunKind.RESTORE, RunKind.CLONE} and run.state is not RunState.CANCELLED
    ]
    bare = [run for run in acts if not run.instruction_id and run.state is RunState.DONE]
    if bare:
        yield Evidence(f"{len(bare)} runs are done without an instruction", State.BROKEN, now, hint='Look at them: "obhut runs list".')
    elif acts:
        done = sum(run.state is RunState.DONE for run in acts)
        yield Evidence(f"{done} finished restores name their instruction", State.KEPT if done else State.UNPROVEN, now)


def _tombstones_instructed(database: str, now: datetime) -> Evidence:
    wanted: set[str] = set()
    number = 0
    for state in (TombstoneState.RECORDED, TombstoneState.EFFECTIVE):
        for tombstones in known.in_state(database, state):
            number += len(tombstones)
            wanted.update(tombstone.instruction for tombstone in tombstones)
    missing = [identifier for identifier in wanted if not _exists(identifier)]
    if missing:
        return Evidence(f"{len(missing)} instructions named by erasures are not on record", State.BROKEN, now, database)
    return Evidence(f"{number} erasures follow {len(wanted)} documented instructions", State.KEPT, now, database)


def _exists(instruction_id: str) -> bool:
    try:
        register.get_instruction(instruction_id)
    except ObhutError:
        return False
    return True


def keys_at_rest(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """The key store is private: nobody but its owner may enter it."""
    directory = settings.keystore.directory
    now = clock.now()
    if not directory.is_dir():
        yield Evidence("there is no key store yet", State.UNPROVEN, now, hint="It is made with the first key.")
        return
    open_to_others = [path for path in (directory, *directory.rglob("*")) if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    if open_to_others:
        yield Evidence(
            f"{len(open_to_others)} files of the key store are open to other accounts",
            State.BROKEN,
            now,
            hint="chmod -R go= on the key store.",
        )
    else:
        yield Evidence("the key store is open to its owner only", State.KEPT, now)


def backups_at_rest(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """No plain file lies in a backup repository for longer than sealing takes."""
    now = clock.now()
    for name in settings.databases:
        found = _findings(settings, name, clock)
        plain = [finding for finding in found if finding.code in PLAIN_CODES]
        lasting = [finding for finding in plain if finding.severity is Severity.CRITICAL]
        if lasting:
            yield Evidence(lasting[0].fact, State.BROKEN, now, name, lasting[0].hint)
        elif not backups_run.listed(settings, name):
            yield Evidence("there is no backup yet", State.UNPROVEN, now, name, 'Begin: "obhut backup start".')
        else:
            yield Evidence("base backups and archived WAL are sealed; only what is being written is plain", State.KEPT, now, name)


def disks(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """Whether a server's disk is encrypted cannot be seen through SQL."""
    for name in settings.databases:
        yield Evidence(
            "whether the disk of the database server is encrypted cannot be seen through a database connection",
            State.UNPROVEN,
            clock.now(),
            name,
            "Keep the provider's statement with your measures; the residency package will record it.",
        )


def connections(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """Our own connection and those of all clients are TLS or local."""
    for name, database in settings.databases.items():
        now = clock.now()
        local = (parameter(database.url, "host") or "/").startswith("/")
        strict = parameter(database.url, "sslmode") in {"verify-full", "verify-ca"}
        if not local and not strict:
            yield Evidence(
                "Obhut's own connection does not verify the server",
                State.BROKEN,
                now,
                name,
                "Add sslmode=verify-full and sslrootcert to the database URL.",
            )
        with Session.connect(database.url, application_name="obhut promises") as session:
            yield from _doors(session, name, now)
            if not session.value("SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"):
                yield Evidence(
                    "other clients' connections are hidden from the role", State.UNPROVEN, now, name, "GRANT pg_read_all_stats TO the role."
                )
                continue
            plain, total = session.row(_SSL) or (0, 0)
        if plain:
            yield Evidence(
                f"{plain} of {total} client connections are plain TCP", State.BROKEN, now, name, "Use hostssl lines only in pg_hba.conf."
            )
        else:
            yield Evidence(f"{total} client connections, all TLS or local at this moment", State.KEPT, now, name)


def _doors(session: Session, database: str, now: datetime) -> Iterator[Evidence]:
    """A look at today's connections proves nothing about tomorrow's: what counts is what the server would let in."""
    if session.value("SELECT current_setting('listen_addresses') = ''"):
        yield Evidence("the server listens on no address, only on its local socket", State.KEPT, now, database)
        return
    if not session.value(
        "SELECT has_table_privilege('pg_hba_file_rules', 'SELECT') AND pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')"
    ):
        yield Evidence(
            "the rules for connections are hidden from the role", State.UNPROVEN, now, database, "GRANT SELECT ON pg_hba_file_rules."
        )
        return
    open_doors = session.value(_OPEN_DOORS)
    if open_doors:
        yield Evidence(
            f"{open_doors} rules would let a plain TCP connection in",
            State.BROKEN,
            now,
            database,
            "Turn host lines into hostssl in pg_hba.conf.",
        )
    else:
        yield Evidence("the server lets in TLS and local connections only", State.KEPT, now, database)


def backups(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """The repository is whole, the stream runs, and no byte is too old, also none that was unpacked for a restore."""
    yield from _unpacked(settings, clock.now())
    for name in settings.databases:
        now = clock.now()
        listed = backups_run.listed(settings, name)
        if not listed:
            yield Evidence("there is no backup", State.BROKEN, now, name, 'Begin: "obhut backup start".')
            continue
        found = [finding for finding in _findings(settings, name, clock) if finding.code not in PLAIN_CODES]
        bad = [finding for finding in found if finding.severity is Severity.CRITICAL]
        for finding in bad:
            yield Evidence(finding.fact, State.BROKEN, now, name, finding.hint)
        if not bad:
            yield Evidence(f"{len(listed)} base backups are complete, the WAL has no hole, no byte is too old", State.KEPT, now, name)
        for finding in found:
            if finding.severity is not Severity.CRITICAL and finding.code not in GROWING:
                yield Evidence(finding.fact, State.UNPROVEN, now, name, finding.hint)


def _unpacked(settings: Settings, now: datetime) -> Iterator[Evidence]:
    """A quarantine holds a base backup in plain, everybody included, until its restore is opened or abandoned."""
    for path in sorted((settings.state.directory / "restores").glob("*/quarantine")):
        since = datetime.fromtimestamp(path.parent.stat().st_mtime, now.tzinfo)
        if now - since > UNPACKED:
            limit = min(database.backup.gone_after for database in settings.databases.values())
            fact = f"the quarantine of restore {path.parent.name} has been kept for {(now - since).days} days"
            state = State.BROKEN if now - since > limit else State.UNPROVEN
            yield Evidence(fact, state, now, hint=f'Open it, or "obhut restore abandon {path.parent.name}".')


def erasure_list(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """List, mirror and anchor agree and verify."""
    try:
        report = ledger.verify_list(settings, settle_at=clock)
    except ErasureListError as error:
        yield Evidence(error.fact, State.BROKEN, clock.now(), hint=error.hint or "")
        return
    yield Evidence(f"the erasure list verifies in all its places: {report.size} entries", State.KEPT, clock.now())


def erasures(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """No erasure is stuck between its tombstone and its effect."""
    for name in settings.databases:
        now = clock.now()
        waiting = [tombstone for part in known.in_state(name, TombstoneState.RECORDED) for tombstone in part]
        stuck = [tombstone for tombstone in waiting if now - tombstone.erased_at > PENDING]
        if stuck:
            yield Evidence(
                f"{len(stuck)} erasures are recorded and not effective for more than an hour",
                State.BROKEN,
                now,
                name,
                f'Run "obhut erase {name} --finish".',
            )
        else:
            yield Evidence(f"{reading.count(name)} people are on the list, {len(waiting)} of them being erased", State.KEPT, now, name)


def absence(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """The latest erased people are looked for in production."""
    for name, database in settings.databases.items():
        now = clock.now()
        latest = [tombstone for part in known.in_state(name, TombstoneState.EFFECTIVE) for tombstone in part][-SAMPLE:]
        if not latest:
            yield Evidence("nobody was erased yet", State.UNPROVEN, now, name)
            continue
        with Session.connect(database.url, application_name="obhut promises") as session:
            graph = require(name, load(database.map).database(name), read_catalogue(session))
            periods, left, asked = keep_periods(graph), 0, 0
            for kind in {tombstone.subject_kind for tombstone in latest}:
                members = [tombstone for tombstone in latest if tombstone.subject_kind == kind and tombstone.key]
                expected = {tombstone.key: tombstone.fingerprint for tombstone in members}
                keys = [tombstone.key for tombstone in members if tombstone.key]
                later = {
                    person.key
                    for person in lookup(session, graph, kind, keys, ledger.fingerprint_key())
                    if expected[person.key] and expected[person.key] != person.fingerprint
                }
                for cohort in {cohort_of(periods, tombstone.action, tombstone.erased_at, tombstone.erased_at) for tombstone in members}:
                    ours = [t.key for t in members if t.key and t.key not in later and t.action is cohort.action]
                    answers = verify(session, graph, kind, ours, cohort).answers
                    asked += len(answers)
                    left += sum(answer.rows for answer in answers)
        if left:
            yield Evidence(
                f"{left} rows of erased people are in production", State.BROKEN, now, name, f'Run "obhut erase {name} --finish".'
            )
        elif not asked:
            yield Evidence("the data map leaves nothing to ask about erased people", State.UNPROVEN, now, name)
        else:
            yield Evidence(f"the {len(latest)} latest erased people are not in production ({asked} questions)", State.KEPT, now, name)


def restores(settings: Settings, clock: Clock) -> Iterator[Evidence]:
    """The last restore of each database was proved, and not too long ago."""
    for name in settings.databases:
        now = clock.now()
        found = runs.list_runs(kind=RunKind.RESTORE, database=name, limit=100)
        # A side schema is proved by its counts only.
        done = [run for run in found if run.state is RunState.DONE and run.parameters.get("scope") == "database"]
        if not done:
            yield Evidence(
                "no restore was ever proved for this database",
                State.UNPROVEN,
                None,
                name,
                f'Drill: "obhut restore run {name} --to latest".',
            )
            continue
        proved_at = done[0].finished_at or done[0].started_at
        proof = {step.name: step for step in runs.list_steps(done[0].id)}.get("prove")
        if proof is None or proof.finished_at is None:
            yield Evidence("the last restore carries no proof", State.BROKEN, proved_at, name, f'Look at "obhut runs show {done[0].id}".')
        elif not _control_found(done[0].id):
            yield Evidence(
                "the last restore was proved without its positive control: no canary was there to be found",
                State.UNPROVEN,
                proved_at,
                name,
                f'Plant one: "obhut canary plant {name}". The next backup carries it.',
            )
        elif now - proved_at > DRILL:
            yield Evidence(
                f"the last proved restore is {(now - proved_at).days} days old", State.UNPROVEN, proved_at, name, "Drill once a quarter."
            )
        else:
            yield Evidence("the last restore was proved before it was opened", State.KEPT, proved_at, name)


def _control_found(run_id: str) -> bool:
    """Whether a restore's certificate says that a canary was found before and not after: finding nothing proves nothing by itself."""
    kept = store.find(run_id)
    statements = kept.document["certificate"]["statements"] if kept else ()
    return any(statement["name"] == "canaries" and statement["result"] == "passed" for statement in statements)


def _findings(settings: Settings, database: str, clock: Clock) -> list[Finding]:
    return backups_run.check(settings, database, clock)
