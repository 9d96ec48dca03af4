"""Messages of the ``obhut`` schema in the stream: who acts, and what decoding cannot see.

Only functions of that schema may write them (enable revokes the right from everybody else), so ``fact`` and the events are the server's
word; ``context`` carries an application's.
"""

from __future__ import annotations

from typing import Final

import msgspec

PREFIX: Final = "obhut"
HEARTBEAT: Final = b"heartbeat"

# Bits of pg_event_trigger_table_rewrite_reason().
PERSISTENCE: Final = 1


class Told(msgspec.Struct, frozen=True):
    """Content of a message. Which members it has depends on ``k``: context, fact, rewrite, ddl, drop."""

    k: str
    u: str = ""  # session_user
    r: str | None = None  # SET ROLE
    a: str = ""  # application_name
    c: str | None = None  # client address
    actor: str | None = None
    reason: str | None = None
    request: str | None = None
    oid: int = 0
    why: int = 0
    tag: str = ""
    type: str = ""
    identity: str = ""
    persistence: str = ""


class Acting(msgspec.Struct, frozen=True):
    """Who acts, from one message on. Staff are people, too: ``repr`` shows nothing."""

    session_user: str
    application: str
    client: str
    role: str
    actor: str
    reason: str
    request: str

    def __repr__(self) -> str:
        """Return a text without names."""
        return "<Acting>"

    def claim(self) -> dict[str, str]:
        """Return what is sealed under the acting person's key: the application's claim, and the facts that may name a person."""
        named = {
            "actor": self.actor,
            "reason": self.reason,
            "request": self.request,
            "session_user": self.session_user,
            "role": self.role,
            "client": self.client,
        }
        return {name: value for name, value in named.items() if value}

    @property
    def who(self) -> str:
        """Whose key seals it: the claimed actor, else the database account."""
        return self.actor or f"database:{self.session_user}"


_DECODER: Final = msgspec.json.Decoder(Told)


def read(content: bytes) -> Told | None:
    """Return what a message says; None for one that is not of this version (a heartbeat, or a later version's)."""
    try:
        return _DECODER.decode(content)
    except msgspec.MsgspecError:
        return None


def acting(told: Told, before: Acting | None) -> Acting:
    """Return who acts after a ``fact`` or ``context`` message; a fact leaves the claim that was made before it."""
    claimed = told if told.k == "context" else before
    return Acting(
        session_user=told.u,
        application=told.a,
        client=told.c or "",
        role=told.r or "",
        actor=(claimed.actor if claimed else None) or "",
        reason=(claimed.reason if claimed else None) or "",
        request=(claimed.request if claimed else None) or "",
    )
