"""``obhut datamap suggest``: a first data map from names, types, keys and a bounded sample.

It proposes and never decides: what it does not know stays unclassified, and every guess that could hurt carries a DECIDE remark.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from obhut.datamap import vocabulary
from obhut.datamap.proposal import ColumnProposal, LinkProposal, Proposal, SubjectProposal, TableProposal
from obhut.datamap.sampling import Sample, look
from obhut.datamap.surroundings import Surroundings
from obhut.postgres.catalogue import Action, Catalogue, Column, ForeignKey, Table
from obhut.postgres.connections import Session

_HARMLESS_TYPES: Final = {"boolean", "smallint", "integer", "bigint", "numeric", "real", "double precision", "uuid", "oid", "interval"}
_TEMPORAL: Final = {"date", "timestamp without time zone", "timestamp with time zone", "time without time zone", "time with time zone"}
_TEXT: Final = {"text", "character varying", "character", "citext"}
_JSON: Final = {"json", "jsonb"}
_TYPE_SUFFIXES: Final = ("_type", "_kind", "_class", "_typ")
# Tables that the law may want kept for years.
_BOOKS: Final = frozenset(
    (
        "invoice",
        "invoices",
        "rechnung",
        "rechnungen",
        "payment",
        "payments",
        "zahlung",
        "zahlungen",
        "order",
        "orders",
        "buchung",
        "bookkeeping",
    )
)
Samples = Mapping[int, Mapping[str, Sample]]


def sample(session: Session, catalogue: Catalogue) -> dict[int, dict[str, Sample]]:
    """Return what the values of every table look like, by oid and column; only counts leave the server."""
    return {table.oid: look(session, table, catalogue.leaves(table.oid)) for table in catalogue.roots}


def suggest(database: str, catalogue: Catalogue, samples: Samples | None = None, surroundings: Surroundings | None = None) -> Proposal:
    """Return a proposal. Pure.

    Args:
        database: name of the protected database in the map.
        catalogue: what it contains.
        samples: what values look like, from :func:`sample`; without it names and types decide alone.
        surroundings: enums and the like.
    """
    return _Suggestion(database, catalogue, samples or {}, surroundings or Surroundings()).run()


@dataclass
class _Suggestion:
    database: str
    catalogue: Catalogue
    samples: Samples
    surroundings: Surroundings
    decide: list[str] = field(default_factory=list)

    @cached_property
    def tables(self) -> list[Table]:
        return self.catalogue.roots

    @cached_property
    def keys(self) -> list[ForeignKey]:
        """Foreign keys between topmost tables; one for a key that every partition declares."""
        found: dict[tuple[int, tuple[str, ...], int], ForeignKey] = {}
        for key in self.catalogue.foreign_keys:
            found.setdefault((self.root(key.table), key.columns, self.root(key.references)), key)
        return list(found.values())

    def root(self, oid: int) -> int:
        return self.catalogue.root(oid).oid

    @cached_property
    def incoming(self) -> dict[int, int]:
        counts: dict[int, int] = defaultdict(int)
        for key in self.keys:
            if self.root(key.table) != self.root(key.references):
                counts[self.root(key.references)] += 1
        return counts

    @cached_property
    def guesses(self) -> dict[int, dict[str, vocabulary.Guess]]:
        """Categories by table and column: the sample beats the name, a strong name beats a weak one."""
        found: dict[int, dict[str, vocabulary.Guess]] = {}
        for table in self.tables:
            found[table.oid] = {}
            for column in table.columns:
                guess = self._guess(table, column)
                if guess:
                    found[table.oid][column.name] = guess
        return found

    def _guess(self, table: Table, column: Column) -> vocabulary.Guess | None:
        if seen := self.samples.get(table.oid, {}).get(column.name):
            return vocabulary.Guess(seen.category, True, f"{seen.share:.0%} of {seen.rows} sampled values look like it")
        if column.base_type in {"inet", "cidr"}:
            return vocabulary.Guess("user.device.ip_address", True, "its type holds addresses")
        named = vocabulary.guess(column.name)
        commented = None
        for word in vocabulary.words(column.comment or ""):
            commented = vocabulary.guess(word)
            if commented and commented.strong:
                break
        guess = named or (vocabulary.Guess(commented.category, False, "its comment says so") if commented and commented.strong else None)
        if guess is None or (column.base_type == "boolean"):
            return None
        fits = (
            column.base_type in _TEXT | _JSON | {"bytea"}
            or column.category in {"A", "E", "U"}
            or (guess.strong and column.base_type not in _HARMLESS_TYPES)
        )
        return guess if fits or (guess.strong and column.base_type in {"bigint", "numeric", "integer", "date"}) else None

    # -- who ------------------------------------------------------------------------------------------------------------------

    @cached_property
    def subject_tables(self) -> list[Table]:
        """Tables in which a row is a person: named so, or with a person's name and address for contact, and referenced."""
        scored: list[tuple[int, str, Table]] = []
        for table in self.tables:
            strong = {guess.category for guess in self.guesses[table.oid].values() if guess.strong}
            named = (
                bool(set(vocabulary.words(table.name)) & vocabulary.SUBJECT_WORDS)
                and not set(vocabulary.words(table.name)) & vocabulary.EVENT_WORDS
            )
            contact = any(category.startswith(("user.contact.email", "user.account", "user.authorization.password")) for category in strong)
            person = any(category.startswith("user.name") for category in strong)
            score = 3 * named + 2 * contact + 2 * person + min(2, self.incoming[table.oid])
            if table.primary_key and strong and score >= 5 and (contact or person) and not self._is_detail(table):
                scored.append((-score, table.full_name, table))
        return [table for _, _, table in sorted(scored)]

    def _is_detail(self, table: Table) -> bool:
        """Whether a row only adds to another table's row: its primary key is a foreign key."""
        return any(self.root(key.table) == table.oid and set(key.columns) == set(table.primary_key) for key in self.keys)

    @cached_property
    def controller(self) -> Table | None:
        """The table of the vendor's customers: named so, and reached from the people by a foreign key."""
        subjects = {table.oid for table in self.subject_tables}
        parents: dict[int, int] = defaultdict(int)
        for key in self.keys:
            if self.root(key.table) in subjects and self.root(key.references) not in subjects:
                parents[self.root(key.references)] += 1
        best: list[tuple[int, int, str, Table]] = []
        for table in self.tables:
            if table.oid in subjects:
                continue
            named = bool(set(vocabulary.words(table.name)) & vocabulary.CONTROLLER_WORDS)
            if named and table.primary_key:
                best.append((-parents[table.oid], -self.incoming[table.oid], table.full_name, table))
        return min(best)[3] if best else None

    # -- how they hang together --------------------------------------------------------------------------------------------------

    @cached_property
    def distance(self) -> dict[int, int]:
        """Steps from a person, along links against foreign keys; people are at 0. The controller's own rows are nobody's."""
        controller = self.controller.oid if self.controller else -1
        found = {table.oid: 0 for table in self.subject_tables}
        waiting = deque(found)
        while waiting:
            oid = waiting.popleft()
            for child in self._children.get(oid, ()):
                if child not in found and child != controller:
                    found[child] = found[oid] + 1
                    waiting.append(child)
        return found

    @cached_property
    def _children(self) -> dict[int, set[int]]:
        children: dict[int, set[int]] = defaultdict(set)
        for key in self.keys:
            children[self.root(key.references)].add(self.root(key.table))
        for child, links in self._declared.items():
            for parent, _ in links:
                children[parent].add(child)
        return children

    @cached_property
    def shared(self) -> set[int]:
        """Tables with personal values that people reference instead of being referenced: an address, say."""
        people = {table.oid for table in self.subject_tables}
        found = set()
        for key in self.keys:
            parent = self.root(key.references)
            strong = [guess for guess in self.guesses[parent].values() if guess.strong]
            if (
                self.root(key.table) in people
                and parent not in self.distance
                and strong
                and parent != (self.controller.oid if self.controller else -1)
            ):
                found.add(parent)
        return found

    @cached_property
    def _declared(self) -> dict[int, list[tuple[int, LinkProposal]]]:
        """Links without a foreign key, by child: polymorphic pairs, arrays of ids, columns named after a person's table, ids in JSON."""
        people = {table.oid: table for table in self.subject_tables}
        found: dict[int, list[tuple[int, LinkProposal]]] = defaultdict(list)
        for table in self.tables:
            bound = {name for key in self.keys if self.root(key.table) == table.oid for name in key.columns}
            for column in table.columns:
                if column.name in bound or column.is_generated or column.name in table.primary_key:
                    continue
                for subject in people.values():
                    link = self._declare(table, column, subject)
                    if link is not None:
                        found[table.oid].append((subject.oid, link))
        return found

    def _declare(self, table: Table, column: Column, subject: Table) -> LinkProposal | None:
        if len(subject.primary_key) != 1 or subject.oid == table.oid:
            return None
        key = subject.by_name[subject.primary_key[0]]
        stems = {subject.name, subject.name.rstrip("s"), subject.name.removesuffix("es"), subject.name.removesuffix("n")}
        name, base = column.name.lower(), column.base_type
        ids = {f"{stem}_{end}" for stem in stems for end in ("id", "ids", "no", "nr", key.name)} | (
            {key.name, f"{key.name}s"} - {"id", "ids"}
        )
        if column.category == "A" and base == f"{key.base_type}[]" and (name in ids or name.removesuffix("s") in ids):
            return LinkProposal(subject.full_name, f"array: {_q(column.name)}, erase: unlink", "an array of keys by its name; is it so?")
        if base in _JSON:
            return None
        for suffix in _TYPE_SUFFIXES:
            kind = table.by_name.get(column.name.removesuffix("_id") + suffix) if name.endswith("_id") else None
            if kind is not None and (kind.base_type in _TEXT or kind.category == "E") and (base == key.base_type or base in _TEXT):
                value = next((label for label in self.surroundings.enums.get(kind.type, ()) if label.lower().rstrip("s") in stems), None)
                guess = value or "".join(word.capitalize() for word in vocabulary.words(subject.name.removesuffix("s")))
                text = f"columns: {{{_q(column.name)}: {_q(key.name)}}}, when: {{{_q(kind.name)}: {_q(guess)}}}"
                return LinkProposal(
                    subject.full_name, text, f"a polymorphic pair by its names; which value of {kind.name} stands for {subject.name}?"
                )
        if name in ids and base == key.base_type:
            return LinkProposal(
                subject.full_name, f"columns: {{{_q(column.name)}: {_q(key.name)}}}", "no foreign key says so, only the name"
            )
        return None

    # -- the proposal ----------------------------------------------------------------------------------------------------------------

    def run(self) -> Proposal:
        controller = self.controller or (self.subject_tables or self.tables)[0]
        if self.controller is None:
            self.decide.append("no table of controllers (your customers) was found; name it")
        if not self.subject_tables:
            self.decide.append("no table of people was found; name it and the links that lead to it")
        kinds: dict[str, SubjectProposal] = {}
        for table in self.subject_tables:
            kind = "_".join(vocabulary.words(table.name)) or "person"
            kind = kind.encode("ascii", "ignore").decode().removesuffix("s") or "person"
            kinds.setdefault(kind if kind not in kinds else f"{kind}_{len(kinds)}", self._subject(kind, table, controller))
        if not kinds:
            kinds["person"] = self._subject("person", controller, controller)
        for kind, proposed in kinds.items():
            proposed.kind = kind
        return Proposal(
            self.database,
            controller.full_name,
            controller.primary_key,
            list(kinds.values()),
            [self._table(table) for table in self.tables],
            self.decide,
        )

    def _subject(self, kind: str, table: Table, controller: Table) -> SubjectProposal:
        created = next((name for name in vocabulary.CREATED_NAMES if name in table.by_name), None)
        moments = tuple(name for name in vocabulary.ACTIVITY_NAMES if name in table.by_name)
        strong = [name for name, guess in self.guesses[table.oid].items() if guess.strong and vocabulary.identifies(guess.category)]
        proposal = SubjectProposal(kind, table.full_name, table.primary_key, None, created, created, tuple(strong[:4]), moments)
        if created is None:
            proposal.decide.append("no column tells when the person came; which column tells this person from the next with the same key?")
        proposal.controller, doubt = self._controller_path(table, controller)
        if doubt:
            proposal.decide.append(doubt)
        return proposal

    def _controller_path(self, table: Table, controller: Table) -> tuple[str | None, str | None]:
        if table.oid == controller.oid:
            return None, "which column leads to the controller?"
        before: dict[int, ForeignKey] = {}
        waiting = deque([table.oid])
        while waiting and controller.oid not in before:
            oid = waiting.popleft()
            for key in self.keys:
                parent = self.root(key.references)
                if self.root(key.table) == oid and parent not in before and parent != table.oid:
                    before[parent] = key
                    waiting.append(parent)
        if controller.oid not in before:
            mine, theirs = table.primary_key[0], controller.primary_key[0]
            text = f"{{{_q(mine)}: {_q(theirs)}}}"
            return text, "no foreign key leads to the controller; which column does? (this one is a placeholder)"
        hops: list[ForeignKey] = []
        oid = controller.oid
        while oid != table.oid:
            hops.insert(0, before[oid])
            oid = self.root(before[oid].table)
        if len(hops) == 1:
            return _pairs(hops[0]), None
        written = ", ".join(f"{{to: {self.catalogue.tables[self.root(hop.references)].full_name}, columns: {_pairs(hop)}}}" for hop in hops)
        return f"[{written}]", "the way to the controller was guessed along foreign keys; is it the right one?"

    def _table(self, table: Table) -> TableProposal:
        proposal = TableProposal(table.full_name)
        near = table.oid in self.distance or table.oid in self.shared
        self._links(table, proposal)
        self._columns(table, proposal, near=near)
        if table.oid in self.shared:
            proposal.erase = "delete_if_orphaned"
            proposal.decide.append("people share rows of this table; goes with the last of them")
        elif table.oid in self.distance:
            self._erase(table, proposal)
        elif not proposal.columns and not proposal.unknown:
            proposal.personal = False
        if proposal.columns and not near:
            proposal.decide.append(
                "no way leads from here to a person: add a link, a subject kind, or personal: false if it is about nobody"
            )
        return proposal

    def _erase(self, table: Table, proposal: TableProposal) -> None:
        blocked = self._remaining(table)
        proposal.erase = "delete"
        if self.distance[table.oid] == 0 and blocked:
            names = ", ".join(sorted({self.catalogue.tables[self.root(key.table)].full_name for key in blocked}))
            proposal.erase = "anonymise"
            proposal.decide.append(f"rows of {names} keep naming it, so it is anonymised instead of deleted")
        if set(vocabulary.words(table.name)) & _BOOKS:
            proposal.decide.append(
                "does the law keep these rows? Then erase: {keep: § 147 AO, for: P10Y} and anonymise or keep its parents, too"
            )

    def _remaining(self, table: Table) -> list[ForeignKey]:
        """Foreign keys of rows that would forbid to delete a row of this table: those of people further away, which no link follows."""
        return [
            key
            for key in self.keys
            if self.root(key.references) == table.oid
            and self.root(key.table) != table.oid
            and key.on_delete in {Action.NO_ACTION, Action.RESTRICT}
            and not self._follows(key)
        ]

    def _follows(self, key: ForeignKey) -> bool:
        """Whether a link goes along the key: the child is further from a person, and the key is its best way there."""
        child, parent = self.root(key.table), self.root(key.references)
        if child not in self.distance or parent not in self.distance or self.distance[child] == 0:
            return False
        people = [
            self.root(other.references)
            for other in self.keys
            if self.root(other.table) == child and self.distance.get(self.root(other.references)) == 0
        ]
        # With several people in one row, the first by rank owns it; the others are only named in it.
        ranks = {found.oid: rank for rank, found in enumerate(self.subject_tables)}
        owner = min(people, key=lambda oid: ranks[oid]) if people else None
        return (
            parent == owner
            if parent in ranks and owner is not None
            else self.distance[parent] < self.distance[child] or parent not in ranks
        )

    def _links(self, table: Table, proposal: TableProposal) -> None:
        if table.oid == (self.controller.oid if self.controller else None):
            return
        seen: set[int] = set()
        own = [key for key in self.keys if self.root(key.table) == table.oid]
        # The key that every row has says whose row it is; one that may be missing names a second person.
        for key in sorted(own, key=lambda key: any(not table.by_name[column].not_null for column in key.columns)):
            parent = self.root(key.references)
            if parent not in self.distance or self.distance.get(table.oid, 0) == 0 or parent == table.oid:
                continue
            name = self.catalogue.tables[parent].full_name
            nullable = all(not table.by_name[column].not_null for column in key.columns)
            if not self._follows(key) or (nullable and parent in seen):
                if nullable and self.distance[parent] == 0:
                    proposal.links.append(
                        LinkProposal(name, f"columns: {_pairs(key)}, erase: unlink", "a second person in the row: unlink or delete?")
                    )
                continue
            decide = "two keys lead to the same people: does an erasure of either delete the row?" if parent in seen else None
            seen.add(parent)
            proposal.links.append(LinkProposal(name, f"columns: {_pairs(key)}", decide))
        proposal.links += [link for _, link in self._declared.get(table.oid, ())]

    def _columns(self, table: Table, proposal: TableProposal, *, near: bool) -> None:
        linked = {name for key in self.keys if self.root(key.table) == table.oid for name in key.columns} | set(table.primary_key)
        for column in table.columns:
            guess = self.guesses[table.oid].get(column.name)
            if column.name in linked:
                proposal.not_personal.append(column.name)
            elif guess is not None and (near or guess.strong):
                decide = None if guess.strong else f"{guess.category}? {guess.reason}"
                proposal.columns.append(ColumnProposal(column.name, guess.category, self._anonymise(table, column), decide))
            elif column.is_generated or column.base_type in _HARMLESS_TYPES | _TEMPORAL or column.category == "E" or not near:
                # Far from every person a column without a telling name counts as harmless; near one, text has to be looked at.
                proposal.not_personal.append(column.name)
            elif vocabulary.harmless(column.name):
                proposal.not_personal.append(column.name)
            else:
                proposal.unknown.append(column.name)

    def _anonymise(self, table: Table, column: Column) -> str:
        key = table.primary_key[0] if table.primary_key else None
        unique = any(column.name in found.columns for found in table.keys)
        if column.is_generated or column.name in table.primary_key:
            return ""
        if not column.not_null:
            return "null"
        if column.base_type in _TEXT:
            room = column.modifier - 4 if column.base_type != "text" and column.modifier > 0 else 1000
            if unique and key and room >= 16:
                return f'{{template: "erased-{{{key}}}"}}'
            return "{constant: erased}" if room >= 6 and not unique else "empty"
        if column.category == "A" or column.base_type in _JSON | {"bytea"}:
            return "empty"
        if column.base_type in _TEMPORAL and "time without" not in column.base_type:
            return "{constant: 1900-01-01}"
        if column.base_type in {"inet", "cidr"}:
            return "{constant: 0.0.0.0}"
        labels = self.surroundings.enums.get(column.type)
        return f"{{constant: {_q(labels[0])}}}" if labels else "{constant: 0}" if column.category == "N" else "null"


def _pairs(key: ForeignKey) -> str:
    return "{" + ", ".join(f"{_q(mine)}: {_q(theirs)}" for mine, theirs in zip(key.columns, key.referenced_columns, strict=True)) + "}"


def _q(name: str) -> str:
    """Return a name as a YAML scalar within a flow collection."""
    plain = (
        name.replace("_", "").isalnum()
        and name.isascii()
        and not name.isdigit()
        and name.lower() not in {"null", "true", "false", "y", "n", "yes", "no"}
    )
    return name if plain else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
