"""Files of another commit, by git itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from obhut.foundation.errors import ObhutError

_TIMEOUT: Final = 30  # seconds; a commit that is here is read in milliseconds


class GitReferenceError(ObhutError):
    """The commit to compare with cannot be read."""

    code = "datamap-reference"


def commit(reference: str, folder: Path) -> str:
    """Return the hash of the commit that a branch, tag or other reference names.

    Raises:
        GitReferenceError: there is no git, no repository, or no such commit here.
    """
    if shutil.which("git") is None:
        raise GitReferenceError("git is not installed", "Install it; --against reads the other commit with it.")
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
    if found is None:
        raise GitReferenceError(
            f"{folder} has no commit {reference}",
            "Is it a git checkout? CI fetches one commit only: fetch the branch, and name it origin/main where it was never checked out.",
        )
    return found.decode("ascii", "replace").strip()


def file_at(commit_hash: str, path: Path) -> str | None:
    """Return the text of a file at a commit; None where the commit does not have it.

    Raises:
        GitReferenceError: it is no text.
    """
    file = path.resolve()
    content = _git(file.parent, "show", f"{commit_hash}:./{file.name}")
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        raise GitReferenceError(f"{path.name} at {commit_hash[:12]} is not text in UTF-8", "Compare with another commit.") from None


def _git(folder: Path, *words: str) -> bytes | None:
    try:
        ran = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None
