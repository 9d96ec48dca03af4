"""One PostgreSQL 18 for all property tests, and the profiles that say how many examples they try."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from obhut.foundation.settings import load
from obhut.postgres.clusters import Cluster, binaries, server_user
from obhut.postgres.connections import Session

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
settings.register_profile("ci", max_examples=150, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=int(os.environ.get("OBHUT_EXAMPLES", "5000")), print_blob=True, **_COMMON)
settings.register_profile("look", max_examples=int(os.environ.get("OBHUT_EXAMPLES", "100")), phases=[Phase.generate], **_COMMON)
settings.load_profile(os.environ.get("OBHUT_PROFILE", "ci"))


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    """Give a session on a database of a server of its own; it runs without fsync."""
    directory = Path(tempfile.mkdtemp(prefix="obhut-p", dir="/tmp"))
    directory.chmod(0o711)
    file = directory / "obhut.toml"
    file.write_text('[state]\ndirectory = "."\n', encoding="utf-8")
    options = load(file)
    cluster = Cluster(directory / "c", binaries(options), server_user(options))
    try:
        cluster.init(durable=False)
        cluster.configure({"fsync": False, "synchronous_commit": False, "full_page_writes": False, "autovacuum_naptime": "5s"})
        cluster.start()
        with Session.connect(cluster.url()) as opened:
            yield opened
    finally:
        cluster.remove()
        shutil.rmtree(directory, ignore_errors=True)
