"""Settings: one TOML file, ``obhut.toml``, read once and frozen.

Every message names the file and the key, never the value: a value may be a password that slipped into a URL. Relative paths are
relative to the file, so that a command means the same from every working directory. Passwords are refused in the file; they
belong in a password file or a service file, which libpq reads by itself.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import types
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args, get_origin
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from obhut.foundation.durations import parse_duration
from obhut.foundation.errors import SettingsError

FILE_NAME = "obhut.toml"
VARIABLE = "OBHUT_CONFIG"
EMBEDDED = "embedded"

SECTIONS = ("state", "control", "postgres", "erasure_list", "keystore", "audit_log", "language", "databases")

_HERE = frozenset({"127.0.0.1", "localhost", "::1"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_PASSWORD_KEY = re.compile(r"(?:^|\s)password\s*=", re.IGNORECASE)
_URL_HINT = "Leave the password out of the URL and put it in a password file (PGPASSFILE) or a service file (PGSERVICEFILE)."


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _path(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str | Path):
        return value
    if not str(value):
        raise ValueError("must not be empty")
    base = info.context["directory"] if info.context else Path.cwd()
    # No resolve(): a symbolic link to another disk stays visible in messages.
    return Path(os.path.abspath(base / Path(value).expanduser()))  # noqa: PTH100 - normalises ".." without following links


def _url(value: object) -> object:
    if isinstance(value, str) and _holds_password(value):
        raise ValueError("holds a password")
    return value


def _holds_password(url: str) -> bool:
    if "://" not in url:
        return bool(_PASSWORD_KEY.search(url))
    try:
        parts = urlsplit(url)
    except ValueError:
        return ":" in url.partition("://")[2].rpartition("@")[0]
    return parts.password is not None or any(key.lower() == "password" for key, _ in parse_qsl(parts.query, keep_blank_values=True))


Duration = Annotated[timedelta, BeforeValidator(_duration)]
SettingsPath = Annotated[Path, BeforeValidator(_path)]
DatabaseUrl = Annotated[str, Field(min_length=1), BeforeValidator(_url)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class StateSettings(_Section):
    """``[state]``: where Obhut writes."""

    directory: SettingsPath = Path("var")


class ControlSettings(_Section):
    """``[control]``: Obhut's own PostgreSQL, another cluster than every protected database."""

    url: DatabaseUrl = EMBEDDED

    @property
    def embedded(self) -> bool:
        """Whether Obhut runs the control cluster itself."""
        return self.url == EMBEDDED


class PostgresSettings(_Section):
    """``[postgres]``: which PostgreSQL programs to run, and as whom."""

    run_as: str = ""
    binaries: dict[str, SettingsPath] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _majors(self) -> Self:
        if any(not major.isdigit() for major in self.binaries):
            raise ValueError("binaries: every key must be a major version of PostgreSQL, such as 15")
        return self

    def directory(self, major: int) -> Path | None:
        """Return the configured directory of programs of a major version, if there is one."""
        return self.binaries.get(str(major))


class ErasureListSettings(_Section):
    """``[erasure_list]``: the second place of the erasure list."""

    mirror: SettingsPath = Path("var/mirror")


class AuditLogSettings(_Section):
    """``[audit_log]``: where the controllers' logs lie, and for how long."""

    store: DatabaseUrl = "var/audit"  # a directory, relative to this file, or a bucket such as s3://name/prefix
    retention: Duration = timedelta(days=365)


class LanguageSettings(_Section):
    """``[language]``: the language of output where the caller names none."""

    default: Literal["en", "de"] = "en"


class BackupSettings(_Section):
    """``[databases.<name>.backup]``: how often, how long, and when every byte is gone."""

    engine: Literal["barman"] = "barman"
    full_every: Duration = timedelta(days=1)  # 33 days restorable, 35 days at most: one day between fulls fits, a week does not
    incremental_every: Duration = timedelta(hours=6)
    restorable: Duration = timedelta(days=33)
    gone_after: Duration = timedelta(days=35)
    heartbeat: int = Field(default=60, ge=1, le=3600)  # seconds

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.full_every <= timedelta() or self.incremental_every <= timedelta():
            raise ValueError("full_every and incremental_every must be longer than nothing")
        if self.restorable >= self.gone_after:
            raise ValueError("restorable must be shorter than gone_after")
        return self


def _private(url: str, schemes: tuple[str, ...], plain: str) -> bool:
    """Whether an address is encrypted, or plain and on this machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme in schemes or (parts.scheme == plain and parts.hostname in _HERE))


class TokenSettings(_Section):
    """``[keystore.pkcs11]``: a hardware security module, or a program that stands in for one."""

    module: SettingsPath = Path("/usr/lib/softhsm/libsofthsm2.so")
    token: str = "obhut"  # noqa: S105 - the label of the token
    pin_file: SettingsPath | None = None  # a systemd credential named obhut-pin otherwise


class AwsSettings(_Section):
    """``[keystore.aws]``: AWS KMS; credentials come from where AWS's own tools take them."""

    region: str = ""
    endpoint: DatabaseUrl | Literal[""] = ""
    wait_days: int = Field(default=7, ge=7, le=30)  # before AWS deletes a key for good

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if self.endpoint and not _private(self.endpoint, ("https",), "http"):
            raise ValueError("endpoint needs https (http only on this machine)")
        return self


class TransitSettings(_Section):
    """``[keystore.transit]``: the transit engine of Vault or OpenBao."""

    url: DatabaseUrl | Literal[""] = ""
    mount: str = "transit"
    namespace: str = ""
    token_file: SettingsPath | None = None  # a systemd credential named obhut-transit otherwise
    ca_file: SettingsPath | None = None

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if self.url and not _private(self.url, ("https",), "http"):
            raise ValueError("url needs https (http only on this machine)")
        return self


class KeystoreSettings(_Section):
    """``[keystore]``: where the master key and the wrapped keys lie, and who wraps the keys of audit logs."""

    directory: SettingsPath = Path("var/keys")
    driver: Literal["local", "pkcs11", "aws", "transit"] = "local"
    cache: Duration = timedelta(seconds=10)  # that a process keeps subject keys in memory, and an erasure waits for at the most
    rotate_every: Duration = timedelta(days=30)
    grace: Duration = timedelta(days=1)  # between the end of an epoch and the destruction of its key
    copies_kept: Duration = timedelta()  # copies of the key store made elsewhere
    pkcs11: TokenSettings = Field(default_factory=TokenSettings)
    aws: AwsSettings = Field(default_factory=AwsSettings)
    transit: TransitSettings = Field(default_factory=TransitSettings)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not timedelta(seconds=1) <= self.cache <= timedelta(minutes=5):
            raise ValueError("cache must be from PT1S to PT5M: an erasure waits so long for a process that is silent")
        if self.rotate_every <= timedelta() or self.grace < timedelta() or self.copies_kept < timedelta():
            raise ValueError("rotate_every must be longer than nothing, grace and copies_kept must not be negative")
        return self


class NoticeSettings(_Section):
    """``[databases.<name>.notices]``: how people are told before they are anonymised."""

    webhook: DatabaseUrl | Literal[""] = ""
    webhook_secret: SettingsPath | None = None  # file with the key that signs what is sent
    smtp: DatabaseUrl | Literal[""] = ""
    smtp_login: SettingsPath | None = None  # file with two lines: user and password
    sender: str = ""
    texts: SettingsPath | None = None  # directory with notice.de.txt and notice.en.txt

    @property
    def configured(self) -> bool:
        """Whether there is a channel."""
        return bool(self.webhook or self.smtp)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.webhook and self.smtp:
            raise ValueError("webhook and smtp exclude each other: one of them tells people")
        if self.webhook and (not _private(self.webhook, ("https",), "http") or self.webhook_secret is None):
            raise ValueError("a webhook needs https (http only on this machine) and webhook_secret, a file with the key that signs")
        if self.smtp and (not _private(self.smtp, ("smtps", "smtp+starttls"), "smtp") or not self.sender):
            raise ValueError("smtp needs smtps:// or smtp+starttls:// (smtp:// only on this machine) and sender")
        return self


class FinalitySettings(_Section):
    """``[databases.<name>.finality]``: when tables may be rewritten, which keeps everybody from them for a while."""

    window: Annotated[str, Field(pattern=r"^$|^(daily|mon|tue|wed|thu|fri|sat|sun) \d\d:\d\d-\d\d:\d\d$")] = ""
    zone: str = "UTC"


class CaptureSettings(_Section):
    """``[databases.<name>.capture]``: how changes get into the audit log."""

    method: Literal["streaming", "polling"] = "streaming"  # polling: where a proxy does not pass the replication protocol on
    lag_seconds: int = Field(default=300, ge=10, le=86_400)  # an alarm when the stream is further behind
    lag_megabytes: int = Field(default=1024, ge=16)  # an alarm when the server keeps more WAL for the slot
    sealed_accounts: tuple[str, ...] = ()  # database accounts of single people: their names are sealed like the claim

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("sealed_accounts"), list):
            return {**value, "sealed_accounts": tuple(value["sealed_accounts"])}
        return value


class DatabaseSettings(_Section):
    """``[databases.<name>]``: one protected database."""

    name: str
    url: DatabaseUrl
    map: SettingsPath = Path("datamap.yaml")
    staging: dict[str, DatabaseUrl] = Field(default_factory=dict)  # test and staging databases that show its data
    backup: BackupSettings = Field(default_factory=BackupSettings)
    notices: NoticeSettings = Field(default_factory=NoticeSettings)
    finality: FinalitySettings = Field(default_factory=FinalitySettings)
    capture: CaptureSettings = Field(default_factory=CaptureSettings)


class Settings(_Section):
    """All of ``obhut.toml``."""

    path: Path  # the file these settings came from
    state: StateSettings
    control: ControlSettings
    postgres: PostgresSettings
    erasure_list: ErasureListSettings
    keystore: KeystoreSettings
    audit_log: AuditLogSettings
    language: LanguageSettings
    databases: dict[str, DatabaseSettings]

    def database(self, name: str) -> DatabaseSettings:
        """Return the settings of one protected database.

        Raises:
            SettingsError: the file names no such database.
        """
        try:
            return self.databases[name]
        except KeyError:
            known = ", ".join(sorted(self.databases)) or "none"
            raise SettingsError(
                f"{self.path}: there is no database of that name under [databases]",
                f"The file names these: {known}.",
            ) from None

    def only_database(self) -> DatabaseSettings:
        """Return the one protected database of a file that names exactly one.

        Raises:
            SettingsError: the file names none or several.
        """
        if len(self.databases) == 1:
            return next(iter(self.databases.values()))
        known = ", ".join(sorted(self.databases)) or "none"
        raise SettingsError(f"{self.path}: which database is meant is not clear", f"Name one of these: {known}.")


def find(path: Path | None = None) -> Path:
    """Return the file to read: the argument, else the variable ``OBHUT_CONFIG``, else ``obhut.toml`` in the working directory.

    Raises:
        SettingsError: there is no such file.
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    found = Path(os.path.abspath(named or FILE_NAME))  # noqa: PTH100 - as in _path
    if not found.is_file():
        hint = f"Is {VARIABLE} or --config right?" if named else 'Run "obhut init" here, or name a file with --config.'
        raise SettingsError(f"{found}: there is no such settings file", hint)
    return found


def load(path: Path | None = None) -> Settings:
    """Read, check and freeze the settings.

    Args:
        path: the file; see :func:`find` for what stands in for it.

    Raises:
        SettingsError: the file is missing, is not TOML, or a key is unknown, missing or wrong.
    """
    file = find(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: the settings file cannot be read", "May this user read it?") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{file}: the settings file is not UTF-8 text", "Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        # The parser names line and column and at most a key or a single character, no value.
        raise SettingsError(f"{file}: not valid TOML: {_lower(str(error))}", "Is a quotation mark or bracket left open there?") from None
    return _checked(file, document)


def _checked(file: Path, document: dict[str, Any]) -> Settings:
    databases = document.get("databases")
    if isinstance(databases, dict):
        for name, table in databases.items():
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"{file}: [databases.{name}]: not a usable name",
                    "Use a lower-case letter, then lower-case letters, digits and underscores, 48 characters at the most.",
                )
            if isinstance(table, dict):
                table.setdefault("name", name)
    document["path"] = file
    for section in SECTIONS:
        document.setdefault(section, {})  # so that default paths, too, are relative to the file
    try:
        return Settings.model_validate(document, context={"directory": file.parent})
    except ValidationError as error:
        fact, hint = _explain(error)
    raise SettingsError(f"{file}: {fact}", hint)


def _explain(error: ValidationError) -> tuple[str, str | None]:
    """Return fact and hint for the first problem; pydantic's own text is dropped where it quotes the value."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = [str(part) for part in problem["loc"]]
    key, kind = ".".join(where), problem["type"]
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if kind == "extra_forbidden":
        known = _known(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1)
        hint = f'Did you mean "{near[0]}"?' if near else f"Keys that can stand there: {', '.join(known)}."
        return f"{key}: unknown key{more}", hint
    if kind == "missing":
        return f"{key}: missing{more}", "Every key is described in docs/reference/settings.md."
    if kind == "value_error":
        fact = str(problem["ctx"]["error"])
        return (f"{key}: {fact}{more}", _URL_HINT if fact == "holds a password" else "See docs/reference/settings.md.")
    return f"{key}: {_lower(problem['msg'])}{more}", "See docs/reference/settings.md."


def _known(where: list[str]) -> list[str]:
    """Return the keys of the section at a place such as ``["databases", "courses", "backup"]``."""
    current: object = Settings
    for part in where:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[part].annotation
        elif get_origin(current) is dict:
            current = get_args(current)[1]
    while isinstance(current, types.GenericAlias) and get_origin(current) is dict:
        current = get_args(current)[1]
    fields = cast("Mapping[str, object]", getattr(current, "model_fields", {}))
    return [name for name in fields if name not in {"path", "name"}]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
