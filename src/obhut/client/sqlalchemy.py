"""SQLAlchemy: each transaction of an engine begins with who acts.

::

    from obhut.client import acting
    from obhut.client.sqlalchemy import install

    install(engine)
    with acting("account-17", request="req-5"), Session(engine) as session:
        ...

A claim belongs to a transaction: what an engine in ``AUTOCOMMIT`` changes is logged without one.
"""

from __future__ import annotations

from typing import Any

from obhut.client import STATEMENT, current

_SAID = "obhut_said"


def install(engine: Any) -> None:
    """Let the engine's transactions begin with the context of :func:`obhut.client.acting`.

    The statement goes out before the first other statement of a transaction, so a transaction that never runs one costs nothing; after a
    rollback to a savepoint it is said again.

    Args:
        engine: an ``Engine``; of an ``AsyncEngine`` its ``sync_engine``.
    """
    from sqlalchemy import event

    def before(connection: Any, cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool) -> None:  # noqa: FBT001
        told = current()
        if told is None or connection.info.get(_SAID) == told or statement.startswith("SELECT obhut.context"):
            return
        cursor.execute(STATEMENT, told.parameters)
        if connection.in_transaction():
            connection.info[_SAID] = told

    def forget(connection: Any, *_: Any) -> None:
        connection.info.pop(_SAID, None)

    event.listen(engine, "before_cursor_execute", before)
    for moment in ("begin", "commit", "rollback", "rollback_savepoint"):
        event.listen(engine, moment, forget)
