"""The certificate of a restore: what was proved, how, in figures, and what it does not say. Format: docs/spec/certificate.md."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import obhut
from obhut.foundation.clock import stamp
from obhut.keystore import Keystore
from obhut.restores.errors import CertificateError
from obhut.restores.prove import Proof, Result

FORMAT: Final = "obhut restore certificate 1"
DOMAIN: Final = b"obhut restore certificate v1\n"
KEY_NAME: Final = "restore-certificate"
LIMITS: Final = (
    "files-of-the-target",
    "compressed-and-split-values",
    "unmapped-free-text",
    "released-blocks",
    "backups-age-out",
)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the proof is about."""

    run: str
    scope: str  # database, controller or subject
    database: str
    asked: str
    lsn: str
    moment: datetime | None
    backups: tuple[str, ...]
    source_system: str
    target_system: str
    target_owned: bool
    server_version: int
    list_size: int
    list_hash: str
    tombstones: int
    people_found: int
    people_other: int
    map_version: str
    schema: str | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    gone_by: datetime | None
    issued_at: datetime


def build(about: Circumstances, proof: Proof) -> dict[str, Any]:
    """Return the certificate's content. Sums are text: they do not fit the numbers of every JSON reader."""
    return {
        "format": FORMAT,
        "obhut": obhut.__version__,
        "issued_at": stamp(about.issued_at),
        "run": about.run,
        "scope": about.scope,
        "database": about.database,
        "point": {"asked": about.asked, "lsn": about.lsn, "last_commit": stamp(about.moment) if about.moment else None},
        "source": {"backups": list(about.backups), "system_identifier": about.source_system, "server_version": about.server_version},
        "target": {"system_identifier": about.target_system, "owned": about.target_owned, "schema": about.schema},
        "erasure_list": {
            "size": about.list_size,
            "hash": about.list_hash,
            "tombstones": about.tombstones,
            "people_left_out": about.people_found,
            "other_bearers": about.people_other,
        },
        "data_map": about.map_version,
        "seed": str(proof.seed),
        "tables": [
            {
                "schema": table.schema,
                "name": table.name,
                "columns": [list(column) for column in table.columns],
                "source": table.source.rows,
                "deleted": table.deleted.rows,
                "changed": table.changed_before.rows,
                "target": table.target.rows,
                # The sum over what was left out is not written down: with the seed it could be tried against guesses of one person's row.
                "checksum": str(table.target.hash),
                "holds": table.holds,
            }
            for table in proof.tables
        ],
        "absence": [
            {"table": asked.table, "question": asked.question, "people": asked.people, "rows": asked.rows, "others": asked.others}
            for asked in proof.absences
        ],
        "canaries": [
            {
                "id": canary.id,
                "planted_at": stamp(canary.planted_at),
                "rows_before": canary.rows_before,
                "rows_after": canary.rows_after,
                "bytes_before": canary.bytes_before,
                "bytes_after": canary.bytes_after,
            }
            for canary in proof.canaries
        ],
        "statements": [
            {"name": s.name, "result": s.result.value, "numbers": dict(s.numbers), "places": list(s.places)} for s in proof.statements
        ],
        "holds": proof.holds,
        "left_out": list(about.left_out),
        "notes": list(about.notes),
        "limits": list(LIMITS),
        "backups_gone_by": stamp(about.gone_by) if about.gone_by else None,
    }


def sign(content: Mapping[str, Any], keys: Keystore) -> dict[str, Any]:
    """Return the content with its signature."""
    key = keys.signing_key(KEY_NAME)
    return {
        "certificate": dict(content),
        "signature": {
            "algorithm": "Ed25519",
            "key": key.public_key().public_bytes_raw().hex(),
            "value": base64.b64encode(key.sign(DOMAIN + canonical(content))).decode("ascii"),
        },
    }


def canonical(content: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def read(path: Path, trusted: Ed25519PublicKey) -> dict[str, Any]:
    """Return the content of a certificate whose signature holds under the trusted key.

    Raises:
        CertificateError: malformed, or signed by another key, or changed.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        content, signature = document["certificate"], document["signature"]
        value = base64.b64decode(signature["value"], validate=True)
        known = content["format"] == FORMAT and signature["algorithm"] == "Ed25519"
    except OSError:
        raise CertificateError(f"{path}: the certificate cannot be read", "Is the path right?") from None
    except (ValueError, KeyError, TypeError):
        raise CertificateError(f"{path}: this is no certificate of a restore", "See docs/spec/certificate.md.") from None
    if not known:
        raise CertificateError(f"{path}: the format of the certificate is unknown", "Did a newer Obhut write it?")
    try:
        trusted.verify(value, DOMAIN + canonical(content))
    except InvalidSignature:
        raise CertificateError(f"{path}: the signature does not hold", "Was the file changed, or signed by another installation?") from None
    return dict(content)


def unchecked(content: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of statements that were not checked."""
    return [statement["name"] for statement in content["statements"] if statement["result"] == Result.UNCHECKED]
