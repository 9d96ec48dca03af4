"""What kind of values a column holds, as far as a transformer must know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from obhut.datamap.transformers import Family
from obhut.postgres.catalogue import Column

_HEADER = 4  # bytes that the type modifier of varchar(n) counts on top of n
_FAMILIES = {
    "text": Family.TEXT,
    "character varying": Family.TEXT,
    "character": Family.TEXT,
    "citext": Family.TEXT,
    "name": Family.TEXT,
    "smallint": Family.INTEGER,
    "integer": Family.INTEGER,
    "bigint": Family.INTEGER,
    "numeric": Family.NUMBER,
    "real": Family.NUMBER,
    "double precision": Family.NUMBER,
    "date": Family.DATE,
    "timestamp without time zone": Family.DATE,
    "timestamp with time zone": Family.DATE,
    "boolean": Family.BOOLEAN,
    "uuid": Family.UUID,
    "inet": Family.ADDRESS,
    "cidr": Family.ADDRESS,
    "json": Family.JSON,
    "jsonb": Family.JSON,
    "bytea": Family.BYTES,
    "tsvector": Family.WORDS,
    "oid": Family.OBJECT,
    "lo": Family.OBJECT,
}
_BOUNDS = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of a column, or of the elements of an array.

    Attributes:
        family: which transformers fit.
        base_type: the element's type as PostgreSQL writes it, domains resolved.
        array: whether the column holds arrays of it.
        limit: characters at the most, None without a limit.
        labels: the labels of an enumerated type.
        low, high: the range of an integer type.
    """

    family: Family
    base_type: str
    array: bool = False
    limit: int | None = None
    labels: tuple[str, ...] = ()
    low: int = 0
    high: int = 0

    @property
    def words(self) -> str:
        """The kind as a reader calls it."""
        limit = f"({self.limit})" if self.limit is not None else ""
        return f"{self.base_type}{limit}{'[]' if self.array else ''}"


def kind_of(column: Column, enums: Mapping[str, tuple[str, ...]], limits: Mapping[str, int] | None = None) -> Kind:
    """Return the kind of a column.

    Args:
        column: from the catalogue.
        enums: labels by name of the type.
        limits: characters at the most by name of a domain.
    """
    array = column.category == "A"
    base = column.base_type.removesuffix("[]") if array else column.base_type
    labels = enums.get(base, ())
    family = Family.ENUM if labels else _FAMILIES.get(base, Family.OTHER)
    limit = (limits or {}).get(column.type)
    if family is Family.TEXT and column.modifier > _HEADER and base in {"character varying", "character"}:
        limit = column.modifier - _HEADER
    if base == "name":
        limit = 63
    bound = _BOUNDS.get(base, 0)
    return Kind(family, base, array, limit, labels, -bound, bound - 1 if bound else 0)
