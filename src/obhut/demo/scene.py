"""What the acts share: the folder, the installation, the people on stage, what was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from obhut.controllers import register
from obhut.controllers.records import ControllerRecord
from obhut.controllers.vocabulary import Action, Channel, InstructionKind
from obhut.demo.stage import Stage
from obhut.demo.vendor import DATABASE, Vendor
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings


@dataclass(frozen=True, slots=True)
class Traces:
    """What a database holds of the person of the story, by key and without a name."""

    person: int
    bookings: int
    waiting: int
    invoices: int


@dataclass
class Scene:
    """The state of one performance."""

    stage: Stage
    folder: Path
    actor: Actor
    clock: Clock
    settings: Settings
    vendor: Vendor
    controllers: list[ControllerRecord] = field(default_factory=list)
    before: Traces | None = None
    word: str = ""
    moment: datetime | None = None  # before the erasure
    url: str = ""  # of the restored database
    rows: int = 0
    ending: ExitStack = field(default_factory=ExitStack)  # ends what runs beside the acts

    def instruct(self, controller: ControllerRecord, given_by: str, actions: Sequence[Action], paper: str) -> str:
        """Record a controller's standing instruction, documented by a paper of that SHA-256, and return its id."""
        return register.give_instruction(
            controller.id,
            kind=InstructionKind.STANDING,
            actions=actions,
            database=DATABASE,
            given_by=given_by,
            channel=Channel.CONTRACT,
            document_hash=paper,
            actor=self.actor,
            clock=self.clock,
        ).id

    def document(self, name: str, text: str) -> str:
        """Write a document into the folder and return its SHA-256, which is all that Obhut keeps of it."""
        file = self.folder / "documents" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return hashlib.sha256(text.encode()).hexdigest()
