"""Use cases of the register: controllers, contracts, instructions. Nothing is ever deleted; what ends gets an end.

Every value is checked here for a message that helps, and again by the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from django.db.models import Q

from obhut.controllers.errors import (
    ContractUnknownError,
    ControllerExistsError,
    ControllerUnknownError,
    InstructionUnknownError,
    RegisterInvalidError,
)
from obhut.controllers.plan import ContractFacts, Refusal, contract_in_force
from obhut.controllers.records import ContractRecord, ContractTerms, ControllerRecord, InstructionRecord
from obhut.controllers.vocabulary import (
    CATEGORY,
    DURATION,
    NAME,
    REFERENCE,
    SHA256,
    Action,
    Channel,
    InstructionKind,
    SubjectRef,
    canonical_key,
    fits,
)
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock, aware
from obhut.foundation.ids import new_id
from obhut.postgres.control import Deferred, control_safe
from obhut.postgres.errors import DatabaseError

if TYPE_CHECKING:
    from obhut.controllers import models
else:
    models = Deferred("obhut.controllers.models")

_UNIQUE_VIOLATION = "23505"
_NAME_LENGTH = 200
_TEXT_LENGTH = 500


def add_controller(database: str, key: Sequence[str], name: str, *, actor: Actor, clock: Clock) -> ControllerRecord:
    """Register a controller.

    Args:
        database: name of the protected database.
        key: value of the controller key in that database, one text a column.
        name: name of the company.
        actor: who records it.
        clock: the time of recording.

    Raises:
        ControllerExistsError: the key is registered for that database.
        RegisterInvalidError: a value cannot be recorded.
    """
    _demand(fits(NAME, database), "the database", "Use the name it has under [databases] in obhut.toml.")
    _demand(bool(key) and all(key), "the key", "Give the value of the controller key in the protected database.")
    _demand(0 < len(name.strip()) <= _NAME_LENGTH, "the name", "Give the name of the company, 200 characters at the most.")
    try:
        with control_safe():
            row = models.Controller.objects.create(
                id=new_id("ctl"),
                database=database,
                key=canonical_key(key),
                name=name.strip(),
                recorded_by=str(actor),
                recorded_at=clock.now(),
            )
    except DatabaseError as error:
        if error.sqlstate != _UNIQUE_VIOLATION:
            raise
    else:
        return _controller(row)
    raise ControllerExistsError(f"a controller with that key is registered for database {database}", 'Look at "obhut controllers list".')


def get_controller(controller_id: str) -> ControllerRecord:
    """Return a controller.

    Raises:
        ControllerUnknownError: there is none with that id.
    """
    return _controller(_controller_row(controller_id))


def find_controller(database: str, key: Sequence[str]) -> ControllerRecord | None:
    """Return the controller with a key of the protected database, if it is registered."""
    with control_safe():
        row = models.Controller.objects.filter(database=database, key=canonical_key(key)).first()
    return _controller(row) if row else None


def list_controllers(database: str | None = None) -> list[ControllerRecord]:
    """Return the controllers, of one database or all."""
    with control_safe():
        rows = models.Controller.objects.order_by("database", "name", "id")
        return [_controller(row) for row in (rows.filter(database=database) if database else rows)]


def add_contract(
    controller_id: str,
    *,
    version: str,
    terms: ContractTerms,
    document_hash: str,
    valid_from: datetime,
    valid_until: datetime | None = None,
    actor: Actor,
    clock: Clock,
) -> ContractRecord:
    """Record a contract (data processing agreement) of a controller.

    Args:
        controller_id: whose contract it is.
        version: an opaque label, such as ``2026-1``.
        terms: what Art. 28(3) wants in its head.
        document_hash: SHA-256 of the signed document, in hex.
        valid_from: from when it is in force.
        valid_until: until when; None for no fixed end.
        actor: who records it.
        clock: the time of recording.

    Raises:
        ControllerUnknownError: there is no such controller.
        RegisterInvalidError: a value cannot be recorded, or the version is recorded already.
    """
    owner = _controller_row(controller_id)
    _demand(fits(REFERENCE, version), "the version", "Use letters, digits, dots and dashes, such as 2026-1.")
    _demand_terms(terms)
    _demand_validity(document_hash, valid_from, valid_until)
    try:
        with control_safe():
            row = models.Contract.objects.create(
                id=new_id("dpa"),
                controller=owner,
                version=version,
                subject_matter=terms.subject_matter,
                nature=terms.nature,
                purpose=terms.purpose,
                duration=terms.duration,
                data_categories=list(terms.data_categories),
                subject_categories=list(terms.subject_categories),
                document_hash=document_hash,
                valid_from=aware(valid_from),
                valid_until=aware(valid_until) if valid_until else None,
                recorded_by=str(actor),
                recorded_at=clock.now(),
            )
    except DatabaseError as error:
        if error.sqlstate != _UNIQUE_VIOLATION:
            raise
    else:
        return _contract(row)
    raise RegisterInvalidError(f"controller {controller_id} has a contract of that version", "Give the new contract a version of its own.")


def end_contract(contract_id: str, *, at: datetime) -> ContractRecord:
    """Set the end of a contract; from then on the gate refuses, unless another one is in force.

    Raises:
        ContractUnknownError: there is no such contract.
        RegisterInvalidError: the end is not after the beginning.
    """
    row = _contract_row(contract_id)
    _demand(row.valid_from < aware(at), "the end", "It has to be after the beginning of the contract.")
    row.valid_until = aware(at)
    with control_safe():
        row.save(update_fields=["valid_until"])
    return _contract(row)


def list_contracts(controller_id: str) -> list[ContractRecord]:
    """Return the contracts of a controller, the youngest first."""
    with control_safe():
        return [_contract(row) for row in models.Contract.objects.filter(controller_id=controller_id).order_by("-valid_from", "-id")]


def give_instruction(
    controller_id: str,
    *,
    kind: InstructionKind,
    actions: Sequence[Action],
    database: str,
    given_by: str,
    channel: Channel,
    document_hash: str,
    actor: Actor,
    clock: Clock,
    subject_kind: str = "",
    subjects: Sequence[SubjectRef] | None = None,
    valid_from: datetime | None = None,
    valid_until: datetime | None = None,
) -> InstructionRecord:
    """Record what a controller has instructed, under the contract that is in force when it becomes valid.

    Args:
        controller_id: who instructs.
        kind: standing, or single: used up by one run.
        actions: what it permits.
        database: in which protected database.
        given_by: opaque reference of the controller's person, such as an account number.
        channel: how it arrived.
        document_hash: SHA-256 of the document, ticket or message, in hex.
        actor: who records it.
        clock: the time of recording.
        subject_kind: only about this kind of people; "" for every kind.
        subjects: only about these people, all of one kind; None for everyone.
        valid_from: from when; now by default.
        valid_until: until when; None for no fixed end.

    Raises:
        ControllerUnknownError: there is no such controller.
        RegisterInvalidError: a value cannot be recorded, or no contract is in force.
    """
    owner = _controller_row(controller_id)
    start = aware(valid_from) if valid_from else clock.now()
    kinds = {subject.kind for subject in subjects or ()} | ({subject_kind} if subject_kind else set())
    _demand(bool(actions), "the actions", f"Name at least one of these: {', '.join(Action)}.")
    _demand(owner.database == database, "the database", f"The controller is registered for database {owner.database}.")
    _demand(len(kinds) <= 1 and all(fits(NAME, kind) for kind in kinds), "the subject kind", "People of one instruction are of one kind.")
    _demand(subjects is None or len(subjects) > 0, "the subjects", "Name at least one person's key, or leave them out for everyone.")
    _demand(fits(REFERENCE, given_by), "who gave it", "Use an opaque reference such as an account number, not a name or an address.")
    _demand_validity(document_hash, start, valid_until)
    with control_safe():
        contracts = models.Contract.objects.filter(controller=owner).values_list("id", "valid_from", "valid_until")
        contract = contract_in_force([ContractFacts(*facts) for facts in contracts], start)
        if isinstance(contract, Refusal):
            raise RegisterInvalidError(
                f"controller {controller_id} has no contract in force at the time of the instruction",
                'Record its contract first: "obhut controllers contract add".',
            )
        row = models.Instruction.objects.create(
            id=new_id("ins"),
            controller=owner,
            contract_id=contract.id,
            kind=kind.value,
            actions=sorted({action.value for action in actions}),
            database=database,
            subject_kind=next(iter(kinds), ""),
            subject_keys=None if subjects is None else sorted({subject.canonical for subject in subjects}),
            given_by=given_by,
            channel=channel.value,
            document_hash=document_hash,
            valid_from=start,
            valid_until=aware(valid_until) if valid_until else None,
            recorded_by=str(actor),
            recorded_at=clock.now(),
        )
    return _instruction(row)


def revoke_instruction(instruction_id: str, *, actor: Actor, clock: Clock) -> InstructionRecord:
    """End an instruction now; what it permitted before stays documented. A second revocation changes nothing.

    Raises:
        InstructionUnknownError: there is no such instruction.
    """
    _instruction_row(instruction_id)
    with control_safe():
        models.Instruction.objects.filter(id=instruction_id, revoked_at=None).update(revoked_at=clock.now(), revoked_by=str(actor))
    return get_instruction(instruction_id)


def get_instruction(instruction_id: str) -> InstructionRecord:
    """Return an instruction.

    Raises:
        InstructionUnknownError: there is none with that id.
    """
    return _instruction(_instruction_row(instruction_id))


def list_instructions(*, controller_id: str | None = None, database: str | None = None, limit: int = 200) -> list[InstructionRecord]:
    """Return instructions, the youngest first."""
    condition = Q()
    if controller_id:
        condition &= Q(controller_id=controller_id)
    if database:
        condition &= Q(database=database)
    with control_safe():
        return [_instruction(row) for row in models.Instruction.objects.filter(condition).order_by("-id")[:limit]]


def _demand(holds: bool, what: str, hint: str) -> None:  # noqa: FBT001 - reads as a sentence at the call
    if not holds:
        raise RegisterInvalidError(f"{what} cannot be recorded as given", hint)


def _demand_terms(terms: ContractTerms) -> None:
    for what, text in (("subject matter", terms.subject_matter), ("nature", terms.nature), ("purpose", terms.purpose)):
        _demand(
            0 < len(text) <= _TEXT_LENGTH and "@" not in text,
            f"the {what}",
            "Describe it in 500 characters at the most, without anybody's address.",
        )
    _demand(fits(DURATION, terms.duration) and terms.duration != "P", "the duration", 'Use an ISO 8601 duration such as P2Y, or "term".')
    _demand(
        bool(terms.data_categories) and all(fits(CATEGORY, word) for word in terms.data_categories),
        "the categories of data",
        "Name at least one key of the taxonomy, such as user.contact.email.",
    )
    _demand(
        bool(terms.subject_categories) and all(fits(NAME, word) for word in terms.subject_categories),
        "the categories of data subjects",
        "Name at least one, such as participant.",
    )


def _demand_validity(document_hash: str, valid_from: datetime, valid_until: datetime | None) -> None:
    _demand(fits(SHA256, document_hash), "the hash of the document", "Give its SHA-256 as 64 lower-case hex digits (sha256sum prints it).")
    _demand(valid_until is None or aware(valid_from) < aware(valid_until), "the validity", "Its end has to be after its beginning.")


def _controller_row(controller_id: str) -> models.Controller:
    with control_safe():
        row = models.Controller.objects.filter(id=controller_id).first()
    if row is None:
        raise ControllerUnknownError("there is no controller with that id", 'Look at "obhut controllers list".')
    return row


def _contract_row(contract_id: str) -> models.Contract:
    with control_safe():
        row = models.Contract.objects.filter(id=contract_id).first()
    if row is None:
        raise ContractUnknownError("there is no contract with that id", 'Look at "obhut controllers show".')
    return row


def _instruction_row(instruction_id: str) -> models.Instruction:
    with control_safe():
        row = models.Instruction.objects.filter(id=instruction_id).first()
    if row is None:
        raise InstructionUnknownError("there is no instruction with that id", 'Look at "obhut instructions list".')
    return row


def _controller(row: models.Controller) -> ControllerRecord:
    return ControllerRecord(row.id, row.database, row.key, row.name, row.recorded_at)


def _contract(row: models.Contract) -> ContractRecord:
    terms = ContractTerms(
        row.subject_matter, row.nature, row.purpose, row.duration, tuple(row.data_categories), tuple(row.subject_categories)
    )
    return ContractRecord(row.id, row.controller_id, row.version, terms, row.document_hash, row.valid_from, row.valid_until)


def _instruction(row: models.Instruction) -> InstructionRecord:
    return InstructionRecord(
        row.id,
        row.controller_id,
        row.contract_id,
        row.kind,
        tuple(row.actions),
        row.database,
        row.subject_kind,
        None if row.subject_keys is None else tuple(row.subject_keys),
        row.given_by,
        row.channel,
        row.document_hash,
        row.valid_from,
        row.valid_until,
        row.revoked_at,
        row.used_by_run,
    )
