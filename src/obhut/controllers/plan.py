"""Decides whether an instruction permits an action, and if none does, which one came closest and what it lacks.

Pure: facts in, verdict out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from obhut.controllers.vocabulary import Action, InstructionKind, SubjectRef


class Refusal(StrEnum):
    """What is missing. For instructions in the order of the checks: a later word means one came closer."""

    NO_CONTROLLER = "no-controller"
    NO_CONTRACT = "no-contract"
    CONTRACT_ENDED = "contract-ended"
    CONTRACT_NOT_YET = "contract-not-yet"
    NO_INSTRUCTION = "no-instruction"
    WRONG_DATABASE = "wrong-database"
    WRONG_SUBJECT_KIND = "wrong-subject-kind"
    WRONG_SUBJECT = "wrong-subject"
    REVOKED = "revoked"
    EXPIRED = "expired"
    NOT_YET = "not-yet"
    ALREADY_USED = "already-used"


_CLOSER = {word: rank for rank, word in enumerate(Refusal)}

WORDS: dict[Refusal, str] = {
    Refusal.NO_CONTROLLER: "the controller is not registered",
    Refusal.NO_CONTRACT: "the controller has no contract",
    Refusal.CONTRACT_ENDED: "the controller's contract is no longer in force",
    Refusal.CONTRACT_NOT_YET: "the controller's contract is not yet in force",
    Refusal.NO_INSTRUCTION: "the controller has given no instruction for it",
    Refusal.WRONG_DATABASE: "the controller's instruction is for another database",
    Refusal.WRONG_SUBJECT_KIND: "the controller's instruction is for another kind of data subject",
    Refusal.WRONG_SUBJECT: "the controller's instruction does not cover this data subject",
    Refusal.REVOKED: "the controller has revoked its instruction",
    Refusal.EXPIRED: "the controller's instruction has expired",
    Refusal.NOT_YET: "the controller's instruction is not yet valid",
    Refusal.ALREADY_USED: "the controller's single instruction has been used by another run",
}

REMEDIES: dict[Refusal, str] = {
    Refusal.NO_CONTROLLER: 'Register it with "obhut controllers add".',
    Refusal.NO_CONTRACT: 'Record its contract with "obhut controllers contract add".',
    Refusal.CONTRACT_ENDED: 'Has it been renewed? Record the new version with "obhut controllers contract add".',
    Refusal.CONTRACT_NOT_YET: 'From when is it valid? Look at "obhut controllers show".',
}
ASK_CONTROLLER = 'Ask the controller and record what it says with "obhut instructions give".'


@dataclass(frozen=True, slots=True)
class ContractFacts:
    """What the decision needs of a contract."""

    id: str
    valid_from: datetime
    valid_until: datetime | None


@dataclass(frozen=True, slots=True)
class InstructionFacts:
    """What the decision needs of an instruction."""

    id: str
    kind: InstructionKind
    actions: frozenset[str]
    database: str
    subject_kind: str
    subject_keys: frozenset[str] | None
    valid_from: datetime
    valid_until: datetime | None
    revoked_at: datetime | None
    used_by_run: str

    @property
    def unused(self) -> bool:
        """Whether it is a single instruction that no run has taken yet."""
        return self.kind is InstructionKind.SINGLE and not self.used_by_run


@dataclass(frozen=True, slots=True)
class Question:
    """May this be done now, and by this run?"""

    action: Action
    database: str
    subject: SubjectRef | None  # None: all the controller's people
    run_id: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Granted:
    """Yes: by this instruction, under this contract."""

    instruction: InstructionFacts
    contract_id: str


def decide(question: Question, contracts: Sequence[ContractFacts], instructions: Iterable[InstructionFacts]) -> Granted | Refusal:
    """Return the instruction that permits, or what is missing."""
    contract = contract_in_force(contracts, question.now)
    if isinstance(contract, Refusal):
        return contract
    closest = Refusal.NO_INSTRUCTION
    best: InstructionFacts | None = None
    for instruction in instructions:
        if question.action not in instruction.actions:
            continue
        lack = lacks(question, instruction)
        if lack is None:
            if best is None or _preference(question, instruction) > _preference(question, best):
                best = instruction
        elif _CLOSER[lack] > _CLOSER[closest]:
            closest = lack
    return Granted(best, contract.id) if best else closest


def contract_in_force(contracts: Sequence[ContractFacts], now: datetime) -> ContractFacts | Refusal:
    """Return the contract in force, the youngest where versions overlap, or what is missing."""
    if not contracts:
        return Refusal.NO_CONTRACT
    started = [contract for contract in contracts if contract.valid_from <= now]
    valid = [contract for contract in started if contract.valid_until is None or now < contract.valid_until]
    if valid:
        return max(valid, key=lambda contract: (contract.valid_from, contract.id))
    return Refusal.CONTRACT_ENDED if started else Refusal.CONTRACT_NOT_YET


def lacks(question: Question, instruction: InstructionFacts) -> Refusal | None:
    """Return the first thing that keeps an instruction for the action from permitting it, or None."""
    subject, now = question.subject, question.now
    if instruction.database != question.database:
        return Refusal.WRONG_DATABASE
    # An instruction about one kind of people, or about named ones, never covers everybody.
    if instruction.subject_kind and (subject is None or subject.kind != instruction.subject_kind):
        return Refusal.WRONG_SUBJECT_KIND
    if instruction.subject_keys is not None and (subject is None or subject.canonical not in instruction.subject_keys):
        return Refusal.WRONG_SUBJECT
    if instruction.revoked_at is not None and instruction.revoked_at <= now:
        return Refusal.REVOKED
    if instruction.valid_until is not None and instruction.valid_until <= now:
        return Refusal.EXPIRED
    if now < instruction.valid_from:
        return Refusal.NOT_YET
    if instruction.kind is InstructionKind.SINGLE and instruction.used_by_run not in {"", question.run_id}:
        return Refusal.ALREADY_USED
    return None


def _preference(question: Question, instruction: InstructionFacts) -> tuple[bool, bool, bool, str]:
    """Rank: what this run has used already, then what names the person, then standing before single, then the youngest."""
    mine = bool(instruction.used_by_run) and instruction.used_by_run == question.run_id
    return mine, instruction.subject_keys is not None, instruction.kind is InstructionKind.STANDING, instruction.id
