"""What a run must know about the source before rows flow: the range of each re-issued key, the distribution of each sampled column.

Read in the snapshot of the copy. A distribution keeps no value that fewer than ``k`` rows share, and of numbers and dates only quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from obhut.datamap.kinds import Kind
from obhut.datamap.transformers import Family
from obhut.masking.errors import MaskingFactsError
from obhut.masking.model import MaskPlan, Pool
from obhut.postgres.catalogue import Catalogue
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier, Literal, load

_SQL = load("obhut.masking", "facts")
_LEAST = 1 << 12  # keys of a small table are spread at least this far, so that they do not all stay in place


@dataclass(frozen=True, slots=True)
class Bounds:
    """The whole numbers among which a key is permuted, both inclusive. Sequences of the copy must go on above ``high``."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """Classes with their counts (None stands for NULL), or the quantiles of a number or date."""

    classes: tuple[tuple[bytes | None, int], ...] = ()
    quantiles: tuple[bytes, ...] = ()
    nulls: float = 0.0  # share


@dataclass(frozen=True)
class Facts:
    """Everything that was read, by name of the key domain or of the pool."""

    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    pools: Mapping[str, Distribution] = field(default_factory=dict)

    def range(self, domain: str) -> Bounds:
        """Return the range of a key.

        Raises:
            MaskingFactsError: it was not read.
        """
        if domain not in self.bounds:
            raise MaskingFactsError(f"the range of {domain} was not read", "Read the facts in the snapshot of the copy first.")
        return self.bounds[domain]

    def pool(self, name: str) -> Distribution:
        """Return the distribution of a column.

        Raises:
            MaskingFactsError: it was not read.
        """
        if name not in self.pools:
            raise MaskingFactsError(f"the distribution of {name} was not read", "Read the facts in the snapshot of the copy first.")
        return self.pools[name]


def read(session: Session, plan: MaskPlan, catalogue: Catalogue) -> Facts:
    """Read the facts; call it inside the transaction whose snapshot the copy uses.

    Raises:
        DatabaseError: the role may not read a table.
    """
    bounds = {}
    for domain in plan.keys:
        if domain.kind.family is Family.INTEGER:
            query = SQL("SELECT min({c}), max({c}) FROM {t}").format(c=Identifier(domain.column), t=catalogue.tables[domain.oid].relation)
            low, high = session.row(query) or (None, None)
            bounds[domain.name] = widened(domain.kind, low, high)
    pools = {pool.name: _distribution(session, pool, catalogue) for pool in plan.pools}
    return Facts(bounds, pools)


def widened(kind: Kind, low: int | None, high: int | None) -> Bounds:
    """Return the range in which the keys of a column are permuted: its own, up to the next power of two, inside the type."""
    first, last = (1, 1) if low is None or high is None else (int(low), int(high))
    first = min(first, 1) if first > 0 and last < _LEAST else first
    span = max(last - first + 1, _LEAST)
    size = 1 << (span - 1).bit_length()
    return Bounds(max(first, kind.low), min(max(last, first + size - 1), kind.high))


def _distribution(session: Session, pool: Pool, catalogue: Catalogue) -> Distribution:
    table, column = catalogue.tables[pool.oid].relation, Identifier(pool.column)
    share = float(session.value(_SQL["nulls"].format(c=column, t=table)) or 0.0)
    if pool.quantiles:
        found = session.value(_SQL["quantiles"].format(c=column, t=table))
        return Distribution(quantiles=tuple(str(value).encode() for value in found or ()), nulls=share)
    rows = session.rows(_SQL["classes"].format(c=column, t=table, k=Literal(pool.k)))
    return Distribution(classes=tuple((None if value is None else str(value).encode(), int(count)) for value, count in rows), nulls=share)
