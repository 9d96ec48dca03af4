"""What ``suggest`` proposes, as values; :mod:`obhut.datamap.writing` turns them into text."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ColumnProposal:
    """A personal column."""

    name: str
    category: str
    anonymise: str  # YAML text of the rule
    decide: str | None = None
    confidence: float | None = None  # between 0 and 1
    reasons: tuple[str, ...] = ()  # strongest first


@dataclass
class LinkProposal:
    """A link, and why it may be none."""

    to: str
    text: str  # YAML text of the link's other words
    decide: str | None = None


@dataclass
class TableProposal:
    """A table; ``presumed`` personal columns and ``unknown`` ones stay unclassified, so that the check asks about them."""

    name: str
    columns: list[ColumnProposal] = field(default_factory=list)
    not_personal: list[str] = field(default_factory=list)
    presumed: list[str] = field(default_factory=list)  # texts of people that nothing tells more of
    unknown: list[str] = field(default_factory=list)
    links: list[LinkProposal] = field(default_factory=list)
    erase: str | None = None
    personal: bool = True
    decide: list[str] = field(default_factory=list)


@dataclass
class SubjectProposal:
    """A kind of data subject."""

    kind: str
    table: str
    key: tuple[str, ...]
    controller: str | None  # YAML text
    incarnation: str | None
    created: str | None
    identifiers: tuple[str, ...]
    activity: tuple[str, ...]
    decide: list[str] = field(default_factory=list)


@dataclass
class Proposal:
    """The map of one database, as far as names, keys and a sample tell."""

    database: str
    controller: str
    controller_key: tuple[str, ...]
    subjects: list[SubjectProposal]
    tables: list[TableProposal]
    decide: list[str] = field(default_factory=list)

    @property
    def decisions(self) -> int:
        """Number of DECIDE points."""
        found = len(self.decide)
        for subject in self.subjects:
            found += len(subject.decide)
        for table in self.tables:
            found += len(table.decide) + bool(table.unknown) + bool(table.presumed)
            found += sum(1 for column in table.columns if column.decide) + sum(1 for link in table.links if link.decide)
        return found
