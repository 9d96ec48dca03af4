"""Logs that cannot leak: values leave only under names on an allow-list.

A deny-list forgets the next field; so strings pass only under the keys named here, numbers and times under every key that cannot be a
subject's key, and everything else becomes ``[redacted]``. Records of other libraries keep level, logger and place but lose their words,
because those may quote a row or a job's arguments.
"""

from __future__ import annotations

import enum
import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import structlog

from obhut.foundation.clock import stamp
from obhut.foundation.durations import format_duration

REDACTED = "[redacted]"

# Keys under which a string may appear: identifiers made by Obhut, names from catalogues, fixed words.
STRING_KEYS = frozenset(
    {
        "action", "actor", "backup", "code", "column", "component", "constraint", "controller_id", "database", "engine", "event",
        "exception", "exit", "fingerprint_kind", "hash", "instruction", "job", "kind", "level", "logger", "lsn", "major", "part", "place",
        "promise", "queue", "relation", "restore", "role", "run", "schema", "segment", "setting", "signal", "slot", "sqlstate", "state",
        "step", "system_identifier", "table", "task", "timeline", "timestamp", "tombstone", "unit", "version", "worker",
    }
)  # fmt: skip
# Keys under which not even a number may appear.
NEVER_KEYS = frozenset(
    {"key", "keys", "pk", "subject", "subjects", "subject_key", "subject_keys", "value", "values", "row", "rows_of", "params"}
)

_EVENT = re.compile(r"[a-z][a-z0-9_.-]{0,79}")
_STRING = re.compile(r"[\w./:+\-@()%, ]{0,200}")
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def redact(value: object, key: str) -> object:
    """Return the value if it may appear in a log under this key, else ``[redacted]``."""
    if key in NEVER_KEYS:
        return REDACTED
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return stamp(value) if value.tzinfo else REDACTED
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, str) and key in STRING_KEYS and _STRING.fullmatch(value) and not _ADDRESS.search(value):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, bool | int | float) for item in value):
        return REDACTED  # a list of numbers may be a list of keys
    return REDACTED


def redactor(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Structlog processor: keep the event's name if it is one, and each value only if :func:`redact` lets it through."""
    name = event.get("event")
    kept = {key: redact(value, key) for key, value in event.items() if key not in {"event", "exc_info", "stack_info"}}
    kept["event"] = name if isinstance(name, str) and _EVENT.fullmatch(name) else REDACTED
    if event.get("exc_info"):
        error = sys.exc_info()[1] if event["exc_info"] is True else event["exc_info"]
        if isinstance(error, BaseException):
            kept["exception"], kept["place"] = type(error).__name__, place(error)
    return kept


def place(error: BaseException) -> str:
    """Return ``module.py:line`` of the innermost frame that is Obhut's own (else the innermost of all), at the root cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    traceback, innermost, own = error.__traceback__, "unknown", None
    while traceback:
        path = Path(traceback.tb_frame.f_code.co_filename)
        innermost = f"{path.name}:{traceback.tb_lineno}"
        if "obhut" in path.parts:
            last = len(path.parts) - 1 - path.parts[::-1].index("obhut")
            own = f"{'/'.join(path.parts[last:])}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return own or innermost


class _ForeignFormatter(logging.Formatter):
    """Formats a record of another library without its message and arguments."""

    def __init__(self, render: Callable[[Mapping[str, Any]], str]) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "event": "library.message",
            "level": record.levelname.lower(),
            "logger": record.name,
            "place": f"{Path(record.pathname).name}:{record.lineno}",
        }
        if record.exc_info and record.exc_info[0]:
            event["exception"] = record.exc_info[0].__name__
        return self._render(event)


def configure(*, stream: TextIO | None = None, json: bool = False, level: int = logging.WARNING) -> None:
    """Set up structlog and the standard library's logging so that nothing but redacted records reaches the stream.

    Args:
        stream: where lines go; standard error by default.
        json: one JSON object a line instead of ``key=value``.
        level: the least severe level of Obhut's own records; those of other libraries start at WARNING.
    """
    target = stream or sys.stderr
    renderer: Any = (
        structlog.processors.JSONRenderer() if json else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            redactor,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(_ForeignFormatter(lambda event: str(renderer(None, "", dict(event)))))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.raiseExceptions = False  # a failing handler would print the record's arguments
