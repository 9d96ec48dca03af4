"""The schema as pg_dump tells it, cut into entries that are executed one by one.

pg_restore would do, but for a kill in the middle: it keeps no record. Here each entry after the data is executed and recorded in one
transaction, all entries before the data in a single one, so that a resumed restore knows exactly what is there. The cut is checked
against pg_restore's own table of contents; a difference refuses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from obhut.postgres.clusters import Binaries
from obhut.restores.errors import RestoreError

_HEADER = re.compile(
    r"^--\n-- Name: (?P<tag>.*); Type: (?P<kind>[A-Z ]+); Schema: (?P<schema>[^;]*); Owner: ?(?P<owner>[^;\n]*)(?:; Tablespace: .*)?\n--\n",
    re.MULTILINE,
)
_ROLE = re.compile(r'^CREATE ROLE (?P<name>"(?:[^"]|"")+"|[^ ;]+);$')
_ALTERED = re.compile(r'^ALTER ROLE (?P<name>"(?:[^"]|"")+"|[^ ;]+) ')
_COMMAND = re.compile(r"\\(restrict|unrestrict|connect) \S")  # for psql; not at the start of any line of SQL that pg_dump writes
_CONTENT = re.compile(r"^\d+; \d+ \d+ (?P<rest>.+)$")


class Section(StrEnum):
    """The two halves of a schema around the data."""

    PRE_DATA = "pre-data"
    POST_DATA = "post-data"


@dataclass(frozen=True, slots=True)
class Entry:
    """One object's definition."""

    number: int  # position in its section; the name under which it is recorded as done
    section: Section
    kind: str  # TABLE, INDEX, FK CONSTRAINT, …
    schema: str
    tag: str  # pg_dump's name of it, for example "users users_pkey"
    sql: str

    @property
    def name(self) -> str:
        """The object in words, such as ``INDEX public.users_email_idx``; names of objects only."""
        return f"{self.kind} {self.tag}" if self.schema == "-" else f"{self.kind} {self.schema}.{self.tag}"


def dump(programs: Binaries, url: str, directory: Path, *, snapshot: str = "") -> dict[Section, list[Entry]]:
    """Return both halves of the schema of a database.

    Args:
        programs: of the source's major version.
        url: the quarantine.
        directory: private; keeps the dump for this run.
        snapshot: exported by another session, where the database is alive.

    Raises:
        RestoreError: the text does not fall into the entries that pg_restore lists.
        ProgramFailedError: pg_dump failed.
    """
    found: dict[Section, list[Entry]] = {}
    for section in Section:
        archive = directory / f"{section.value}.dump"
        programs.run(
            ["pg_dump", "--format=custom", "--create", "--schema-only", f"--section={section.value}", "--no-tablespaces",
             *([f"--snapshot={snapshot}"] if snapshot else []), "--file", archive, "--dbname", url],
        )  # fmt: skip
        archive.chmod(0o600)
        text = programs.run(["pg_restore", "--create", "--file=-", "--no-tablespaces", archive]).stdout
        entries = cut(text, section)
        listed = _listed(programs.run(["pg_restore", "--create", "--list", archive]).stdout)
        if len(entries) != listed:
            raise RestoreError(
                f"the {section.value} schema has {listed} entries and its text {len(entries)}",
                "Does a comment imitate the headings of pg_dump? Report this.",
            )
        found[section] = entries
    return found


def cut(text: str, section: Section) -> list[Entry]:
    """Return the entries of pg_restore's text."""
    heads = list(_HEADER.finditer(text))
    entries = []
    for index, head in enumerate(heads):
        end = heads[index + 1].start() if index + 1 < len(heads) else len(text)
        sql = text[head.end() : end]
        if index + 1 == len(heads):
            sql = sql.split("\n--\n-- PostgreSQL database dump complete\n--", 1)[0]
        sql = "\n".join(line for line in sql.splitlines() if not _COMMAND.match(line)).strip()
        schema = head["schema"]
        entries.append(Entry(index, section, head["kind"], schema, head["tag"], sql))
    return entries


def _listed(contents: str) -> int:
    # pg_restore lists a few entries that have no text of their own heading.
    return sum(1 for line in contents.splitlines() if (match := _CONTENT.match(line)) and not match["rest"].startswith(_SILENT))


_SILENT = ("ENCODING", "STDSTRINGS", "SEARCHPATH")


def roles(programs: Binaries, url: str, *, passwords: bool = True) -> list[str]:
    """Return the statements that make the roles of a cluster, without comments; the server's own roles are left out."""
    bare = [] if passwords else ["--no-role-passwords"]
    text = programs.run(["pg_dumpall", "--roles-only", "--no-comments", *bare, "--dbname", url]).stdout
    lines = []
    for line in text.splitlines():
        if line.startswith(("--", "\\", "SET ")) or not line.strip():
            continue
        lines.append(line)
    return lines


def of_the_database(entries: Mapping[Section, Sequence[Entry]]) -> tuple[str, ...]:
    """Return the names of the privileges and comments of the database itself."""
    kinds = {"ACL", "COMMENT", "SECURITY LABEL"}
    return tuple(entry.name for part in entries.values() for entry in part if entry.kind in kinds and entry.tag.startswith("DATABASE "))


def missing_roles(statements: Collection[str], existing: Collection[str], *, alter: bool = True) -> list[str]:
    """Return the statements without the creation of roles that exist.

    Without ``alter`` such roles keep their attributes and passwords, too: on a given server they are somebody else's.
    """
    kept = []
    for line in statements:
        match = _ROLE.match(line) or (None if alter else _ALTERED.match(line))
        if match and _unquoted(match["name"]) in existing:
            continue
        kept.append(line)
    return kept


def created_roles(statements: Collection[str]) -> list[str]:
    """Return the names of the roles that statements create."""
    return [_unquoted(match["name"]) for line in statements if (match := _ROLE.match(line))]


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
