"""``obhut controllers``: the customers whose data this is, and the contracts under which it is processed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.context import Context, context
from obhut.cli.exits import UsageError
from obhut.controllers import register
from obhut.controllers.records import ContractTerms, ControllerRecord
from obhut.controllers.vocabulary import SHA256, fits, parse_key
from obhut.foundation.clock import aware
from obhut.postgres.control import open_control

app = App(name="controllers", help="Keep the controllers (your customers) and their contracts.")
contract = App(name="contract", help="Record and end the contracts (data processing agreements) of a controller.")
app.command(contract)


def opened() -> Context:
    """Return the running command's context with the control database open."""
    entered = context()
    open_control(entered.settings)
    return entered


def moment(text: str | None, option: str) -> datetime | None:
    """Return a moment given as RFC 3339 text or as a date (midnight UTC).

    Raises:
        UsageError: the text is neither.
    """
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return aware(parsed if parsed.tzinfo else datetime.fromisoformat(f"{text}T00:00:00+00:00"))
    except ValueError:
        raise UsageError(f"{option}: not a time", "Use a date such as 2026-03-01, or a time with zone such as 2026-03-01T09:00Z.") from None


def key_values(text: str, option: str) -> tuple[str, ...]:
    """Return the values of a key.

    Raises:
        UsageError: the text is no key; it is not repeated.
    """
    try:
        return parse_key(text)
    except ValueError:
        raise UsageError(
            f"{option}: not a key", 'Give the plain value, or a JSON array for several columns such as \'["4", "7"]\'.'
        ) from None


def document_hash(document: str) -> str:
    """Return the SHA-256 of a document given as such or as a file.

    Raises:
        UsageError: neither 64 hex digits nor a file that can be read.
    """
    if fits(SHA256, document.lower()):
        return document.lower()
    import hashlib

    try:
        with Path(document).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise UsageError("--document: neither a SHA-256 nor a file that can be read", "Only the hash is stored, never the file.") from None


@app.command
def add(
    *,
    database: Annotated[str, Parameter(help="Name of the protected database.")],
    key: Annotated[str, Parameter(help="Value of the controller key there; a JSON array for several columns.")],
    name: Annotated[str, Parameter(help="Name of the company.")],
) -> None:
    """Register a controller: a customer whose people's data is in the database."""
    here = opened()
    here.settings.database(database)
    record = register.add_controller(database, key_values(key, "--key"), name, actor=here.actor, clock=here.clock)
    here.output.result(record, lambda: here.output.say("Controller {id} registered.", id=record.id))


@app.command(name="list")
def list_(*, database: Annotated[str | None, Parameter(help="Only this protected database.")] = None) -> None:
    """List the controllers and whether a contract is in force."""
    here = opened()
    now = here.clock.now()
    rows = [(record, in_force(record, now)) for record in register.list_controllers(database)]
    here.output.result(
        [{**_plain(record), "contract_in_force": version} for record, version in rows],
        lambda: here.output.table(
            ["controller", "database", "key", "name", "contract in force"],
            [(record.id, record.database, record.key, record.name, version) for record, version in rows],
            empty='No controller is registered yet. Register one with "obhut controllers add".',
        ),
    )


@app.command
def show(controller: Annotated[str, Parameter(help="Id of the controller.")]) -> None:
    """Show a controller with its contracts."""
    here = opened()
    record = register.get_controller(controller)
    contracts = register.list_contracts(controller)

    def render() -> None:
        here.output.pairs(_plain(record))
        here.output.table(
            ["contract", "version", "valid from", "valid until", "subject matter", "data", "people"],
            [
                (
                    one.id,
                    one.version,
                    one.valid_from,
                    one.valid_until,
                    one.terms.subject_matter,
                    list(one.terms.data_categories),
                    list(one.terms.subject_categories),
                )
                for one in contracts
            ],
            empty='It has no contract yet. Record one with "obhut controllers contract add".',
        )

    here.output.result({**_plain(record), "contracts": contracts}, render)


@contract.command(name="add")
def add_contract(
    controller: Annotated[str, Parameter(help="Id of the controller.")],
    *,
    version: Annotated[str, Parameter(help="Label of this version, such as 2026-1.")],
    subject_matter: Annotated[str, Parameter(help="What the processing is about.")],
    nature: Annotated[str, Parameter(help="What is done with the data.")] = "storage, retrieval and erasure in a hosted application",
    purpose: Annotated[str, Parameter(help="What it is done for.")],
    duration: Annotated[str, Parameter(help='ISO 8601 duration, or "term": as long as the main contract.')] = "term",
    data: Annotated[list[str], Parameter(help="Categories of data, such as user.contact.email; repeat it.", negative="")],
    people: Annotated[list[str], Parameter(help="Categories of data subjects, such as participant; repeat it.", negative="")],
    document: Annotated[str, Parameter(help="The signed document: a file, or its SHA-256. Only the hash is stored.")],
    valid_from: Annotated[str, Parameter(help="First day, or moment, in force.")],
    valid_until: Annotated[str | None, Parameter(help="When it ends, if it is known.")] = None,
) -> None:
    """Record a contract with what Art. 28(3) GDPR wants in its head."""
    here = opened()
    start = moment(valid_from, "--valid-from") or here.clock.now()
    record = register.add_contract(
        controller,
        version=version,
        terms=ContractTerms(subject_matter, nature, purpose, duration, tuple(data), tuple(people)),
        document_hash=document_hash(document),
        valid_from=start,
        valid_until=moment(valid_until, "--valid-until"),
        actor=here.actor,
        clock=here.clock,
    )
    here.output.result(record, lambda: here.output.say("Contract {id} recorded.", id=record.id))


@contract.command(name="end")
def end_contract(
    contract_id: Annotated[str, Parameter(help="Id of the contract.", name="contract")],
    *,
    at: Annotated[str | None, Parameter(help="When it ends; now by default.")] = None,
) -> None:
    """End a contract: from then on the gate refuses, unless another one is in force."""
    here = opened()
    record = register.end_contract(contract_id, at=moment(at, "--at") or here.clock.now())
    here.output.result(record, lambda: here.output.say("Contract {id} ends {end}.", id=record.id, end=record.valid_until))


def in_force(controller: ControllerRecord, now: datetime) -> str | None:
    """Return the version of the controller's contract in force."""
    valid = [
        one
        for one in register.list_contracts(controller.id)
        if one.valid_from <= now and (one.valid_until is None or now < one.valid_until)
    ]
    return valid[0].version if valid else None


def _plain(record: ControllerRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "database": record.database,
        "key": record.key,
        "name": record.name,
        "recorded_at": record.recorded_at,
    }
