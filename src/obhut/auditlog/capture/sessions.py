"""What of a session stands in clear in an entry, and whether more is known about it, which is sealed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from obhut.auditlog.capture.messages import Acting
from obhut.auditlog.entries import Fact

_REMEMBERED: Final = 10_000  # a request id in each claim: what is remembered must not grow for ever


class Sessions:
    """Decides for each session once; neighbouring changes are mostly of the same one.

    Args:
        sealed_accounts: database accounts whose names are sealed.
    """

    def __init__(self, sealed_accounts: Iterable[str]) -> None:
        self._sealed_accounts = frozenset(sealed_accounts)
        self._facts: dict[Acting, Fact] = {}
        self._last: tuple[Acting | None, bool, Fact] = None, False, Fact()

    def named(self, acting: Acting) -> bool:
        """Whether more is known than stands in clear: a claim, an address, or the account of a single person."""
        return self._look(acting)[1]

    def fact(self, acting: Acting) -> Fact:
        """Return what stands in clear."""
        return self._look(acting)[2]

    def _look(self, acting: Acting) -> tuple[Acting | None, bool, Fact]:
        if acting is not self._last[0]:
            more = acting.actor or acting.client or acting.reason or acting.request or acting.role
            self._last = acting, bool(more) or acting.session_user in self._sealed_accounts, self._fact(acting)
        return self._last

    def _fact(self, acting: Acting) -> Fact:
        found = self._facts.get(acting)
        if found is None:
            if len(self._facts) > _REMEMBERED:
                self._facts.clear()
            shown = "" if acting.session_user in self._sealed_accounts else acting.session_user
            found = self._facts[acting] = Fact(session_user=shown, application=acting.application)
        return found
