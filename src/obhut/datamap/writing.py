"""A proposal as the text of a ``datamap.yaml`` that a person goes on writing: compact, with a DECIDE remark at every doubt.

Remarks are written in the language in force; the word DECIDE itself stays, so that it can be searched for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from obhut.datamap.proposal import ColumnProposal, Proposal, SubjectProposal, TableProposal
from obhut.foundation.language import text

_WIDTH = 120
_HEAD = (
    'Data map: whose data is where, and what becomes of it. Proposed by "obhut datamap suggest"; the remarks "DECIDE:" mark what only you',
    'can know; the number behind a column is the confidence, the rest says why. "obhut datamap check" lists what is still missing.',
    "All words: docs/reference/datamap.md",
)


def write(proposal: Proposal) -> str:
    """Return the whole text; it loads, and the check's errors are its DECIDE points."""
    return "\n".join([*(f"# {text(line)}" for line in _HEAD), "obhut: 1", "databases:", *_database(proposal)]) + "\n"


def _database(proposal: Proposal) -> Iterator[str]:
    yield f"  {scalar(proposal.database)}:"
    for remark in proposal.decide:
        yield f"    # DECIDE: {text(remark)}"
    yield f"    controller: {{table: {scalar(proposal.controller)}, key: {_list(proposal.controller_key)}}}"
    yield "    subjects:"
    for subject in proposal.subjects:
        yield from _subject(subject)
    yield "    tables:"
    for table in proposal.tables:
        yield from _table(table)


def _subject(subject: SubjectProposal) -> Iterator[str]:
    for remark in subject.decide:
        yield f"      # DECIDE: {text(remark)}"
    yield f"      {scalar(subject.kind)}:"
    yield f"        table: {scalar(subject.table)}"
    yield f"        key: {_list(subject.key)}"
    if subject.controller:
        yield f"        controller: {subject.controller}"
    if subject.incarnation:
        yield f"        incarnation: [{scalar(subject.incarnation)}]"
    if subject.created:
        yield f"        created: {scalar(subject.created)}"
    if subject.identifiers:
        yield f"        identifiers: {_list(subject.identifiers)}"
    if subject.activity:
        yield f"        activity: {_list(subject.activity)}"


def _table(table: TableProposal) -> Iterator[str]:
    if not table.personal and not table.decide and not table.links:
        yield f"      {scalar(table.name)}: {{personal: false}}"
        return
    for remark in table.decide:
        yield f"      # DECIDE: {text(remark)}"
    lines = list(_rules(table))
    if all(line.lstrip().startswith("#") for line in lines):  # remarks alone are no value in YAML
        yield from (line[2:] for line in lines)
        yield f"      {scalar(table.name)}: {'{}' if lines else '{personal: false}'}"
        return
    yield f"      {scalar(table.name)}:"
    yield from lines


def _rules(table: TableProposal) -> Iterator[str]:
    if table.columns:
        yield "        columns:"
    for column in table.columns:
        rule = f"{{category: {column.category}, anonymise: {column.anonymise}}}" if column.anonymise else column.category
        yield f"          {scalar(column.name)}: {rule}{_remark(column.decide, _reason(column))}"
    if table.presumed:
        yield f"        # DECIDE: {text('personal by its place, or not?')} {', '.join(table.presumed)}"
    if table.unknown:
        yield f"        # DECIDE: {text('personal or not?')} {', '.join(table.unknown)}"
    if table.not_personal:
        yield from _wrapped("        not_personal: ", table.not_personal)
    if table.links:
        yield "        links:"
    for link in table.links:
        yield f"          - {{to: {scalar(link.to)}, {link.text}}}{_remark(link.decide)}"
    if table.erase:
        yield f"        erase: {table.erase}"


def _reason(column: ColumnProposal) -> str | None:
    return None if column.confidence is None else f"{column.confidence:.2f}, {'; '.join(column.reasons)}"


def _remark(decide: str | None, reason: str | None = None) -> str:
    if decide is None:
        return f"  # {reason}" if reason else ""
    return f"  # DECIDE: {text(decide)}" + (f" ({reason})" if reason else "")


def scalar(name: str) -> str:
    """Return a name as a YAML scalar, quoted where it needs to be."""
    bare = name.replace("_", "").replace(".", "").isalnum() and name.isascii() and not name[0].isdigit()
    if bare and name.lower() not in {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}:
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _list(names: Sequence[str]) -> str:
    return "[" + ", ".join(scalar(name) for name in names) + "]"


def _wrapped(lead: str, names: Sequence[str]) -> Iterator[str]:
    line = f"{lead}["
    for index, name in enumerate(names):
        piece = scalar(name) + ("," if index < len(names) - 1 else "]")
        if len(line) + len(piece) + 1 > _WIDTH:
            yield line.rstrip()
            line = " " * 10
        line += piece + " "
    yield line.rstrip()
