"""``obhut instructions``: what controllers have told the processor to do."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.controllers import document_hash, key_values, moment, opened
from obhut.controllers import register
from obhut.controllers.records import InstructionRecord
from obhut.controllers.vocabulary import Action, Channel, InstructionKind, SubjectRef

app = App(name="instructions", help="Keep the documented instructions that permit what is done with personal data.")


@app.command
def give(
    controller: Annotated[str, Parameter(help="Id of the controller that instructs.")],
    *,
    action: Annotated[list[Action], Parameter(help="What it permits; repeat it for several.", negative="")],
    given_by: Annotated[str, Parameter(help="Opaque reference of the controller's person, such as an account number; no name.")],
    document: Annotated[str, Parameter(help="The documented instruction: a file, or its SHA-256. Only the hash is stored.")],
    kind: Annotated[InstructionKind, Parameter(help="Standing, or single: used up by one run.")] = InstructionKind.SINGLE,
    channel: Annotated[Channel, Parameter(help="How it arrived.")] = Channel.TICKET,
    subject_kind: Annotated[str, Parameter(help="Only about this kind of people in the data map.")] = "",
    subject: Annotated[list[str] | None, Parameter(help="Only about the person with this key; repeat it for several.", negative="")] = None,
    valid_from: Annotated[str | None, Parameter(help="From when; now by default.")] = None,
    valid_until: Annotated[str | None, Parameter(help="Until when.")] = None,
) -> None:
    """Record an instruction under the contract in force."""
    here = opened()
    subjects = [SubjectRef(subject_kind, key_values(text, "--subject")) for text in subject] if subject else None
    record = register.give_instruction(
        controller,
        kind=kind,
        actions=action,
        database=register.get_controller(controller).database,
        given_by=given_by,
        channel=channel,
        document_hash=document_hash(document),
        actor=here.actor,
        clock=here.clock,
        subject_kind=subject_kind,
        subjects=subjects,
        valid_from=moment(valid_from, "--valid-from"),
        valid_until=moment(valid_until, "--valid-until"),
    )
    here.output.result(record, lambda: here.output.say("Instruction {id} recorded.", id=record.id))


@app.command(name="list")
def list_(
    *,
    controller: Annotated[str | None, Parameter(help="Only of this controller.")] = None,
    database: Annotated[str | None, Parameter(help="Only for this protected database.")] = None,
    limit: Annotated[int, Parameter(help="At most so many, the youngest first.")] = 200,
) -> None:
    """List instructions and where each stands."""
    here = opened()
    now = here.clock.now()
    records = register.list_instructions(controller_id=controller, database=database, limit=limit)
    here.output.result(
        records,
        lambda: here.output.table(
            ["instruction", "controller", "kind", "actions", "database", "about", "valid from", "state"],
            [
                (one.id, one.controller_id, one.kind, list(one.actions), one.database, about(one), one.valid_from, one.state(now))
                for one in records
            ],
            empty='There is no instruction yet. Record one with "obhut instructions give".',
        ),
    )


@app.command
def show(instruction: Annotated[str, Parameter(help="Id of the instruction.")]) -> None:
    """Show an instruction."""
    here = opened()
    record = register.get_instruction(instruction)
    here.output.result(
        record,
        lambda: here.output.pairs(
            {
                "instruction": record.id,
                "state": record.state(here.clock.now()),
                "controller": record.controller_id,
                "contract": record.contract_id,
                "kind": record.kind,
                "actions": list(record.actions),
                "database": record.database,
                "about": about(record),
                "given by": record.given_by,
                "channel": record.channel,
                "document SHA-256": record.document_hash,
                "valid from": record.valid_from,
                "valid until": record.valid_until,
                "revoked": record.revoked_at,
                "used by run": record.used_by_run or None,
            }
        ),
    )


@app.command
def revoke(instruction: Annotated[str, Parameter(help="Id of the instruction.")]) -> None:
    """Revoke an instruction now; what it permitted before stays documented."""
    here = opened()
    record = register.revoke_instruction(instruction, actor=here.actor, clock=here.clock)
    here.output.result(record, lambda: here.output.say("Instruction {id} revoked.", id=record.id))


def about(record: InstructionRecord) -> str:
    """Return in words whom an instruction covers: how many people, not who; keys are only in ``--json``."""
    if record.subject_keys is not None:
        return f"{len(record.subject_keys)} of kind {record.subject_kind}"
    return record.subject_kind or "everyone"
