"""Write requirements.lock: what pyproject.toml asks for, resolved, with the hashes of every file of each release.

Without the source package psycopg2, which Barman names as a dependency and which needs a compiler: psycopg2-binary is the same module.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"


def main() -> None:
    """Resolve, drop psycopg2, write."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *(wish for extra in project["project"]["optional-dependencies"].values() for wish in extra),
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
        "editables",  # hatchling's editable installs
    ]
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "all.in"), Path(directory, "requirements.lock")
        source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        if LOCK.exists():
            target.write_text(LOCK.read_text(encoding="utf-8"), encoding="utf-8")  # keeps the versions that still fit
        options = "--quiet --generate-hashes --strip-extras --no-allow-unsafe --no-annotate --no-emit-index-url --no-emit-trusted-host"
        subprocess.run(
            [sys.executable, "-m", "piptools", "compile", *options.split(), "--no-emit-find-links", *sys.argv[1:], "-o", target, source],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"CUSTOM_COMPILE_COMMAND": "make lock"},
        )
        text = target.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^psycopg2==.*\n(?:    --hash=.*\n)+", "", text)
    text = re.sub(r"(?ms)^# (?:WARNING|The following packages).*", "", text)  # pip and setuptools: those of the environment
    LOCK.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
