"""One studio of the club, looked after in the test's own process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from obhut.controllers import register
from obhut.controllers.records import ContractTerms
from obhut.controllers.vocabulary import Action, Channel, InstructionKind
from obhut.datamap.graph import Graph, require
from obhut.datamap.load import load as load_map
from obhut.erasure import ledger
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import FixedClock
from obhut.foundation.settings import NoticeSettings, Settings, load
from obhut.postgres import control
from obhut.postgres.catalogue import read_catalogue
from obhut.postgres.connections import Session
from obhut.retention import rules, sweep
from obhut.retention.records import SweepRecord
from obhut.retention.rules import Rule, Terms
from support import club as club_system
from support.club import LONG_AGO
from support.installation import DOCUMENT, Installation

ACTOR = Actor(Role.OPERATOR, "test")
_studios = itertools.count(11)


@dataclass
class Club:
    """The club, one studio in it, and a clock that the test moves."""

    installation: Installation
    settings: Settings
    clock: FixedClock
    studio: int
    controller: str
    instruction: str = ""

    def instruct(self) -> None:
        """Record a standing instruction of the studio."""
        self.instruction = register.give_instruction(
            self.controller, kind=InstructionKind.STANDING, actions=[Action.ANONYMISE, Action.ERASE], database="club", given_by="acc-1",
            channel=Channel.API, document_hash=DOCUMENT, valid_from=LONG_AGO, actor=ACTOR, clock=self.clock,
        ).id  # fmt: skip

    def graph(self, session: Session) -> Graph:
        """Return the club's data map resolved against its database."""
        return require("club", load_map(self.settings.database("club").map).database("club"), read_catalogue(session))

    def rule(self, **terms: object) -> Rule:
        """Record the studio's rule; ten in forty are inactive, so a higher share is plausible here."""
        given = Terms(**{"notice": "", "alarm_share": 0.5, **terms})  # type: ignore[arg-type]  # tests name fields
        with self.installation.session() as session:
            graph = self.graph(session)
        return rules.set_rule(self.controller, graph, "member", given, self.instruction, actor=ACTOR, clock=self.clock)

    def run(self, rule: Rule) -> SweepRecord:
        """Sweep, and return what the rule did."""
        report = sweep.run(self.settings, "club", ACTOR, self.clock)
        return next(record for record in report.records if record.rule == rule.id)

    def tell_by(self, **notices: object) -> None:
        """Let people be told by a channel."""
        database = self.settings.databases["club"].model_copy(update={"notices": NoticeSettings.model_validate(notices)})
        self.settings = self.settings.model_copy(update={"databases": {"club": database}})

    def member(self, n: int) -> int:
        """Return the number of the studio's n-th member; those from 30 on were last seen three years ago."""
        return self.studio * 100 + n

    def gone(self) -> set[int]:
        """Return the members who were last seen three years ago."""
        return club_system.inactive(self.studio)

    def personal(self) -> set[int]:
        """Return the studio's members of whom something personal is left."""
        return {number for number in club_system.personal(self.installation) if number // 100 == self.studio}

    def everybody(self) -> set[int]:
        """Return all members of the studio."""
        return {self.member(n) for n in range(club_system.MEMBERS)}


@contextmanager
def opened(installed: Installation) -> Iterator[Club]:
    """Open the club in this process with a new studio that has instructed everything and has no rule yet."""
    settings = load(installed.folder / "obhut.toml")
    control.open_control(settings)
    ledger.open_ledger(settings)
    clock, studio = FixedClock(datetime.now(UTC)), next(_studios)
    club_system.fill(installed, studio)
    owner = register.add_controller("club", [str(studio)], f"Studio {studio}", actor=ACTOR, clock=clock)
    terms = ContractTerms("hosting", "storage", "the service", "term", ("user.name",), ("member",))
    register.add_contract(owner.id, version="1", terms=terms, document_hash=DOCUMENT, valid_from=LONG_AGO, actor=ACTOR, clock=clock)
    club = Club(installed, settings, clock, studio, owner.id)
    club.instruct()
    try:
        yield club
    finally:
        for rule in rules.list_rules("club"):
            rules.revoke_rule(rule.id, actor=ACTOR, clock=clock)
        control.close_control(settings)
