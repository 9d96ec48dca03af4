"""Which values of a changed row lie under whose key. Pure.

An update carries the columns that differ, not the whole row. A row about one person, the usual case, is one part. In a row about several,
each has a part: the columns of a link are of the person they lead to; a personal column is of those whom the map says it concerns
(``anonymises``); the rest of the row is in every part. A column that concerns several at once, such as the text of a letter, is **split**:
each part holds a share, and only all shares together give the value, so that destroying the key of either person makes it unreadable.
People of another controller take no share: each controller reads its own log alone. A shared parent (an address) is of each alone, as it
stays in the database until the last of them is erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from obhut.auditlog.capture.owners import Claim, Owner
from obhut.auditlog.capture.pgoutput import UNCHANGED, Change, Operation, Value, Values
from obhut.auditlog.pieces import split
from obhut.datamap.graph import TableNode


@dataclass(slots=True)
class Images:
    """Values of a row: PostgreSQL's text. ``unchanged`` names columns whose value the server did not send."""

    key: dict[str, str | None] = field(default_factory=dict)
    old: dict[str, str | None] = field(default_factory=dict)
    new: dict[str, str | None] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)

    def members(self) -> dict[str, Any]:
        """Return what is not empty, by the names of the specification."""
        found: dict[str, Any] = {}
        if self.key:
            found["key"] = self.key
        if self.old:
            found["old"] = self.old
        if self.new:
            found["new"] = self.new
        if self.unchanged:
            found["unchanged"] = self.unchanged
        return found

    def only(self, columns: Iterable[str]) -> Images:
        """Return the images with these columns alone."""
        kept = set(columns)
        key, old, new = ({name: value for name, value in part.items() if name in kept} for part in (self.key, self.old, self.new))
        return Images(key, old, new, [name for name in self.unchanged if name in kept])

    @property
    def columns(self) -> set[str]:
        """All columns that are mentioned."""
        return {*self.key, *self.old, *self.new, *self.unchanged}


def images(change: Change, key: Sequence[str]) -> Images:
    """Return the values of a change.

    Args:
        change: from the stream.
        key: columns of the table's primary key.
    """
    names = change.relation.names
    if change.old is not None and change.new is not None and not change.partial:
        return (_whole if change.lacking else _differing)(names, key, change.old, change.new)
    if change.operation is Operation.UPDATE:
        return _updated(change, names, key)
    values = change.new if change.new is not None else change.old
    if values is not None and not change.partial and not change.lacking:
        return _sent(names, key, values, inserted=change.new is not None)
    found = Images()
    image = found.new if change.new is not None else found.old
    partial = {column.name for column in change.relation.columns if column.is_key} if change.partial else None
    for name, value in zip(names, values or (), strict=False):
        if value is UNCHANGED:
            found.unchanged.append(name)
        elif partial is None or name in partial:
            (found.key if name in key else image)[name] = _text(value)
    return found


def _sent(names: Sequence[str], key: Sequence[str], values: Sequence[Any], *, inserted: bool) -> Images:
    """Return the values of a row that came or went, all of which were sent."""
    found_key: dict[str, str | None] = {}
    image: dict[str, str | None] = {}
    for name, value in zip(names, values, strict=False):
        text = None if value is None else value.decode("utf-8", "backslashreplace")
        if name in key:
            found_key[name] = text
        else:
            image[name] = text
    return Images(found_key, {}, image, []) if inserted else Images(found_key, image, {}, [])


def _differing(names: Sequence[str], key: Sequence[str], old: Sequence[Any], new: Sequence[Any]) -> Images:
    """Return the differences of two whole rows: the usual case, and the one that has to be quick."""
    found_key: dict[str, str | None] = {}
    before: dict[str, str | None] = {}
    now: dict[str, str | None] = {}
    for name, was, value in zip(names, old, new, strict=True):
        if name in key:
            found_key[name] = None if was is None else was.decode("utf-8", "backslashreplace")
        if was != value:
            before[name] = None if was is None else was.decode("utf-8", "backslashreplace")
            now[name] = None if value is None else value.decode("utf-8", "backslashreplace")
    return Images(found_key, before, now, [])


def _whole(names: Sequence[str], key: Sequence[str], old: Values, new: Values) -> Images:
    """Return the differences of two rows of which a value was not sent."""
    found = Images()
    for name, before, now in zip(names, old, new, strict=True):
        if name in key:
            found.key[name] = _text(before)
        if now is UNCHANGED or (before is UNCHANGED and now != before):
            found.unchanged.append(name)
            if now is not UNCHANGED:
                found.new[name] = _text(now)
        elif before != now:
            found.old[name] = _text(before)
            found.new[name] = _text(now)
    return found


def _updated(change: Change, names: Sequence[str], key: Sequence[str]) -> Images:
    """Return what is known of an update whose old row is the key's columns alone, or nothing because the key stayed."""
    found = Images()
    old = change.old or [None] * len(names)
    seen = {column.name for column in change.relation.columns if column.is_key} if change.old is not None else set()
    for name, before, now in zip(names, old, change.new or [], strict=True):
        if name in key:
            found.key[name] = _text(before if name in seen else now)
        if now is UNCHANGED:
            found.unchanged.append(name)
        elif name in seen and now != before:
            found.old[name] = _text(before)
            found.new[name] = _text(now)
        elif name not in seen and name not in key:
            found.new[name] = _text(now)
    return found


def parts(node: TableNode, claims: Sequence[Claim], found: Images) -> dict[Owner, dict[str, Any]]:
    """Return the members of each person's part."""
    if len(claims) == 1:
        return {claims[0].owner: found.members()}
    owners = list(dict.fromkeys(claim.owner for claim in claims))
    if len(owners) == 1:
        return {owners[0]: found.members()}
    of = _concerned(node, claims, found.columns)
    made: dict[Owner, dict[str, Any]] = {}
    for controller in dict.fromkeys(owner.controller for owner in owners):
        made.update(_of_one([owner for owner in owners if owner.controller == controller], of, found))
    return made


def _of_one(owners: Sequence[Owner], of: Mapping[str, set[Owner] | None], found: Images) -> dict[Owner, dict[str, Any]]:
    """Return the parts of one controller's people: it must be able to read them without another one's keys."""
    among = {column: None if whose is None else frozenset(whose.intersection(owners)) for column, whose in of.items()}
    made = {owner: found.only(column for column, whose in among.items() if whose is None or whose == {owner}).members() for owner in owners}
    for whose in dict.fromkeys(w for w in among.values() if w is not None and len(w) > 1):
        together = [owner for owner in owners if owner in whose]
        piece = found.only(column for column, w in among.items() if w == whose).members()
        for owner, share in zip(together, split(piece, len(together)), strict=True):
            made[owner].setdefault("split", []).append(share)
    return made


def _concerned(node: TableNode, claims: Sequence[Claim], columns: Iterable[str]) -> dict[str, set[Owner] | None]:
    """Return for each column whose it is alone or together; None: in every part."""
    links = [claim for claim in claims if claim.link is not None]
    own = {claim.owner for claim in claims if claim.link is None}
    linked: dict[str, set[Owner]] = {}
    for claim in links:
        for column in claim.link.columns if claim.link else ():
            linked.setdefault(column, set()).add(claim.owner)
    found: dict[str, set[Owner] | None] = {}
    for column in columns:
        if column in linked and column not in node.table.primary_key:
            found[column] = linked[column]
        elif column in node.rule.columns:
            whose = {c.owner for c in links if c.link and (column in c.link.anonymises or (not c.link.anonymises and not own))}
            found[column] = whose or None
        else:
            found[column] = None
    return found


def _text(value: Value) -> str | None:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else None
