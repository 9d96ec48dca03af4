"""Django: a middleware that says who acts before the first change of each transaction.

In the settings::

    MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware", "obhut.client.django.AuditContextMiddleware"]

The actor is the primary key of the signed-in account, the request id the header ``X-Request-ID``. A management command or a job says it
with :func:`obhut.client.acting` inside :func:`saying`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections, transaction

from obhut.client import STATEMENT, Context, acting, current

_READS = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK", "SHOW", "EXPLAIN", "DECLARE", "FETCH", "CLOSE", "SET")


class AuditContextMiddleware:
    """Says who acts for as long as a request lasts. Subclass it to take actor, reason or request from elsewhere."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer the request under its context."""
        context = self.context(request)
        if context is None:
            return self._get_response(request)
        with acting(context.actor, context.reason, context.request), saying():
            return self._get_response(request)

    def context(self, request: Any) -> Context | None:
        """Return who acts in a request; None for nobody."""
        user = getattr(request, "user", None)
        if user is None or not user.is_authenticated:
            return None
        return Context(f"user-{user.pk}", request=request.headers.get("X-Request-ID"))


@contextmanager
def saying() -> Iterator[None]:
    """Let every PostgreSQL connection of Django say the context of :func:`obhut.client.acting` before its changes, for the block."""
    with ExitStack() as stack:
        for connection in connections.all():
            if connection.vendor == "postgresql":
                stack.enter_context(connection.execute_wrapper(_Wrapper(connection)))
        yield


class _Wrapper:
    """Goes around each statement of one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._said: tuple[Context, Any, list[Any]] | None = None

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any) -> Any:
        told = current()
        if told is None or not _changes(sql):
            return execute(sql, params, many, context)
        if not self._connection.in_atomic_block:
            # Autocommit: claim and change have to be one transaction.
            with transaction.atomic(using=self._connection.alias):
                self._say(told)
                return execute(sql, params, many, context)
        if not self._holds(told):
            self._say(told)
            self._said = (told, self._connection.run_on_commit, list(self._connection.savepoint_ids))
        return execute(sql, params, many, context)

    def _say(self, told: Context) -> None:
        with self._connection.connection.cursor() as cursor:  # the driver's own: Django's would come here again
            cursor.execute(STATEMENT, told.parameters)

    def _holds(self, told: Context) -> bool:
        """Whether what was said still holds: same transaction, and no savepoint was left since that it was said in."""
        if self._said is None:
            return False
        said, transaction_, savepoints = self._said
        here = self._connection.savepoint_ids[: len(savepoints)]
        # Django makes the list of hooks anew when a transaction or savepoint ends; holding it keeps its identity from being used again.
        return said == told and transaction_ is self._connection.run_on_commit and here == savepoints


def _changes(sql: Any) -> bool:
    """Whether a statement may change rows; a query that calls a function that does is told by the server's fact alone."""
    return isinstance(sql, str) and not sql.lstrip().upper().startswith(_READS)
