"""An installation of Obhut for one benchmark: settings, control database, controllers with their instructions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from bench import shop
from obhut.controllers import register
from obhut.controllers.records import ContractTerms
from obhut.controllers.vocabulary import Action, Channel, InstructionKind
from obhut.erasure import ledger
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.foundation.settings import FILE_NAME, Settings, load
from obhut.postgres.clusters import make_directory
from obhut.postgres.control import close_control, control_cluster, open_control

ACTOR = Actor(Role.OPERATOR, "bench")
CLOCK = SystemClock()
_NOTHING = "0" * 64  # hash of a document that a benchmark has not got
_SINCE = datetime(2020, 1, 1, tzinfo=UTC)


def found(directory: Path, url: str, *, mixed: bool = True, map_text: str | None = None, more: str = "") -> Settings:
    """Make an installation that protects the database at ``url``, with everything permitted; ``more`` is for its settings file."""
    make_directory(directory)
    file = directory / FILE_NAME
    (directory / "datamap.yaml").write_text(map_text or shop.data_map(mixed=mixed), encoding="utf-8")
    file.write_text(f'[databases.{shop.DATABASE}]\nurl = "{url}"\nmap = "datamap.yaml"\n{more}', encoding="utf-8")
    settings = load(file)
    open_control(settings)
    for number in range(1, shop.SHOPS + 1):
        controller = register.add_controller(shop.DATABASE, [str(number)], f"Shop {number}", actor=ACTOR, clock=CLOCK)
        terms = ContractTerms("a benchmark", "storage", "measuring", "term", ("user.name",), ("user",))
        register.add_contract(controller.id, version="1", terms=terms, document_hash=_NOTHING, valid_from=_SINCE, actor=ACTOR, clock=CLOCK)
        register.give_instruction(
            controller.id,
            kind=InstructionKind.STANDING,
            actions=list(Action),
            database=shop.DATABASE,
            given_by="bench",
            channel=Channel.API,
            document_hash=_NOTHING,
            actor=ACTOR,
            clock=CLOCK,
        )
    return settings


def enter(settings: Settings) -> None:
    """Make an installation the one that this process works in."""
    open_control(settings)
    ledger.open_ledger(settings)


def leave(installations: Sequence[Settings]) -> None:
    """Stop the control databases."""
    for settings in installations:
        with suppress(Exception):
            close_control(settings, stop=True)
            control_cluster(settings).kill()
