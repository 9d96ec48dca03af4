"""``obhut keystore``: how the master key is kept."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from obhut.cli.context import context
from obhut.cli.exits import UsageError
from obhut.keystore import LocalKeystore, master

app = App(name="keystore", help="Look after the master key and count what it wraps.")


@app.command
def status() -> None:
    """Show where the key store is, whether it opens, and how many data keys are active and destroyed."""
    here = context()
    directory = here.settings.keystore.directory
    passphrase = master.find_passphrase()
    states = Counter(state.value for _, state in LocalKeystore(directory, passphrase=passphrase).labels())
    document = {"directory": directory, "sealed under a passphrase": passphrase is not None, "data keys": dict(states)}
    here.output.result(document)


@app.command
def passphrase(
    *,
    new: Annotated[Path | None, Parameter(help="File with the new passphrase; - reads standard input.")] = None,
    none: Annotated[bool, Parameter(help="Keep the master key without a passphrase, protected by the file's permissions alone.")] = False,
) -> None:
    """Seal the master key under a passphrase, another one, or none; nothing that it wraps changes.

    The present passphrase comes from where every command takes it: the systemd credential obhut-master, OBHUT_MASTER_FILE or
    OBHUT_MASTER_FD. A master key that has none yet takes the new one without.
    """
    here = context()
    if (new is None) == (not none):
        raise UsageError("--new or --none is wanted, and not both", 'See "obhut keystore passphrase --help".')
    directory = here.settings.keystore.directory
    wanted = None if new is None else _read(new)
    if not (directory / master.FILE_NAME).exists():
        LocalKeystore(directory, passphrase=wanted)
    else:
        master.change_passphrase(directory, master.find_passphrase(), wanted)
    here.output.result(
        {"directory": directory, "passphrase": wanted is not None},
        lambda: here.output.say(
            "The master key is sealed under the new passphrase." if wanted else "The master key is kept without a passphrase."
        ),
    )


def _read(path: Path) -> bytes:
    try:
        content = sys.stdin.buffer.read(1025) if str(path) == "-" else path.read_bytes()
    except OSError:
        raise UsageError("--new: the file cannot be read", "Give a file, or - for standard input.") from None
    found = content.removesuffix(b"\n")
    if not found or len(found) > 1024:
        raise UsageError("--new: the passphrase is empty or longer than 1024 bytes")
    return found
