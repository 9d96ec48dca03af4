"""``obhut datamap suggest``: a first data map from what discovery found.

It proposes and never decides: what it does not know stays unclassified, and every guess that could hurt carries a DECIDE remark.
"""

from __future__ import annotations

from typing import Final

from obhut.datamap import vocabulary
from obhut.datamap.discovery import names
from obhut.datamap.discovery.findings import discover, is_about_people
from obhut.datamap.discovery.landscape import Landscape, kind_of
from obhut.datamap.discovery.looking import Sampled, sample
from obhut.datamap.discovery.treatments import treatment
from obhut.datamap.discovery.weighing import Verdict
from obhut.datamap.proposal import ColumnProposal, LinkProposal, Proposal, SubjectProposal, TableProposal
from obhut.datamap.surroundings import Surroundings
from obhut.datamap.writing import scalar
from obhut.postgres.catalogue import Action, Catalogue, Column, ForeignKey, Table

__all__ = ["sample", "suggest"]

_REASONS: Final = 3
_IDENTIFIERS: Final = 4


def suggest(database: str, catalogue: Catalogue, sampled: Sampled | None = None, surroundings: Surroundings | None = None) -> Proposal:
    """Return a proposal. Pure.

    Args:
        database: name of the protected database in the map.
        catalogue: what it contains.
        sampled: what values look like, from :func:`sample`; without it names and types decide alone.
        surroundings: enums, CHECK constraints and the like.
    """
    around = surroundings or Surroundings()
    return _Suggestion(Landscape(catalogue, discover(catalogue, sampled, around), around)).proposal(database)


class _Suggestion:
    """Turns a landscape into a proposal, subject by subject and table by table."""

    def __init__(self, land: Landscape) -> None:
        self.land = land

    def proposal(self, database: str) -> Proposal:
        land, decide = self.land, list[str]()
        controller = land.controller or (land.subject_tables or land.tables)[0]
        if land.controller is None:
            decide.append("no table of controllers (your customers) was found; name it")
        if not land.subject_tables:
            decide.append("no table of people was found; name it and the links that lead to it")
        if land.discovery.unseen:
            unseen = ", ".join(sorted(land.catalogue.tables[oid].full_name for oid in land.discovery.unseen))
            decide.append(f"no value of {unseen} could be looked at (no privilege, foreign, or too slow); names alone decided there")
        kinds: dict[str, SubjectProposal] = {}
        for table in land.subject_tables:
            kind = kind_of(table)
            kind = kind if kind not in kinds else f"{kind}_{len(kinds)}"
            kinds[kind] = self._subject(kind, table, controller)
        if not kinds:
            kinds["person"] = self._subject("person", controller, controller)
        tables = [self._table(table) for table in land.tables]
        return Proposal(database, controller.full_name, controller.primary_key, list(kinds.values()), tables, decide)

    def _subject(self, kind: str, table: Table, controller: Table) -> SubjectProposal:
        created = next((name for name in vocabulary.CREATED_NAMES if name in table.by_name), None)
        moments = tuple(name for name in vocabulary.ACTIVITY_NAMES if name in table.by_name)
        sure = [name for name, category in self.land.discovery.sure(table.oid).items() if vocabulary.identifies(category)]
        proposal = SubjectProposal(kind, table.full_name, table.primary_key, None, created, created, tuple(sure[:_IDENTIFIERS]), moments)
        if created is None:
            proposal.decide.append("no column tells when the person came; which column tells this person from the next with the same key?")
        proposal.controller, doubt = self._controller_path(table, controller)
        if doubt:
            proposal.decide.append(doubt)
        return proposal

    def _controller_path(self, table: Table, controller: Table) -> tuple[str | None, str | None]:
        if table.oid == controller.oid:
            return None, "which column leads to the controller?"
        hops = self.land.way_to(table, controller)
        if not hops:
            text = f"{{{scalar(table.primary_key[0])}: {scalar(controller.primary_key[0])}}}"
            return text, "no foreign key leads to the controller; which column does? (this one is a placeholder)"
        if len(hops) == 1:
            return _pairs(hops[0]), None
        root = self.land.root
        written = ", ".join(f"{{to: {self.land.catalogue.tables[root(hop.references)].full_name}, columns: {_pairs(hop)}}}" for hop in hops)
        return f"[{written}]", "the way to the controller was guessed along foreign keys; is it the right one?"

    def _table(self, table: Table) -> TableProposal:
        land, proposal = self.land, TableProposal(table.full_name)
        self._links(table, proposal)
        self._columns(table, proposal)
        if table.oid in land.shared:
            proposal.erase = "delete_if_orphaned"
            proposal.decide.append("people share rows of this table; goes with the last of them")
        elif table.oid in land.distance:
            self._erase(table, proposal)
        elif not (proposal.columns or proposal.unknown or proposal.presumed):
            proposal.personal = False
        if proposal.columns and table.oid not in land.distance and table.oid not in land.shared:
            proposal.decide.append(
                "no way leads from here to a person: add a link, a subject kind, or personal: false if it is about nobody"
            )
        return proposal

    def _erase(self, table: Table, proposal: TableProposal) -> None:
        blocked = self._remaining(table)
        proposal.erase = "delete"
        if self.land.distance[table.oid] == 0 and blocked:
            listed = ", ".join(sorted({self.land.catalogue.tables[self.land.root(key.table)].full_name for key in blocked}))
            proposal.erase = "anonymise"
            proposal.decide.append(f"rows of {listed} keep naming it, so it is anonymised instead of deleted")
        if "books" in names.about(table.name):
            proposal.decide.append(
                "does the law keep these rows? Then erase: {keep: § 147 AO, for: P10Y} and anonymise or keep its parents, too"
            )

    def _remaining(self, table: Table) -> list[ForeignKey]:
        """Foreign keys of rows that would forbid to delete a row of this table: those of people further away, which no link follows."""
        root = self.land.root
        return [
            key
            for key in self.land.keys_to(table.oid)
            if root(key.table) != table.oid and key.on_delete in {Action.NO_ACTION, Action.RESTRICT} and not self.land.follows(key)
        ]

    def _links(self, table: Table, proposal: TableProposal) -> None:
        land = self.land
        if land.controller is not None and table.oid == land.controller.oid:
            return
        seen: set[int] = set()
        # The key that every row has says whose row it is; one that may be missing names a second person.
        for key in sorted(land.keys_of(table.oid), key=lambda key: any(not table.by_name[column].not_null for column in key.columns)):
            parent = land.root(key.references)
            if parent not in land.distance or land.distance.get(table.oid, 0) == 0 or parent == table.oid:
                continue
            name = land.catalogue.tables[parent].full_name
            nullable = all(not table.by_name[column].not_null for column in key.columns)
            if not land.follows(key) or (nullable and parent in seen):
                if nullable and land.distance[parent] == 0:
                    text = f"columns: {_pairs(key)}, erase: unlink"
                    proposal.links.append(LinkProposal(name, text, "a second person in the row: unlink or delete?"))
                continue
            decide = "two keys lead to the same people: does an erasure of either delete the row?" if parent in seen else None
            seen.add(parent)
            proposal.links.append(LinkProposal(name, f"columns: {_pairs(key)}", decide))
        proposal.links += [reference.link for reference in land.declared.get(table.oid, ())]

    def _columns(self, table: Table, proposal: TableProposal) -> None:
        verdicts = self.land.discovery.verdicts[table.oid]
        linked = {name for link in self.land.declared.get(table.oid, ()) for name in _linked(link.link, table)}
        for column in table.columns:
            verdict = verdicts[column.name]
            if verdict.presumed and column.name not in linked:
                proposal.presumed.append(column.name)
            elif verdict.category is not None and column.name not in linked:
                proposal.columns.append(self._column(table, column, verdict, verdict.category))
            elif verdict.open and column.name not in linked:
                proposal.unknown.append(column.name)
            else:
                proposal.not_personal.append(column.name)

    def _column(self, table: Table, column: Column, verdict: Verdict, category: str) -> ColumnProposal:
        document = self.land.discovery.documents.get(table.oid, {}).get(column.name)
        rule = treatment(table, column, category, document, self.land.surroundings)
        question = None
        if not verdict.sure:
            question = f"{category}?"
        elif not is_about_people(self.land.discovery.standings[table.oid]):
            question = "is it about a person here?"
        elif document is not None and not document.complete:
            question = "JSON with paths that nobody could name; the whole document goes"
        return ColumnProposal(column.name, category, rule, question, verdict.confidence, verdict.reasons[:_REASONS])


def _linked(link: LinkProposal, table: Table) -> list[str]:
    """Return the columns that a proposed link takes."""
    written = ((column.name, scalar(column.name)) for column in table.columns)
    return [name for name, text in written if f"{{{text}: " in link.text or f"array: {text}," in link.text]


def _pairs(key: ForeignKey) -> str:
    pairs = zip(key.columns, key.referenced_columns, strict=True)
    return "{" + ", ".join(f"{scalar(mine)}: {scalar(theirs)}" for mine, theirs in pairs) + "}"
