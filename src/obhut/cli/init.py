"""``obhut init``: a commented settings file and the folders it names."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.context import context
from obhut.foundation.errors import ObhutError
from obhut.foundation.settings import FILE_NAME, load

app = App(name="init")


class SettingsExistError(ObhutError):
    """There is a settings file already; it is never overwritten."""

    code = "settings-exist"


@app.default
def init(
    directory: Annotated[Path, Parameter(help="Where the settings file goes; created when missing.")] = Path(),
    *,
    database: Annotated[str | None, Parameter(help="Name under which Obhut knows the protected database.")] = None,
    url: Annotated[str | None, Parameter(help="libpq URL of the protected database, without a password.")] = None,
) -> None:
    """Write a commented obhut.toml and create the state directory.

    Nothing is overwritten. With --database and --url the protected database is entered, too; without them its section is there
    as a comment.
    """
    file = (directory / FILE_NAME).absolute()
    if file.exists():
        raise SettingsExistError(f"{file}: there is a settings file already", "Edit it; it is never overwritten.")
    directory.mkdir(parents=True, exist_ok=True)
    template = resources.files("obhut.cli").joinpath("obhut.toml").read_text(encoding="utf-8")
    file.write_text(template + _section(database, url), encoding="utf-8")
    try:
        settings = load(file)
    except ObhutError:
        file.unlink()  # what was given on the command line cannot be used: leave nothing behind
        raise
    settings.state.directory.mkdir(parents=True, exist_ok=True)
    settings.state.directory.chmod(0o711)  # the server's user passes through, nobody lists it
    for private in (settings.keystore.directory, settings.erasure_list.mirror):
        private.mkdir(parents=True, exist_ok=True)
        private.chmod(0o700)
    output = context().output
    output.result(
        {"settings": file, "state": settings.state.directory, "databases": sorted(settings.databases)},
        lambda: _show(file, settings.state.directory),
    )


def _section(database: str | None, url: str | None) -> str:
    if not database and not url:
        return _EXAMPLE
    quoted = (url or "").replace("\\", "\\\\").replace('"', '\\"')
    return f'\n[databases.{database or "main"}]\nurl = "{quoted}"\nmap = "datamap.yaml"\n'


_EXAMPLE = """
# One section for each protected database. No password here: use PGPASSFILE or a service file.
# [databases.courses]
# url = "postgresql://obhut@db.internal/courses?sslmode=verify-full"
# map = "datamap.yaml"                # whose data is where; in your git, reviewed like code
# [databases.courses.backup]
# full_every = "P1D"
"""


def _show(file: Path, state: Path) -> None:
    output = context().output
    output.say("Settings: {path}", path=os.path.relpath(file))
    output.say("State:    {path}", path=os.path.relpath(state))
    output.say('Next: enter your database in the file, then run "obhut datamap suggest".')
