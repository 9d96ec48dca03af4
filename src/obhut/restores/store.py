"""Where certificates are kept: in the control database, and as two files to be handed out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obhut.foundation.clock import Clock
from obhut.foundation.ids import new_id
from obhut.foundation.settings import Settings
from obhut.journal.runs import Run
from obhut.keystore import open_keystore
from obhut.postgres.control import Deferred, control_safe
from obhut.restores import certificate, page

if TYPE_CHECKING:
    from obhut.restores import models
else:
    models = Deferred("obhut.restores.models")

DIRECTORY = "certificates"


@dataclass(frozen=True, slots=True)
class Kept:
    """A certificate as it is kept."""

    run: str
    database: str
    issued_at: datetime
    holds: bool
    sha256: str
    document: dict[str, Any]
    opened_at: datetime | None


def keep(settings: Settings, run: Run, content: Mapping[str, Any], clock: Clock) -> Kept:
    """Sign and keep the certificate of a run, instead of an earlier one of the same run."""
    document = certificate.sign(content, open_keystore(settings))
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    json_file, html_file = paths(settings, run.id)
    json_file.parent.mkdir(mode=0o700, exist_ok=True)
    _write(json_file, text)
    _write(html_file, page.render(document))
    digest = hashlib.sha256(text.encode()).hexdigest()
    with control_safe():
        models.Certificate.objects.update_or_create(
            run=run.id,
            defaults={
                "database": run.database,
                "issued_at": clock.now(),
                "holds": bool(content["holds"]),
                "sha256": digest,
                "document": document,
                "opened_at": None,
            },
            create_defaults={
                "id": new_id("cert"),
                "database": run.database,
                "issued_at": clock.now(),
                "holds": bool(content["holds"]),
                "sha256": digest,
                "document": document,
            },
        )
    found = find(run.id)
    assert found is not None  # noqa: S101 - just written
    return found


def find(run_id: str) -> Kept | None:
    """Return the certificate of a run."""
    with control_safe():
        row = models.Certificate.objects.filter(run=run_id).first()
    return _kept(row) if row else None


def listed(database: str | None = None) -> list[Kept]:
    """Return all certificates, the youngest first."""
    with control_safe():
        rows = models.Certificate.objects.order_by("-issued_at")
        return [_kept(row) for row in (rows.filter(database=database) if database else rows)]


def opened(run_id: str, clock: Clock) -> None:
    """Note that the database of a certificate was opened."""
    with control_safe():
        models.Certificate.objects.filter(run=run_id, opened_at=None).update(opened_at=clock.now())


def paths(settings: Settings, run_id: str) -> tuple[Path, Path]:
    """Return the files of a run's certificate: signed, and to be read."""
    directory = settings.state.directory / DIRECTORY
    return directory / f"{run_id}.json", directory / f"{run_id}.html"


def _kept(row: models.Certificate) -> Kept:
    return Kept(row.run, row.database, row.issued_at, row.holds, row.sha256, row.document, row.opened_at)


def _write(path: Path, text: str) -> None:
    work = path.with_name(f".{path.name}.{os.getpid()}")
    with work.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    work.replace(path)
