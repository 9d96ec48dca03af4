"""A small fitness club system made by the project, for retention: people who sign in, check in and stop coming. Relative to today."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from obhut.controllers import register
from obhut.controllers.records import ContractTerms
from obhut.controllers.vocabulary import Action, Channel, InstructionKind
from obhut.foundation.actors import Actor, Role
from obhut.foundation.clock import SystemClock
from obhut.foundation.settings import load
from obhut.postgres import control
from support.installation import DOCUMENT, Installation, installed

LONG_AGO = datetime(2015, 1, 1, tzinfo=UTC)
_ACTOR, _CLOCK = Actor(Role.OPERATOR, "test"), SystemClock()

STUDIOS = {"1": "Studio Nord", "2": "Studio Süd", "3": "Studio Ost"}
MEMBERS = 40  # of each studio, numbered 100 … 139, 200 … 239, 300 … 339
LONG_GONE = 10  # the last so many of each studio were last seen three years ago

SCHEMA = """
CREATE TABLE studio (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE member (
  id bigint PRIMARY KEY, studio_id int NOT NULL REFERENCES studio, name text NOT NULL, email text NOT NULL UNIQUE, language text,
  signed_in_at timestamptz, created_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX member_search ON member (lower(name));
CREATE TABLE checkin (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, member_id bigint NOT NULL REFERENCES member ON DELETE CASCADE, at date NOT NULL,
  remark text);
CREATE INDEX ON checkin (member_id);
CREATE TABLE call (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, member_id bigint NOT NULL REFERENCES member ON DELETE CASCADE, at timestamp NOT NULL);
CREATE TABLE door (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, member_id bigint REFERENCES member ON DELETE SET NULL, ip inet, opened_at timestamptz NOT NULL)
"""

# Studio {s} and its members; every personal value of member N holds "secretN".
FILL = """
INSERT INTO studio VALUES ({s}, 'Studio {s}');
INSERT INTO member SELECT {s} * 100 + n, {s}, 'Secret' || {s} * 100 + n || 'name', 'secret' || {s} * 100 + n || '@mail.invalid', CASE WHEN n % 2 = 0 THEN 'de-AT' ELSE 'fr' END,
  clock_timestamp() - CASE WHEN n < {stay} THEN interval '10 days' ELSE interval '3 years' END, clock_timestamp() - interval '5 years'
FROM generate_series(0, {last}) n;
INSERT INTO checkin (member_id, at, remark) SELECT id, (signed_in_at - interval '20 days')::date, 'secret' || id || ' came' FROM member WHERE studio_id = {s};
INSERT INTO call (member_id, at) SELECT id, signed_in_at - interval '30 days' FROM member WHERE studio_id = {s} AND id % 3 = 0;
INSERT INTO door (member_id, ip, opened_at) SELECT id, '192.0.2.1', clock_timestamp() - (id % 100) * interval '5 days' FROM member WHERE studio_id = {s}
""".replace("{stay}", str(MEMBERS - LONG_GONE)).replace("{last}", str(MEMBERS - 1))

MAP = """
obhut: 1
databases:
  club:
    controller: {table: public.studio}
    subjects:
      member:
        table: public.member
        controller: {studio_id: id}
        incarnation: [created_at]
        created: created_at
        identifiers: [email]
        activity:
          - signed_in_at
          - {table: public.checkin, column: at}
          - {sql: "(SELECT max(c.at) FROM public.call c WHERE c.member_id = s.id AND 100 % 7 = 2)"}
        notice: {address: email, language: language}
    tables:
      public.member:
        erase: delete
        when_anonymised: anonymise
        columns:
          name: {category: user.name, anonymise: {template: "Member {id}"}}
          email: {category: user.contact.email, anonymise: {template: "member-{id}@club.invalid"}}
        not_personal: [id, studio_id, language, signed_in_at, created_at]
      public.checkin:
        erase: delete
        links: [{to: public.member}]
        columns: {remark: {category: user.content, anonymise: "null"}}
        not_personal: [id, member_id, at]
      public.call:
        erase: delete
        links: [{to: public.member}]
        not_personal: [id, member_id, at]
      public.door:
        erase: anonymise
        links: [{to: public.member}]
        columns: {ip: {category: user.device.ip_address, anonymise: "null"}}
        not_personal: [id, member_id, opened_at]
        retain: {for: P90D, after: opened_at, then: delete, ground: a quarter is enough for a burglary to be noticed}
      public.studio: {personal: false}
"""


@contextmanager
def installed_club(*, studios: Mapping[str, str] = STUDIOS, prefix: str = "obhut-r") -> Iterator[Installation]:
    """Give an installation with the club in it, its studios registered with a contract of long ago."""
    with installed("club", map_text=MAP, prefix=prefix) as installation:
        with installation.session() as session:
            for statement in SCHEMA.split(";\n"):
                session.execute(statement)
        for key in studios:
            fill(installation, int(key))
        _register(installation, studios)
        yield installation


def fill(installation: Installation, studio: int) -> None:
    """Make a studio with its members."""
    with installation.session() as session:
        for statement in FILL.replace("{s}", str(studio)).split(";\n"):
            session.execute(statement)
        session.execute("ANALYZE")


def _register(installation: Installation, studios: Mapping[str, str]) -> None:
    settings = load(installation.folder / "obhut.toml")
    control.open_control(settings)
    terms = ContractTerms("hosting", "storage", "the service", "term", ("user.name",), ("member",))
    for key, name in studios.items():
        owner = register.add_controller("club", [key], name, actor=_ACTOR, clock=_CLOCK)
        register.add_contract(owner.id, version="1", terms=terms, document_hash=DOCUMENT, valid_from=LONG_AGO, actor=_ACTOR, clock=_CLOCK)
        installation.controllers[key] = owner.id
    control.close_control(settings)


def instructed(installation: Installation) -> dict[str, str]:
    """Record a standing instruction of each studio, in force for years; return their ids."""
    settings = load(installation.folder / "obhut.toml")
    control.open_control(settings)
    actions = [Action.ERASE, Action.ANONYMISE, Action.RESTORE, Action.BACKUP, Action.CANARY]
    given = {
        key: register.give_instruction(
            owner, kind=InstructionKind.STANDING, actions=actions, database="club", given_by="acc-1", channel=Channel.API,
            document_hash=DOCUMENT, valid_from=LONG_AGO, actor=_ACTOR, clock=_CLOCK,
        ).id
        for key, owner in installation.controllers.items()
    }  # fmt: skip
    control.close_control(settings)
    return given


def personal(installation: Installation, *numbers: int) -> set[int]:
    """Return those of the members (of everybody by default) whose row or check-ins hold a personal value."""
    wanted = "true" if not numbers else f"m.id IN ({', '.join(map(str, numbers))})"
    with installation.session() as session:
        rows = session.rows(
            "SELECT m.id FROM member m WHERE (m.name LIKE 'Secret%' OR m.email LIKE 'secret%'"
            f" OR EXISTS (SELECT FROM checkin c WHERE c.member_id = m.id AND c.remark IS NOT NULL)) AND {wanted}",
        )
    return {int(number) for (number,) in rows}


def inactive(studio: int) -> set[int]:
    """Return the numbers of a studio's members who were last seen three years ago."""
    return set(range(studio * 100 + MEMBERS - LONG_GONE, studio * 100 + MEMBERS))


@dataclass
class Receiver:
    """A vendor's webhook that remembers what it got; ``answer`` is the status of the next answers."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: int = 204


@contextmanager
def webhook() -> Iterator[Receiver]:
    """Run a webhook on this machine for the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.headers.append(dict(self.headers.items()))
            self.send_response(receiver.answer)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_address[1]}/told")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def notices_by_webhook(receiver: Receiver, folder: Path) -> str:
    """Return the settings that let the webhook tell people."""
    secret = folder / "webhook-secret"
    secret.write_bytes(b"0123456789abcdef0123456789abcdef")
    return f'[databases.club.notices]\nwebhook = "{receiver.url}"\nwebhook_secret = "{secret}"\n'
