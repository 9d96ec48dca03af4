"""The benchmark works: a small run of every comparison. Its ratios say nothing, that it measures them does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.commands import SOURCE

ROOT = SOURCE.parent
BOUNDS = {
    "restore": 1.0,
    "filter": 1.15,
    "filter-million": 1.3,
    "erase-one": 4.0,
    "erase-batch": 1.3,
    "clone": 1.35,
    "memory": 200,
    "capture": 1 / 0.85,
    "ingest": 50.0,
    "audit-append": 1.25,
    "audit-verify": 1e6 / 300_000,
    "audit-memory": 300,
    "drift": 3.0,
}


def test_small_scale() -> None:
    """Every comparison of the issue is in the result with its bound and both sides' seconds, and nothing of the run is left."""
    with tempfile.TemporaryDirectory(prefix="obhut-b", dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o711)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("OBHUT_", "PG"))},
            "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}",
            "BENCH_SCALE": "small",
            "BENCH_FOLDER": str(place / "bench"),
            "CI": "1",
        }
        ran = subprocess.run(
            [sys.executable, "-m", "bench"], cwd=place, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        found = {one["name"]: one for one in json.loads((place / "build" / "bench.json").read_text())}
        assert {name: found[name]["bound"] for name in BOUNDS} == BOUNDS
        for one in found.values():
            assert one["ratio"] > 0
            assert one["sizes"]
            assert bool(one["seconds"]) is (one["unit"] != "MB")
            assert bool(one["seconds_other"]) is (one["unit"] == "x")
        assert [point["size"] for point in found["audit-append"]["curve"]] == [5_000, 10_000, 15_000, 20_000]
        assert not (place / "bench").exists()
