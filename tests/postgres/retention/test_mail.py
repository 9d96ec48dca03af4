"""Notices by e-mail: to the right person, in the right language, and the address goes nowhere else."""

from __future__ import annotations

import io
import logging
import socketserver
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from support.studio import Club

from obhut.erasure import ledger
from obhut.foundation.errors import SettingsError
from obhut.foundation.settings import load
from obhut.retention import cases
from obhut.retention.vocabulary import CaseState

pytestmark = pytest.mark.postgres


class Post(socketserver.ThreadingTCPServer):
    """A mail server on this machine that keeps what it gets."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.got: list[tuple[str, EmailMessage]] = []
        self.refused: dict[str, int] = {}
        super().__init__(("127.0.0.1", 0), _Talk)


class _Talk(socketserver.StreamRequestHandler):
    server: Post

    def handle(self) -> None:
        self._say("220 post")
        to = ""
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self._say("354 go on")
                lines = []
                while (part := self.rfile.readline()) != b".\r\n":
                    lines.append(part)
                self.server.got.append((to, message_from_bytes(b"".join(lines), policy=policy.default)))
            elif word == b"RCPT":
                to = line.split(b"<")[1].split(b">")[0].decode()
                if to in self.server.refused:
                    self._say(f"{self.server.refused[to]} <{to}> no")
                    continue
            elif word == b"QUIT":
                return
            self._say("250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


@pytest.fixture
def post(club: Club) -> Iterator[Post]:
    """Give a mail server that the club's notices go through."""
    with Post() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        club.tell_by(smtp=f"smtp://127.0.0.1:{server.server_address[1]}", sender="Privacy <privacy@vendor.example>")
        yield server
        server.shutdown()
        thread.join(5)


def test_each_person_gets_one_message_in_the_own_language(club: Club, post: Post) -> None:
    """de-AT is German, everything else English; controller and day are named, the person is not."""
    rule = club.rule(notice="P30D", grace="P14D", zone="UTC")
    assert club.run(rule).told == 10
    assert {to for to, _ in post.got} == {f"secret{number}@mail.invalid" for number in club.gone()}
    day = (club.clock.now() + timedelta(days=15)).date()
    for to, message in post.got:
        text, german = message.get_content(), int(to[6:-13]) % 2 == 0
        assert (f"{day:%d.%m.%Y}" if german else f"{day.day} {day:%B %Y}") in text
        assert ("im Auftrag von" if german else "on behalf of") in text and f"Studio {club.studio}" in text
        assert message["Auto-Submitted"] == "auto-generated"
        assert "ecret" not in text + message["Subject"] + message["Message-ID"]


def test_an_address_that_refuses_for_good_ends_in_the_grace_and_one_that_is_busy_is_tried_again(club: Club, post: Post) -> None:
    """550 and a missing address count as told without reach; 450 stays waiting and fails the rule; no address shows up anywhere."""
    dead, busy, none = (club.member(n) for n in (30, 31, 32))
    post.refused = {f"secret{dead}@mail.invalid": 550, f"secret{busy}@mail.invalid": 450}
    club.installation.sql(f"UPDATE member SET email = '' WHERE id = {none}")
    rule = club.rule(notice="P30D", grace="P14D")
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    with redirect_stdout(said), redirect_stderr(said):
        done = club.run(rule)
    logging.getLogger().removeHandler(handler)
    assert (done.told, done.error_code) == (7, "retention-notice-failed")
    assert cases.counts(rule) == {CaseState.TOLD: 9, CaseState.WAITING: 1}
    with ledger.places().session() as session:
        reached = session.row(
            "SELECT count(*) FILTER (WHERE reached), count(*) FILTER (WHERE NOT reached) FROM retention_case WHERE rule_id = %s", (rule.id,)
        )
        stored = session.value("SELECT string_agg(c::text, ' ') FROM retention_case c") + session.value(
            "SELECT string_agg(w::text, ' ') FROM retention_sweep w"
        )
    assert reached == (7, 3)
    assert "ecret" not in said.getvalue() + stored
    post.refused = {}
    assert club.run(rule).told == 1


@pytest.mark.parametrize(
    "lines",
    [
        'webhook = "http://vendor.example/told"\nwebhook_secret = "secret"',
        'webhook = "https://vendor.example/told"',
        'smtp = "smtp://mail.example"\nsender = "a@b.example"',
        'smtp = "smtps://mail.example"',
        'smtp = "smtps://user:word@mail.example"\nsender = "a@b.example"',
    ],
)
def test_a_channel_that_would_carry_people_in_plain_is_refused(club: Club, lines: str) -> None:
    """Plain http and smtp leave this machine under no setting, a webhook is signed, and no password stands in the file."""
    file = club.installation.folder / "plain.toml"
    file.write_text(
        (club.installation.folder / "obhut.toml").read_text(encoding="utf-8") + f"[databases.club.notices]\n{lines}\n", encoding="utf-8"
    )
    with pytest.raises(SettingsError) as refused:
        load(file)
    assert "word" not in str(refused.value).replace("password", "")
