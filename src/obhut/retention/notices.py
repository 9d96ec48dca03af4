"""Tell people before they are anonymised: through the vendor's webhook, or by e-mail.

The webhook gets opaque keys and dates, nothing else. For an e-mail the address is read from production at the moment of sending, goes
into the one message and is kept nowhere: not in a case, not in a log, not in an error. A message may be sent twice (a process may die
between handing it over and noting it), but the time of grace never begins before one was handed over.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from email.message import EmailMessage
from importlib import resources
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from obhut.controllers import register
from obhut.datamap.graph import Graph
from obhut.foundation.clock import Clock
from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import NoticeSettings
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier, array_literal, trusted
from obhut.retention import cases
from obhut.retention.cases import Case
from obhut.retention.errors import NoticeFailedError
from obhut.retention.rules import Rule

BATCH: Final = 100
TIMEOUT: Final = 20.0  # seconds
SIGNATURE: Final = "Obhut-Signature"
LANGUAGES: Final = ("en", "de")


@dataclass(frozen=True, slots=True)
class Handed:
    """Ids of cases by what became of their notices: handed over, no way to reach the person, to be tried again."""

    over: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Channel(Protocol):
    """Hands notices over."""

    def send(self, rule: Rule, batch: Sequence[Case], on: date) -> Handed:
        """Tell the people of these cases that they will be anonymised on a day or later, and say what became of it."""
        ...


def tell(channel: Channel, rule: Rule, waiting: Sequence[Case], on: date, clock: Clock) -> tuple[int, int]:
    """Send the notices of waiting cases, batch by batch; return how many were handed over, and how many are to be tried again."""
    number, open_ = 0, 0
    for start in range(0, len(waiting), BATCH):
        handed = channel.send(rule, waiting[start : start + BATCH], on)
        reach("notice.handed-over")
        now = clock.now()
        cases.told(handed.over, now, reached=True)
        cases.told(handed.unreachable, now, reached=False)
        given_up = cases.failed(handed.failed, now) if handed.failed else 0
        reach("notice.noted")
        number += len(handed.over)
        open_ += len(handed.failed) - given_up
    return number, open_


@contextmanager
def opened(settings: NoticeSettings, session: Session, graph: Graph) -> Iterator[Channel | None]:
    """Give the channel of these settings for the block, or None when there is none."""
    if settings.webhook:
        yield Webhook(settings.webhook, _secret(settings.webhook_secret))
    elif settings.smtp:
        with _connected(settings) as server:
            yield Mail(server, settings, session, graph)
    else:
        yield None


class Webhook:
    """The vendor tells its people itself: it gets keys that say nothing to anybody else."""

    def __init__(self, url: str, secret: bytes) -> None:
        self._url = url
        self._secret = secret

    def send(self, rule: Rule, batch: Sequence[Case], on: date) -> Handed:
        """Post one signed document; only an answer of 2xx counts."""
        body = json.dumps(
            {
                "kind": "obhut.inactivity-notice",
                "version": 1,
                "database": rule.database,
                "controller": rule.controller,
                "subject_kind": rule.subject_kind,
                "anonymised_from": on.isoformat(),
                "notices": [{"id": case.id, "key": list(case.key)} for case in batch],
            },
            separators=(",", ":"),
        ).encode()
        signature = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", SIGNATURE: f"sha256={signature}"}
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - the settings admit https only
        ids = [case.id for case in batch]
        try:
            with _OPENER.open(request, timeout=TIMEOUT):
                return Handed(over=ids)
        except (urllib.error.URLError, OSError, ValueError):
            return Handed(failed=ids)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could lead from https to anywhere: it is an answer other than 2xx."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Follow none."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class Mail:
    """Obhut writes to the people on the controller's behalf."""

    def __init__(self, server: smtplib.SMTP, settings: NoticeSettings, session: Session, graph: Graph) -> None:
        self._server = server
        self._sender = settings.sender
        self._texts = {tag: _text(settings.texts, tag) for tag in LANGUAGES}
        self._session = session
        self._graph = graph

    def send(self, rule: Rule, batch: Sequence[Case], on: date) -> Handed:
        """Send each person one message in the language of the map's column; German or English."""
        addresses = self._addresses(rule.subject_kind, batch)
        controller = register.get_controller(rule.controller).name
        handed = Handed()
        for case in batch:
            address, tag = addresses.get(case.key, ("", "en"))
            if not address:
                handed.unreachable.append(case.id)
                continue
            self._one(case, address, self._texts[tag], {"controller": controller, "date": _written(on, tag)}, handed)
        return handed

    def _one(self, case: Case, address: str, text: str, values: Mapping[str, str], handed: Handed) -> None:
        try:
            self._server.send_message(_message(self._sender, address, text, values, case.id))
            handed.over.append(case.id)
        except (smtplib.SMTPRecipientsRefused, ValueError) as error:
            # The error quotes the address: only its code is looked at, and nothing of it leaves this block.
            codes = [code for code, _ in error.recipients.values()] if isinstance(error, smtplib.SMTPRecipientsRefused) else [550]
            (handed.unreachable if all(code >= 500 for code in codes) else handed.failed).append(case.id)
        except (smtplib.SMTPException, OSError):
            handed.failed.append(case.id)

    def _addresses(self, kind: str, batch: Sequence[Case]) -> dict[tuple[str, ...], tuple[str, str]]:
        """Read address and language of these people now; what is read lives as long as the batch is being sent."""
        subject = self._graph.subject(kind)
        if subject.notice is None:
            return {}
        names = [Identifier(f"obhut_k{position}") for position in range(len(subject.key))]
        language = Identifier("s", subject.notice.language) if subject.notice.language else SQL("NULL")
        query = SQL("SELECT k.n, s.{}::text, {}::text FROM unnest({}) WITH ORDINALITY AS k({}, n) JOIN {} s ON {}").format(
            Identifier(subject.notice.address),
            language,
            SQL(", ").join(SQL("%s::{}[]").format(trusted(type_)) for type_ in subject.key_types),
            SQL(", ").join(names),
            self._graph.catalogue.tables[subject.table].relation,
            SQL(" AND ").join(SQL("s.{} = k.{}").format(Identifier(mine), other) for mine, other in zip(subject.key, names, strict=True)),
        )
        keys = [case.key for case in batch]
        literals = [array_literal([key[position] for key in keys]) for position in range(len(subject.key))]
        return {keys[number - 1]: (address or "", _tag(spoken)) for number, address, spoken in self._session.rows(query, literals)}


def _message(sender: str, address: str, text: str, values: Mapping[str, str], case: str) -> EmailMessage:
    """Return the message.

    Raises:
        ValueError: the address cannot stand in a header.
    """
    head, _, body = text.partition("\n\n")
    message = EmailMessage()
    message["From"] = sender
    message["To"] = address
    message["Subject"] = _filled(head.removeprefix("Subject:").strip(), values)
    message["Auto-Submitted"] = "auto-generated"
    message["Message-ID"] = f"<{case}@{sender.rpartition('@')[2].rstrip('>')}>"  # sent twice, it is the same message
    message.set_content(_filled(body, values))
    return message


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def _text(directory: Path | None, tag: str) -> str:
    """Return the text of a notice: the vendor's own, or the one that is shipped."""
    name = f"notice.{tag}.txt"
    try:
        if directory is not None and (directory / name).is_file():
            return (directory / name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise NoticeFailedError(f"{name} cannot be read", "May this user read the directory of notices.texts, and is it UTF-8?") from None
    return resources.files("obhut.retention").joinpath("texts", name).read_text(encoding="utf-8")


def _tag(spoken: str | None) -> str:
    tag = (spoken or "").replace("_", "-").partition("-")[0].lower()
    return tag if tag in LANGUAGES else "en"


def _written(on: date, tag: str) -> str:
    return f"{on:%d.%m.%Y}" if tag == "de" else f"{on.day} {on:%B %Y}"


def _secret(path: Path | None) -> bytes:
    try:
        secret = path.read_bytes().strip() if path else b""
    except OSError:
        secret = b""
    if len(secret) < 16:
        raise NoticeFailedError("the file with the webhook's key cannot be read or is too short", "It holds 16 bytes or more.")
    return secret


@contextmanager
def _connected(settings: NoticeSettings) -> Iterator[smtplib.SMTP]:
    """Give a mail server's session that is encrypted, or on this machine."""
    parts = urlsplit(settings.smtp)
    host, secure = str(parts.hostname), ssl.create_default_context()
    ports = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}
    make: Callable[[], smtplib.SMTP] = lambda: smtplib.SMTP(host, parts.port or ports[parts.scheme], timeout=TIMEOUT)  # noqa: E731
    if parts.scheme == "smtps":
        make = lambda: smtplib.SMTP_SSL(host, parts.port or ports["smtps"], timeout=TIMEOUT, context=secure)  # noqa: E731
    try:
        server = make()
        if parts.scheme == "smtp+starttls":
            server.starttls(context=secure)
        if settings.smtp_login:
            user, password = settings.smtp_login.read_text(encoding="utf-8").splitlines()[:2]
            server.login(user, password)
    except (smtplib.SMTPException, OSError, ValueError):
        raise NoticeFailedError("the mail server does not take notices", "Is smtp right, and the file of smtp_login?") from None
    try:
        yield server
    finally:
        server.close()
