"""The mark inside a copy: what it is, from when, by which map, under which label, and what was checked; signed by this installation.

It names the database that it was written into (system identifier and oid), so a mark that travels with a dump into another database does
not speak for that one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature

import obhut
from obhut.clones.errors import CloneMarkError
from obhut.foundation.clock import stamp
from obhut.keystore import Keystore
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.restores.certificate import canonical

FORMAT: Final = "obhut copy 1"
DOMAIN: Final = b"obhut copy v1\n"
KEY_NAME: Final = "copy-mark"
SCHEMA: Final = "obhut"
_MAKE = """
CREATE SCHEMA IF NOT EXISTS obhut;
DROP TABLE IF EXISTS obhut.copy;
CREATE TABLE obhut.copy (
  one boolean PRIMARY KEY DEFAULT true CHECK (one), label text NOT NULL, database text NOT NULL, moment timestamptz NOT NULL,
  map_version text NOT NULL, run text NOT NULL, document text NOT NULL);
COMMENT ON TABLE obhut.copy IS 'This database is a masked copy made by Obhut. "obhut clone verify" checks it.';
GRANT USAGE ON SCHEMA obhut TO PUBLIC;
GRANT SELECT ON obhut.copy TO PUBLIC;
"""
_PLACE = (
    "SELECT (SELECT system_identifier::text FROM pg_control_system()) || ':' || oid FROM pg_database WHERE datname = current_database()"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a copy says about itself.

    ``signed_by`` and ``review_by`` (a date) stand there once somebody answers for its being anonymous. ``roles``: those that it brought to
    a given server, which go with it.
    """

    run: str
    database: str
    moment: datetime
    lsn: str
    map_version: str
    label: str
    subset: str
    statements: tuple[Mapping[str, Any], ...]
    made_at: datetime
    place: str = ""
    signed_by: str = ""
    review_by: str = ""
    roles: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """Return what is signed."""
        return {
            "format": FORMAT,
            "obhut": obhut.__version__,
            "run": self.run,
            "database": self.database,
            "moment": stamp(self.moment),
            "lsn": self.lsn,
            "map": self.map_version,
            "label": self.label,
            "subset": self.subset,
            "statements": [dict(statement) for statement in self.statements],
            "made_at": stamp(self.made_at),
            "place": self.place,
            "signed_by": self.signed_by,
            "review_by": self.review_by,
            "roles": list(self.roles),
        }


def place_of(session: Session) -> str:
    """Return what tells a database from every other: identifier of its system, oid of the database."""
    return str(session.value(_PLACE))


def write(session: Session, mark: Mark, keys: Keystore) -> None:
    """Write the mark into the copy, inside the caller's transaction."""
    content = mark.content()
    key = keys.signing_key(KEY_NAME)
    signature = base64.b64encode(key.sign(DOMAIN + canonical(content))).decode("ascii")
    document = json.dumps({"copy": content, "signature": signature, "key": key.public_key().public_bytes_raw().hex()}, ensure_ascii=False)
    session.execute(_MAKE)
    session.execute(
        "INSERT INTO obhut.copy (label, database, moment, map_version, run, document) VALUES (%s, %s, %s, %s, %s, %s)",
        (mark.label, mark.database, mark.moment, mark.map_version, mark.run, document),
    )


def read(session: Session, keys: Keystore) -> Mark:
    """Return the mark of a database.

    Raises:
        CloneMarkError: there is none, its signature does not hold, or it was written into another database.
    """
    try:
        row = session.row("SELECT document FROM obhut.copy")
    except DatabaseError:
        row = None
    if row is None:
        raise CloneMarkError("the database has no mark of a masked copy", "Only a copy made by obhut clone run carries one.")
    try:
        document = json.loads(row[0])
        content, signature = document["copy"], base64.b64decode(document["signature"], validate=True)
        keys.verifying_key(KEY_NAME).verify(signature, DOMAIN + canonical(content))
        found = _mark(content)
    except InvalidSignature:
        raise CloneMarkError("the signature of the copy's mark does not hold", "Did another installation make the copy?") from None
    except (ValueError, KeyError, TypeError):
        raise CloneMarkError("the mark of the copy is malformed", "Was it changed by hand?") from None
    if found.place != place_of(session):
        raise CloneMarkError("the mark was written into another database", "A dump carries the mark along; make the copy here.")
    return found


def _mark(content: Mapping[str, Any]) -> Mark:
    return Mark(
        run=str(content["run"]),
        database=str(content["database"]),
        moment=datetime.fromisoformat(content["moment"]),
        lsn=str(content["lsn"]),
        map_version=str(content["map"]),
        label=str(content["label"]),
        subset=str(content["subset"]),
        statements=tuple(content["statements"]),
        made_at=datetime.fromisoformat(content["made_at"]),
        place=str(content["place"]),
        signed_by=str(content["signed_by"]),
        review_by=str(content["review_by"]),
        roles=tuple(map(str, content.get("roles", ()))),  # marks of earlier versions name none
    )
