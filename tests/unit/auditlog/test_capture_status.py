"""What is wrong with capture is said in German, too: every finding that the code can make has its sentence."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from obhut.auditlog.capture import plan, state, status
from obhut.foundation.language import Language, speaking, text
from obhut.foundation.settings import CaptureSettings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
STATE = state.State("shop", "obhut_audit_shop", "7575", 1, 16_384, 500, "", {}, {}, NOW - timedelta(days=1), NOW, 1, 0, 0)
SLOT = plan.Slot("pgoutput", active=True, confirmed=500, wal_status="reserved", retained=10, behind=0, left=None)


@pytest.mark.parametrize(
    ("slot", "code"),
    [
        (None, "slot-lost"),
        (plan.Slot("pgoutput", active=True, confirmed=500, wal_status="lost", retained=None, behind=0, left=None), "slot-lost"),
        (plan.Slot("pgoutput", active=False, confirmed=500, wal_status="reserved", retained=10, behind=0, left=None), "slot-inactive"),
        (plan.Slot("pgoutput", active=True, confirmed=501, wal_status="reserved", retained=10, behind=0, left=None), "slot-moved"),
        (plan.Slot("pgoutput", active=True, confirmed=500, wal_status="extended", retained=1 << 40, behind=0, left=None), "wal-retained"),
        (plan.Slot("pgoutput", active=True, confirmed=500, wal_status="extended", retained=100, behind=0, left=20), "slot-limit-near"),
        (replace(SLOT, elsewhere="shop_before"), "slot-elsewhere"),
        (SLOT, None),
    ],
)
def test_findings_about_the_slot(slot: plan.Slot | None, code: str | None) -> None:
    """Each way in which the slot endangers the promise is one critical finding, and a healthy one is none."""
    found = list(status._slot(slot, STATE, CaptureSettings(), NOW))
    assert [finding.code for finding in found] == ([code] if code else [])
    assert all(finding.critical for finding in found)


def test_a_late_stream_is_a_finding() -> None:
    """What was last heard too long ago counts, whatever the slot says."""
    (found,) = status._slot(SLOT, STATE, CaptureSettings(), NOW + timedelta(seconds=301))
    assert found.code == "stream-late"


def test_every_finding_is_said_in_german() -> None:
    """Facts and hints in the code of findings and obstacles, their values filled in, have a German form."""
    sentences = [sentence for module in (status, plan) for sentence in _sentences(Path(str(module.__file__)))]
    assert len(sentences) > 30
    with speaking(Language.GERMAN):
        missing = [sentence for sentence in sentences if text(sentence) == sentence]
    assert missing == []


def _sentences(path: Path) -> list[str]:
    """Return every string of several words that is no docstring, with made-up values in its places."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node}
    found = []
    for node in ast.walk(tree):
        if id(node) in docs or id(node) in parts:
            continue
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else _value(part) for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return [sentence for sentence in found if " " in sentence]


def _value(part: ast.expr) -> str:
    """Return a value for a place: one of the words that stand in it, else a number."""
    words = [
        node.value for node in ast.walk(part) if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isalpha()
    ]
    return words[0] if words else "17"


def test_every_finding_is_documented() -> None:
    """Whoever gets a code from monitoring finds it on the page."""
    tree = ast.parse(Path(str(status.__file__)).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"]
    codes = {str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)}
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "audit-capture.md").read_text(encoding="utf-8")
    assert len(codes) > 10
    assert [code for code in codes if f"`{code}`" not in page] == []
