"""Frozen views of the register's rows, as use cases return them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ControllerRecord:
    """A controller."""

    id: str
    database: str
    key: str  # canonical JSON array
    name: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class ContractTerms:
    """What Art. 28(3) wants in the head of a contract.

    Attributes:
        subject_matter: what the processing is about.
        nature: what is done with the data, such as "storage and retrieval".
        purpose: what for.
        duration: ISO 8601 duration of the processing, or ``term``: as long as the main contract.
        data_categories: keys of the Fideslang taxonomy, such as ``user.contact.email``.
        subject_categories: kinds of people, such as ``participant``.
    """

    subject_matter: str
    nature: str
    purpose: str
    duration: str
    data_categories: tuple[str, ...]
    subject_categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContractRecord:
    """A contract."""

    id: str
    controller_id: str
    version: str
    terms: ContractTerms
    document_hash: str
    valid_from: datetime
    valid_until: datetime | None


@dataclass(frozen=True, slots=True)
class InstructionRecord:
    """An instruction."""

    id: str
    controller_id: str
    contract_id: str
    kind: str
    actions: tuple[str, ...]
    database: str
    subject_kind: str  # "" means every kind
    subject_keys: tuple[str, ...] | None  # canonical keys; None means everyone
    given_by: str
    channel: str
    document_hash: str
    valid_from: datetime
    valid_until: datetime | None
    revoked_at: datetime | None
    used_by_run: str

    def state(self, now: datetime) -> str:
        """Return one word for where the instruction stands."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        if self.used_by_run:
            return "used"
        if self.valid_until is not None and self.valid_until <= now:
            return "expired"
        return "valid" if self.valid_from <= now else "not yet valid"
