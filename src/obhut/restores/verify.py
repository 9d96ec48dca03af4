"""Check a certificate against its target, as a stranger would: signature, counts, sums and absence, each counted anew.

Shares no code with the load or the proof: its queries are written from docs/spec/certificate.md. What cannot be checked here (the
database does not answer, the erasure list is not at hand) is reported as *unchecked* and never as passed.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from obhut.datamap.graph import Graph, Subject
from obhut.datamap.models import Verb
from obhut.erasure import ledger, reading
from obhut.erasure.entries import Action, Tombstone
from obhut.erasure.errors import ErasureListError
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import Settings
from obhut.keystore import open_keystore
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Identifier, Literal, trusted
from obhut.restores import certificate
from obhut.restores.errors import CertificateError
from obhut.restores.preflight import require_graph

_DOMAIN = b"obhut erasure list v1 incarnation\n"
_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        statement: what was checked.
        result: ``passed``, ``failed`` or ``unchecked``.
        where: name of a table, or nothing.
        said: number that the certificate gives.
        found: number that was found.
        why: why it could not be checked, in words.
    """

    statement: str
    result: str
    where: str = ""
    said: int | None = None
    found: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """All findings about one certificate."""

    run: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """What differs."""
        return tuple(finding for finding in self.findings if finding.result == "failed")

    @property
    def unchecked(self) -> tuple[Finding, ...]:
        """What could not be checked."""
        return tuple(finding for finding in self.findings if finding.result == "unchecked")

    @property
    def passed(self) -> bool:
        """Whether everything was checked and nothing differs."""
        return bool(self.findings) and not self.failed and not self.unchecked


def verify(path: Path, *, key: Ed25519PublicKey | None, settings: Settings | None, url: str | None) -> Verification:
    """Check a certificate.

    Args:
        path: its file.
        key: the key to trust; without one that of the settings' key store.
        settings: of an installation whose erasure list and data map are at hand, or None.
        url: the restored database, or None.

    Raises:
        CertificateError: the file is no certificate.
    """
    content, signature = _open(path, key, settings)
    findings = [signature]
    claimed = "passed" if content.get("holds") is True else "failed"
    findings.append(Finding("the certificate itself says that the proof holds", claimed))
    if url is None:
        findings.append(Finding("rows and sums of the target", "unchecked", why="no target was given"))
    else:
        findings.extend(_target(content, settings, url))
    return Verification(str(content.get("run", "")), tuple(findings))


def _open(path: Path, key: Ed25519PublicKey | None, settings: Settings | None) -> tuple[dict[str, Any], Finding]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        content = document["certificate"]
        value = base64.b64decode(document["signature"]["value"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CertificateError(f"{path}: this is no certificate of a restore", "See docs/spec/certificate.md.") from None
    if content.get("format") != "obhut restore certificate 1":
        raise CertificateError(f"{path}: the format of the certificate is unknown", "Did a newer Obhut write it?")
    trusted_key = key
    if trusted_key is None and settings is not None:
        try:
            trusted_key = open_keystore(settings).verifying_key(certificate.KEY_NAME)
        except ObhutError:
            trusted_key = None
    if trusted_key is None:
        return content, Finding("signature", "unchecked", why="no key to trust was given")
    signed = b"obhut restore certificate v1\n" + json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    try:
        trusted_key.verify(value, signed)
    except InvalidSignature:
        return content, Finding("signature", "failed")
    return content, Finding("signature", "passed")


def _target(content: Mapping[str, Any], settings: Settings | None, url: str) -> Iterator[Finding]:
    try:
        with Session.connect(
            url, application_name="obhut verify", settings={"lc_monetary": "C", "max_parallel_workers_per_gather": "2"}
        ) as session:
            yield _identity(content, session)
            for table in content["tables"]:
                yield from _table(session, table, int(content["seed"]))
            if not content["target"].get("schema"):
                yield _unnamed(content, session)
            yield _validated(session)
            yield from _absence(content, settings, session)
    except DatabaseError as error:
        yield Finding("the target", "unchecked", why=error.fact)


def _identity(content: Mapping[str, Any], session: Session) -> Finding:
    found = str(session.value("SELECT system_identifier FROM pg_control_system()"))
    same = found == str(content["target"]["system_identifier"])
    return Finding("the target is the server of the certificate", "passed" if same else "failed")


def _table(session: Session, table: Mapping[str, Any], seed: int) -> Iterator[Finding]:
    name = f"{table['schema']}.{table['name']}"
    known = {
        str(column): str(kind)
        for column, kind in session.rows(
            "SELECT a.attname, format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL)"
            " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
            " WHERE a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) AND a.attnum > 0 AND NOT a.attisdropped",
            (table["schema"], table["name"]),
        )
    }
    listed = [(str(column), str(way)) for column, way in table["columns"]]
    if not {column for column, _ in listed} <= set(known):
        yield Finding("rows", "failed", name, int(table["target"]), None, "the table or a column of it is not there")
        return
    pieces = []
    for column, way in listed:
        if way == "value":
            pieces.append(SQL("{}::{}").format(Identifier(column), trusted(known[column])))
        else:
            pieces.append(SQL('{}::text COLLATE "C"').format(Identifier(column)))
    number = Literal(seed)
    if pieces:
        one = SQL("hashint8extended(hash_record_extended(ROW({}), {}), {})").format(SQL(", ").join(pieces), number, number)
    else:
        one = SQL("hashint8extended(0, {})").format(number)
    query = SQL("SELECT count(*), coalesce(sum({}), 0)::text FROM ONLY {}").format(
        one, Identifier(str(table["schema"]), str(table["name"]))
    )
    rows, total = session.row(query) or (0, "0")
    yield Finding("rows", "passed" if rows == table["target"] else "failed", name, int(table["target"]), int(rows))
    yield Finding("checksum", "passed" if str(total) == str(table["checksum"]) else "failed", name)
    balance = int(table["source"]) - int(table["deleted"])
    yield Finding(
        "source minus deleted is the target", "passed" if balance == table["target"] else "failed", name, balance, int(table["target"])
    )


def _unnamed(content: Mapping[str, Any], session: Session) -> Finding:
    """Look for tables that the certificate says nothing about: nobody has counted what is in them."""
    named = {(str(table["schema"]), str(table["name"])) for table in content["tables"]}
    there = session.rows(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_'"
        " AND n.nspname NOT IN ('information_schema', 'obhut', 'obhut_restore') AND NOT EXISTS (SELECT FROM pg_depend d"
        " WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2"
    )
    extra = [f"{schema}.{name}" for schema, name in there if (str(schema), str(name)) not in named]
    result = "failed" if extra else "passed"
    return Finding("every table is named by the certificate", result, extra[0] if extra else "", len(named), len(named) + len(extra))


def _validated(session: Session) -> Finding:
    broken = int(session.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated") or 0)
    return Finding("foreign keys are validated by the server", "passed" if not broken else "unchecked", found=broken)


def _absence(content: Mapping[str, Any], settings: Settings | None, session: Session) -> Iterator[Finding]:
    statement = "erased people are absent by key"
    if settings is None:
        yield Finding(statement, "unchecked", why="the erasure list is not at hand")
        return
    database = str(content["database"])
    schema = content["target"].get("schema")
    if schema:
        yield Finding(statement, "unchecked", str(schema), why="a side schema is checked by its counts")
        return
    try:
        ledger.open_ledger(settings)
        graph = require_graph(settings, database, session)
        size = int(content["erasure_list"]["size"])
        if reading.head().size < size:
            yield Finding("the erasure list is not older than the certificate", "failed", said=size, found=reading.head().size)
            return
        key = ledger.fingerprint_key()
        for kind in reading.subject_kinds(database):
            found, asked = 0, 0
            for tombstones in reading.open_list(database, as_of=size, subject_kind=kind, size=_CHUNK):
                erased = [item for item in tombstones if item.action is Action.ERASE and item.key is not None]
                asked += len(erased)
                found += _present(session, graph, graph.subject(kind), erased, key)
            deletes = graph.subject(kind).erase.verb is Verb.DELETE
            if not deletes:
                yield Finding(statement, "unchecked", kind, why="the data map keeps or anonymises the row of this kind of person")
                continue
            yield Finding(statement, "passed" if not found else "failed", kind, 0, found)
            del asked
    except (ErasureListError, DatabaseError) as error:
        yield Finding(statement, "unchecked", why=error.fact)


def _present(session: Session, graph: Graph, subject: Subject, erased: Sequence[Tombstone], key: bytes) -> int:
    """Count rows that bear the key of an erased person and are that person by fingerprint."""
    table = graph.catalogue.tables[subject.table]
    values = SQL(", ").join(SQL("%s::text[]") for _ in subject.key)
    names = SQL(", ").join(Identifier(f"k{number}") for number in range(len(subject.key)))
    on = SQL(" AND ").join(
        SQL("p.{}::text = k.{}").format(Identifier(name), Identifier(f"k{number}")) for number, name in enumerate(subject.key)
    )
    born = SQL("").join(SQL(", p.{}::text").format(Identifier(name)) for name in subject.incarnation)
    query = SQL("SELECT k.n{} FROM unnest({}) WITH ORDINALITY k({}, n) JOIN {} p ON {}").format(born, values, names, table.relation, on)
    arrays = [[(item.key or ())[number] for item in erased] for number in range(len(subject.key))]
    count = 0
    for number, *incarnation in session.rows(query, arrays):
        expected = erased[number - 1].fingerprint
        if not expected:
            count += 1
            continue
        text = _canonical([graph.database, subject.kind, list(incarnation)])
        count += hmac.compare_digest(hmac.new(key, _DOMAIN + text, sha256).hexdigest(), expected)
    return count


def _canonical(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
