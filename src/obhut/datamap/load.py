"""Reading ``datamap.yaml``: every fault at once, each with file, line, what, and what to do.

Nothing of a value is quoted in a message but names of tables, columns and words of the format.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from obhut.datamap import positions
from obhut.datamap.findings import DataMapError, Finding
from obhut.datamap.models import DatabaseMap, DataMap
from obhut.datamap.positions import Position, Positions
from obhut.foundation.errors import ObhutError


class DataMapFileError(ObhutError):
    """There is no data map to read."""

    code = "datamap-unreadable"


@dataclass(frozen=True, slots=True)
class Located:
    """A finding with its place in the file."""

    finding: Finding
    file: str
    position: Position

    def __str__(self) -> str:
        return f"{self.file}:{self.position.line}: {self.finding.fact}"


@dataclass(frozen=True)
class LoadedMap:
    """A data map as read from a file, with the line of everything in it."""

    map: DataMap
    positions: Positions
    path: Path

    def database(self, name: str) -> DatabaseMap:
        """Return the map of one database.

        Raises:
            DataMapError: the file does not describe it.
        """
        if name not in self.map.databases:
            known = ", ".join(self.map.databases)
            finding = Finding(
                "database-unknown", (name,), f"{self.path.name} does not describe the database {name}", f"It describes: {known}."
            )
            raise DataMapError([finding])
        return self.map.databases[name]

    def locate(self, findings: Sequence[Finding]) -> list[Located]:
        """Return findings with their places, in the order of the file; ``where`` starts with the name of a database."""
        located = [Located(finding, str(self.path), self.positions.of(("databases", *finding.where))) for finding in findings]
        return sorted(located, key=lambda item: (item.finding.severity.rank, item.position, item.finding.code, item.finding.fact))


def load(path: Path) -> LoadedMap:
    """Read and validate a data map.

    Raises:
        DataMapFileError: there is no such file, or it is larger than a data map can be.
        DataMapError: it is not YAML or does not have the form of a data map; carries every finding. ``where`` is the path from the
            file's top, and each fact starts with ``file:line``.
    """
    try:
        if path.stat().st_size > positions.MAX_BYTES:
            raise DataMapFileError(f"{path} is larger than {positions.MAX_BYTES // 1024 // 1024} MB", "Does the path name the data map?")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataMapFileError(f"{path} is not a text file in UTF-8", "Save it in UTF-8.") from None
    except OSError:
        raise DataMapFileError(f"{path} cannot be read", 'Does it exist? "obhut datamap suggest" writes a first one.') from None
    return loads(text, path)


def loads(text: str, path: Path = Path("datamap.yaml")) -> LoadedMap:
    """Validate the text of a data map; ``path`` only names it in messages.

    Raises:
        DataMapError: as for :func:`load`.
    """
    value, places, problems = positions.read(text)
    findings = [Finding("yaml", problem.path, f"{path.name}:{problem.position.line}: {problem.fact}", problem.todo) for problem in problems]
    if findings:
        raise DataMapError(findings)
    try:
        return LoadedMap(DataMap.model_validate(value), places, path)
    except ValidationError as error:
        findings = [_finding(detail, value, places, path) for detail in error.errors(include_url=False, include_context=True)]
    raise DataMapError(_without_echoes(findings))


def _finding(detail: ErrorDetails, value: object, places: Positions, path: Path) -> Finding:
    written = _written(detail["loc"], value)
    fact, todo = _words(detail, written)
    line = places.of([*written, *detail["loc"][-1:]]).line
    subject = _subject(written)
    return Finding("map-form", tuple(written), f"{path.name}:{line}: {subject}{fact}", todo)


def _without_echoes(findings: list[Finding]) -> list[Finding]:
    """Drop what the other members of a union say about the same place."""
    seen: dict[tuple[str | int, ...], Finding] = {}
    for finding in findings:
        seen.setdefault(finding.where, finding)
    return list(seen.values())


def _written(location: Sequence[str | int], value: object) -> list[str | int]:
    """Return the steps of an error's location that the file has: pydantic adds the members of unions and the parts of short forms."""
    steps: list[str | int] = []
    current: Any = value
    for step in location:
        if positions.has(current, step):
            current = current[step]
            steps.append(step)
    return steps


def _subject(written: Sequence[str | int]) -> str:
    """Return what the message is about, in the words of the file."""
    if len(written) >= 4 and written[0] == "databases" and written[2] in {"tables", "subjects"}:
        kind = "table" if written[2] == "tables" else "subject"
        rest = "".join(f" {step}" if isinstance(step, str) else f" number {step + 1}" for step in written[4:])
        return f"{kind} {written[3]}{rest}: "
    return " ".join(str(step) for step in written) + ": " if written else ""


def _words(detail: ErrorDetails, written: Sequence[str | int]) -> tuple[str, str]:
    """Return fact and what to do for one of pydantic's errors."""
    kind, context = detail["type"], detail.get("ctx", {})
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(last, _known_words(), n=1, cutoff=0.6)
        return f"the word {last} is not known here", f"Did you mean {near[0]}?" if near else "docs/reference/datamap.md lists the words."
    if kind == "missing":
        return f"{last} is missing", f"Add {last}: to this entry."
    if kind in {"value_error", "assertion_error"}:
        return str(context.get("error", "the value cannot be used")), "Correct the entry; docs/reference/datamap.md shows the forms."
    if kind == "string_pattern_mismatch":
        return _pattern(str(context.get("pattern", "")), written)
    if kind in {"enum", "literal_error"}:
        return "the word is not one of those allowed", f"Use one of: {str(context.get('expected', '')).replace(chr(39), '')}."
    if kind in {"too_short", "too_long", "string_too_long"}:
        return "too short or too long", f"At least {context.get('min_length', 0)}, at most {context.get('max_length', 'any number')}."
    return re.sub(r"^Input should be", "should be", detail["msg"]), "docs/reference/datamap.md shows the forms."


def _pattern(pattern: str, written: Sequence[str | int]) -> tuple[str, str]:
    name = str(written[-1]) if written else "the value"
    if pattern.startswith("^P"):
        return "a period is an ISO 8601 duration", "Write P10Y, P6M, P4W or P30D."
    if pattern.startswith(r"^\$"):
        return "a JSON path starts with $ and has names and [*] only", 'Write $.guests[*].id, and quote other names: $."my key".'
    if pattern.startswith("^[a-z]"):
        return "a category has lower-case words joined by dots", "Write user.contact.email, for instance."
    return f"{name} is no table name", "Write schema and table: public.customer."


def _known_words() -> list[str]:
    """Return every word of the format."""
    words: set[str] = set()
    waiting: list[type[BaseModel]] = [DataMap]
    done: set[type[BaseModel]] = set()
    while waiting:
        model = waiting.pop()
        if model in done:
            continue
        done.add(model)
        for name, field in model.model_fields.items():
            words.add(field.alias or name)
            waiting += _models(field.annotation)
    return sorted(words)


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
