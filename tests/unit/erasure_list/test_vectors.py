"""The specification's vectors: what the code makes, what a stranger accepts, what a stranger refuses."""

from __future__ import annotations

import hmac
import json
import re
import subprocess
import sys
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import pytest

from obhut.erasure import vectors
from obhut.erasure.entries import canonical
from obhut.erasure.fingerprints import judge

ROOT = Path(__file__).parents[3]
STRANGER = ROOT / "tests" / "stranger" / "erasure_list.py"
PUBLISHED = ROOT / "docs" / "spec" / "vectors" / vectors.FILE_NAME


@pytest.fixture(scope="module")
def published():
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def stranger(directory: Path, document: dict, mirror: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run the stranger's verifier, isolated so that it cannot import Obhut from the checkout."""
    for name, content in (mirror or document["mirror"]).items():
        (directory / name).write_bytes(content.encode())
    (directory / "anchor").write_text(document["anchor"], encoding="utf-8")
    keys = [f"{label}={key}" for label, key in document["data_keys"].items()]
    command = [sys.executable, "-I", str(STRANGER), str(directory), str(directory / "anchor"), document["public_key"], *keys]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_published_vectors_are_what_the_code_makes():
    """docs/spec/vectors holds exactly what the code computes, byte for byte."""
    assert PUBLISHED.read_text(encoding="utf-8") == vectors.render()


def test_the_first_screen_shows_the_vectors():
    """The worked example of the specification is the vectors' first segment."""
    page = (ROOT / "docs" / "spec" / "erasure-list.md").read_text(encoding="utf-8")
    for line in vectors.example().split("\n"):
        assert f"    {line}\n" in page or not line


def test_a_stranger_accepts_the_vectors(tmp_path, published):
    """A verifier written from the page alone computes the same head and the same states."""
    done = stranger(tmp_path, published)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == {"size": 7, "head": published["entries"][-1]["head"], "states": published["states"]}


MUTATIONS = {
    "edited entry": lambda text: text.replace("ctl_1", "ctl_9"),
    "dropped entry": lambda text: re.sub(r'\{[^\n]*"seq":2,[^\n]*\n', "", text),
    "swapped segments": lambda text: "".join(reversed(re.findall(r"segment .*?\nend [^\n]*\n", text, re.DOTALL))),
    "dropped segment": lambda text: text[text.index("segment 4") :],
    "truncated": lambda text: text[: text.index("segment 4")],
    "torn": lambda text: text[:-5],
    "other signature": lambda text: re.sub(r"(\u2014 \S+ .{20}).", lambda found: found[1] + "Z", text),
    "other private part": lambda text: re.sub(r"(sealed \S+ .{40}).", lambda found: found[1] + "z", text),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_stranger_refuses_a_tampered_mirror(tmp_path, published, mutation):
    """The page is enough to find each kind of tampering."""
    changed = {name: MUTATIONS[mutation](text) for name, text in published["mirror"].items()}
    assert changed != published["mirror"]
    done = stranger(tmp_path, published, changed)
    assert done.returncode == 1
    assert "does not verify" in done.stderr


def test_the_canonical_vectors_hold(published):
    """Any JSON is brought to the one canonical text."""
    for case in published["canonical"]:
        assert canonical(json.loads(case["json"])) == case["text"]


def test_the_fingerprint_vectors_follow_from_the_page(published):
    """Fingerprints computed by hand from the page, and the verdicts of section 7."""
    for case in published["fingerprints"]:
        text = json.dumps(case["row"], ensure_ascii=False, separators=(",", ":"))
        by_hand = hmac.new(bytes.fromhex(published["mac_key"]), b"obhut erasure list v1 incarnation\n" + text.encode(), sha256)
        assert by_hand.hexdigest() == case["fingerprint"]
        created = datetime.fromisoformat(case["created_at"]) if case["created_at"] else None
        verdict = judge(case["tombstone"], case["fingerprint"], erased_at=datetime.fromisoformat(case["erased_at"]), created_at=created)
        assert verdict.name.lower() == case["verdict"]
    assert {case["verdict"] for case in published["fingerprints"]} == {"person", "later", "conflict"}


def test_the_stranger_imports_nothing_of_obhut():
    """The verifier stands alone."""
    assert "obhut" not in re.findall(r"^(?:from|import) (\w+)", STRANGER.read_text(encoding="utf-8"), re.MULTILINE)
