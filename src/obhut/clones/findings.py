"""What the leak check says, as values. Pure: places and numbers, never a value of the source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """How a statement came out."""

    PASSED = "passed"
    FAILED = "failed"
    UNCHECKED = "unchecked"  # could not be looked at, which is never a pass


@dataclass(frozen=True, slots=True)
class Leak:
    """A place of the copy that holds values of the source.

    Attributes:
        place: such as ``public.person.email`` or ``COMMENT TABLE public.person``.
        cells: how many were found there.
    """

    place: str
    cells: int = 1


@dataclass(frozen=True, slots=True)
class Statement:
    """One question of the leak check with its answer.

    Attributes:
        name: stable; docs/how-to/staging.md explains each.
        looked_at: how many things were looked at: cells, columns, definitions.
    """

    name: str
    result: Result
    looked_at: int = 0
    leaks: tuple[Leak, ...] = ()
    why: str = ""

    def document(self) -> dict[str, object]:
        """Return the statement for a JSON document."""
        places = [{"place": leak.place, "cells": leak.cells} for leak in self.leaks]
        return {"name": self.name, "result": self.result.value, "looked_at": self.looked_at, "leaks": places, "why": self.why or None}


def settled(name: str, looked_at: int, leaks: Iterable[Leak], *, nothing: str) -> Statement:
    """Return the statement that findings amount to; to have looked at nothing is not a pass.

    Args:
        name: of the statement.
        looked_at: number of things.
        leaks: what was found.
        nothing: why nothing was looked at, if that is so.
    """
    found = tuple(sorted(leaks, key=lambda leak: leak.place))
    if found:
        return Statement(name, Result.FAILED, looked_at, found)
    return Statement(name, Result.PASSED, looked_at) if looked_at else Statement(name, Result.UNCHECKED, 0, (), nothing)


def failed(statements: Sequence[Statement]) -> list[Statement]:
    """Return the statements that failed."""
    return [statement for statement in statements if statement.result is Result.FAILED]


def leaks(statements: Sequence[Statement]) -> list[Leak]:
    """Return every place that holds something of the source."""
    return [leak for statement in statements for leak in statement.leaks]
