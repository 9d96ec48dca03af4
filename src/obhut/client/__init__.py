"""For the vendor's application: say who acts, in the transaction that changes personal data.

The audit log keeps it as the application's claim beside what the server knows. A claim holds for the changes that follow it in its
transaction and ends with it; nothing stays in the session, so a pooler in transaction mode is fine. Imports nothing but the standard
library: drivers and frameworks are the application's own. Without any helper:
``SELECT obhut.context('account-17', 'support call', 'req-5')``.

Give references, never names or addresses: ``actor`` is personal data of the person who acts; it is sealed under a key of that person.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["STATEMENT", "Context", "acting", "current", "say", "say_async"]

STATEMENT: Final = "SELECT obhut.context(%s, %s, %s)"


@dataclass(frozen=True)
class Context:
    """Who acts, why, and for which request."""

    actor: str
    reason: str | None = None
    request: str | None = None

    @property
    def parameters(self) -> tuple[str, str | None, str | None]:
        """Arguments of ``obhut.context``."""
        return self.actor, self.reason, self.request


_current: ContextVar[Context | None] = ContextVar("obhut_context", default=None)


def current() -> Context | None:
    """Return who acts in this thread or task; None when nobody said so."""
    return _current.get()


@contextmanager
def acting(actor: str, reason: str | None = None, request: str | None = None) -> Iterator[Context]:
    """Say for the block who acts; the helpers for SQLAlchemy and Django, and :func:`say`, take it from here.

    Args:
        actor: opaque reference of the account, 200 characters at the most.
        reason: why, such as a ticket's number.
        request: id of the request.
    """
    token = _current.set(Context(actor, reason, request))
    try:
        yield _current.get()  # type: ignore[misc]  # just set
    finally:
        _current.reset(token)


def say(connection: Any, context: Context | None = None) -> None:
    """Tell the open transaction who acts. For psycopg 3, psycopg2 and every DB-API driver with ``%s`` parameters.

    Call it first in the transaction, and again after a rollback to a savepoint that was set before it.

    Args:
        connection: with a transaction, or in which the next statement opens one.
        context: who acts; that of :func:`acting` by default. Nobody: nothing is said.
    """
    told = context or current()
    if told is not None:
        cursor = connection.cursor()
        try:
            cursor.execute(STATEMENT, told.parameters)
        finally:
            cursor.close()


async def say_async(connection: Any, context: Context | None = None) -> None:
    """As :func:`say`, for psycopg's asynchronous connections."""
    told = context or current()
    if told is not None:
        async with connection.cursor() as cursor:
            await cursor.execute(STATEMENT, told.parameters)
