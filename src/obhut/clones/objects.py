"""Large objects of a copy: those that its rows name exist there, and hold random bytes; nobody knows what was in them."""

from __future__ import annotations

from obhut.erasure import objects
from obhut.postgres.catalogue import Catalogue
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier, Literal

_BYTES = 32  # of each object; the length of the original would tell something, too
_AT_ONCE = 1000  # a transaction: the server holds a lock for each
_MADE = "SELECT count(lo_from_bytea(oid::oid, substring(sha256(random()::text::bytea) FOR %s))) FROM unnest(%s::int8[]) oid"
_REMOVED = "SELECT count(lo_unlink(oid)) FROM (SELECT oid FROM pg_largeobject_metadata LIMIT %s) AS first"


def replace(source: Session, copy: Session, catalogue: Catalogue) -> int:
    """Make the large objects that the rows of a copy name, under their numbers and owners, and return how many.

    Args:
        source: asked for numbers and owners only.
        copy: filled.
        catalogue: of the source.
    """
    owners = {
        int(oid): str(owner) for oid, owner in source.rows("SELECT oid::int8, pg_get_userbyid(lomowner) FROM pg_largeobject_metadata")
    }
    named = _named(copy, catalogue) & owners.keys() if owners else set()
    if not named:
        return 0
    numbers = sorted(named)
    for start in range(0, len(numbers), _AT_ONCE):
        batch = numbers[start : start + _AT_ONCE]
        with copy.transaction():
            copy.value(_MADE, (_BYTES, batch))
            for oid in batch:
                copy.execute(SQL("ALTER LARGE OBJECT {} OWNER TO {}").format(Literal(oid), Identifier(owners[oid])))
    return len(named)


def remove(copy: Session) -> None:
    """Remove every large object of a database."""
    while copy.value(_REMOVED, (_AT_ONCE,)):
        pass


def _named(copy: Session, catalogue: Catalogue) -> set[int]:
    found: set[int] = set()
    for oid, columns in objects.naming(catalogue).items():
        for column in columns:
            query = SQL("SELECT DISTINCT {c}::oid::int8 FROM {t} WHERE {c} IS NOT NULL").format(
                c=Identifier(column), t=catalogue.tables[oid].relation
            )
            found.update(int(number) for (number,) in copy.rows(query))
    return found
