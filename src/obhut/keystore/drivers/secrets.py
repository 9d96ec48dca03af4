"""Where a driver's own password comes from: a private file or a systemd credential; never settings, environment or arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from obhut.keystore.errors import KeystoreError
from obhut.keystore.files import read_private

_MAX: Final = 4096


def read_secret(file: Path | None, credential: str, what: str) -> str:
    """Return a secret without its last line feed.

    Args:
        file: named by the settings; its owner alone may read it.
        credential: name of the systemd credential that stands in for it.
        what: name of the secret, for messages.

    Raises:
        KeystorePermissionsError: others may read the file.
        KeystoreError: there is none, or it cannot be read.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    source = file or (Path(directory) / credential if directory else None)
    if source is None:
        raise KeystoreError(
            f"the {what} of the key store is not given", f"Name a file in the settings, or pass the systemd credential {credential}."
        )
    try:
        text = (read_private(source) if file else source.read_bytes()).decode().rstrip("\n")
    except (OSError, UnicodeDecodeError):
        raise KeystoreError(
            f"the {what} of the key store cannot be read", f"Check the file, or the systemd credential {credential}."
        ) from None
    if not text or len(text) > _MAX or not text.isprintable():
        raise KeystoreError(f"the {what} of the key store is empty, too long or not one line")
    return text
