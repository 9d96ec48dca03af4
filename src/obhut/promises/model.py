"""Promises and their verdicts, as values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class State(StrEnum):
    """What can be said about a promise."""

    KEPT = "kept"  # every part was checked and holds
    BROKEN = "broken"  # at least one part was checked and does not hold
    UNPROVEN = "unproven"  # some part was not or could not be checked


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that was looked at.

    Attributes:
        fact: what was seen, in words without values of personal data.
        state: what it says about the promise.
        at: when it was seen; None when nothing could be.
        database: the protected database concerned, or "".
        hint: what to do when it does not hold.
    """

    fact: str
    state: State
    at: datetime | None = None
    database: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Promise:
    """A published sentence and the package that keeps it."""

    id: str
    sentence: str
    package: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A promise with its evidence."""

    promise: Promise
    evidence: tuple[Evidence, ...]

    @property
    def state(self) -> State:
        """Broken when anything is broken; kept only when there is evidence and all of it holds."""
        return summed(item.state for item in self.evidence)

    def age(self, now: datetime) -> timedelta | None:
        """Age of the oldest evidence, or None when there is none."""
        seen = [item.at for item in self.evidence if item.at is not None]
        return now - min(seen) if seen else None


def summed(states: Iterable[State]) -> State:
    """Return the state that several pieces of evidence add up to; none at all proves nothing."""
    found = set(states)
    if State.BROKEN in found:
        return State.BROKEN
    return State.KEPT if found == {State.KEPT} else State.UNPROVEN


def worst(verdicts: Sequence[Verdict]) -> State:
    """Return the state of the system as a whole."""
    return summed(verdict.state for verdict in verdicts)


PROMISES: tuple[Promise, ...] = (
    Promise(
        "instruction",
        "Personal data is processed only on a controller's documented instruction, under its contract (Art. 28).",
        "controllers",
    ),
    Promise(
        "forwarding",
        "A data subject who contacts us is forwarded to the responsible controller, who answers; we act on its instruction.",
        "requests",
    ),
    Promise("location", "Data, backups and sub-processors stay in the EU/EEA.", "residency"),
    Promise("at-rest", "Everything stored is encrypted, keys live in a private key store.", "keystore"),
    Promise("in-transit", "Every connection that carries personal data is TLS or a local socket.", "postgres"),
    Promise("access", "Staff reach production data only by reasoned, approved, time-boxed, logged grants.", "access"),
    Promise("staging", "Test and staging databases hold only anonymised data.", "clones"),
    Promise("inactivity", "Users inactive for more than 2 years are anonymised.", "retention"),
    Promise("backup", "Backups are made continuously all day and every byte of them is gone after 35 days.", "backups"),
    Promise("erasure", "A user's deletion reaches every place, and no restore brings the user back.", "erasure"),
    Promise("log", "Every change of personal data is logged, and each controller can get and verify its log.", "auditlog"),
    Promise("warning", "A controller is warned before an action with GDPR consequences.", "advisor"),
    Promise("review", "The software and these measures are reviewed regularly, with evidence (Art. 32(1)(d)).", "promises"),
    Promise("help", "Controllers get the tools and documents they need.", "documents"),
)
