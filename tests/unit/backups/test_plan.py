"""Retention and schedule decided without a disk: golden files, and two years of backups lived through hour by hour."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from obhut.backups.keys import SPAN, span_of
from obhut.backups.plan import Copy, Item, ItemKind, Rules, decide, due, validated
from obhut.foundation.errors import SettingsError

GOLDEN = Path(__file__).parent / "golden"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
RULES = Rules(33 * DAY, 35 * DAY, DAY, 6 * HOUR)
NOW = datetime(2026, 11, 23, 7, tzinfo=UTC)


def backup(
    ref: str,
    born: datetime,
    *,
    parent: str | None = None,
    took: timedelta = HOUR / 2,
    archive: int = 1,
    start: int = 0,
    usable: bool = True,
) -> Item:
    return Item(ItemKind.BACKUP, ref, born, archive, end=born + took, parent=parent, usable=usable, start=start)


def story(decided) -> str:
    lines = [f"{one.action:6} {one.item.kind:8} {one.item.ref:24} {one.reason}" for one in decided.decisions]
    return "\n".join([*lines, *(f"warning {code}" for code in decided.warnings), ""])


def daily(days: range, **changes) -> list[Item]:
    """Return a full backup a day with two incrementals, and four WAL segments a day."""
    items = []
    for age in days:
        born = NOW - age * DAY
        full = f"full-{age:02}"
        items.append(backup(full, born, start=1000 - age * 10, **changes))
        items.append(backup(f"incr-{age:02}a", born + 6 * HOUR, parent=full, start=1002 - age * 10, **changes))
        items.append(backup(f"incr-{age:02}b", born + 12 * HOUR, parent=f"incr-{age:02}a", start=1004 - age * 10, **changes))
        for part in range(4):
            position = 1000 - age * 10 + part * 2
            items.append(Item(ItemKind.WAL, f"wal-{age:02}-{part}", born + part * 6 * HOUR, 1, start=position, stop=position + 2))
    return items


CASES = {
    "healthy": lambda: daily(range(32, 37)) + daily(range(1, 2)),
    "no-full-for-forty-days": lambda: [item for item in daily(range(34, 41)) if item.kind is ItemKind.BACKUP],
    "leftovers": lambda: [
        backup("kept", NOW - 40 * DAY),
        backup("orphan", NOW - 3 * DAY, parent="never"),
        backup("present", NOW - DAY),
        Item(ItemKind.COPY, "failed", NOW - HOUR, 1, copy=Copy.FAILED),
        Item(ItemKind.COPY, "killed", NOW - HOUR, 1, copy=Copy.KILLED),
        Item(ItemKind.COPY, "killed-long-ago", NOW - 50 * DAY, 1, copy=Copy.KILLED),
        Item(ItemKind.COPY, "running", NOW - HOUR, 1, copy=Copy.RUNNING),
        Item(ItemKind.COPY, "to-be-sealed", NOW - HOUR, 1, copy=Copy.COPIED),
        Item(ItemKind.COPY, "never-sealed", NOW - 36 * DAY, 1, copy=Copy.COPIED),
        Item(ItemKind.COPY, "present", NOW - DAY, 1, copy=Copy.EMPTIED),
        Item(ItemKind.COPY, "kept", NOW - 40 * DAY, 1, copy=Copy.EMPTIED),
        Item(ItemKind.LEFTOVER, "stage/x", NOW, 1),
        Item(ItemKind.FILE, "errors/old.duplicate", NOW - 35 * DAY, 1),
        Item(ItemKind.FILE, "errors/new.duplicate", NOW - DAY, 1),
        Item(ItemKind.FILE, "what-is-this", NOW - 400 * DAY, 0),
        Item(ItemKind.KEY, "key-old", span_of(NOW - 35 * DAY - 6 * HOUR)),
        Item(ItemKind.KEY, "key-young", span_of(NOW - 34 * DAY)),
    ],
    "two-servers": lambda: [
        backup("old-server", NOW - 20 * DAY, archive=1, start=500),
        backup("new-server", NOW - 10 * DAY, archive=2, start=7),
        Item(ItemKind.WAL, "old-unneeded", NOW - 21 * DAY, 1, start=400, stop=500),
        Item(ItemKind.WAL, "old-needed", NOW - 19 * DAY, 1, start=500, stop=600),
        Item(ItemKind.WAL, "new-needed", NOW - 10 * DAY, 2, start=6, stop=8),
        Item(ItemKind.WAL, "third-server", NOW - 10 * DAY, 3, start=6, stop=8),
    ],
    "clock-went-back": lambda: [
        backup("future", NOW + 3 * DAY),
        backup("present", NOW - DAY),
        Item(ItemKind.WAL, "future-wal", NOW + DAY, 1, start=9, stop=10),
    ],
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_decisions_and_reasons_are_those_of_the_golden_file(name: str) -> None:
    """Each decision with its reason, removals in their order; a change of a word is a change of a golden file."""
    decided = story(decide(CASES[name](), RULES, NOW))
    golden = GOLDEN / f"{name}.txt"
    assert decided == golden.read_text(encoding="utf-8"), f"{golden} differs:\n{decided}"


def test_removals_leave_whole_chains_at_every_instant() -> None:
    """However many removals a crash lets through, every backup that is left has its parents and its WAL."""
    items = daily(range(30, 40)) + daily(range(1))
    removals = decide(items, RULES, NOW).removals
    assert removals
    for count in range(len(removals) + 1):
        gone = {decision.item.ref for decision in removals[:count]}
        left = [item for item in items if item.ref not in gone]
        refs = {item.ref for item in left}
        backups = [item for item in left if item.kind is ItemKind.BACKUP]
        assert all(item.parent is None or item.parent in refs for item in backups)
        first = min(item.start for item in backups)
        assert all(item.ref in refs for item in items if item.kind is ItemKind.WAL and item.stop > first)


class Life:
    """A repository that is backed up, expired and watched hour by hour."""

    def __init__(self, begin: datetime, rules: Rules = RULES, seed: int = 1) -> None:
        self.now, self.rules, self.items, self.random = begin, rules, [], random.Random(seed)
        self.begin, self.position, self.failing, self.last_usable_loss = begin, 0, False, None
        self.codes: set[str] = set()

    def hour(self) -> None:
        self.now += HOUR
        self.position += 1
        self.items.append(Item(ItemKind.WAL, f"w{self.position}", self.now, 1, start=self.position, stop=self.position + 1))
        if not any(item.kind is ItemKind.KEY and item.born == span_of(self.now) for item in self.items):
            self.items.append(Item(ItemKind.KEY, f"k{span_of(self.now)}", span_of(self.now)))
        wanted = due(self.items, self.rules, self.now, archive=1, incrementals=True)
        if wanted.kind and not self.failing:
            parent = max((item for item in self.items if item.kind is ItemKind.BACKUP), key=lambda item: item.born, default=None)
            self.items.append(
                Item(ItemKind.BACKUP, f"b{self.position}", self.now, 1, end=self.now + HOUR / 2, usable=True, start=self.position,
                     parent=parent.ref if wanted.kind == "incremental" and parent else None)
            )  # fmt: skip
        elif wanted.kind and self.random.random() < 0.5:
            state = self.random.choice([Copy.FAILED, Copy.KILLED])
            self.items.append(Item(ItemKind.COPY, f"c{self.position}", self.now, 1, copy=state))
        decided = decide(self.items, self.rules, self.now)
        self.codes |= set(decided.warnings)
        gone = {(decision.item.kind, decision.item.ref) for decision in decided.removals}
        self.items = [item for item in self.items if (item.kind, item.ref) not in gone]

    def oldest(self) -> timedelta:
        return max((self.now - item.born for item in self.items if item.kind is not ItemKind.KEY), default=timedelta())

    def reaches(self, moment: datetime) -> bool:
        """Whether a chain ended before the moment, with its keys and its WAL up to it."""
        by_ref = {item.ref: item for item in self.items if item.kind is ItemKind.BACKUP}
        spans = {item.born for item in self.items if item.kind is ItemKind.KEY}
        positions = {item.start for item in self.items if item.kind is ItemKind.WAL}
        for item in sorted(by_ref.values(), key=lambda item: item.born, reverse=True):
            if item.end <= moment:
                chain = [item]
                while chain[-1].parent:
                    if chain[-1].parent not in by_ref:
                        return False
                    chain.append(by_ref[chain[-1].parent])
                until = int((moment - self.begin) / HOUR)
                return all(span_of(link.born) in spans for link in chain) and all(p in positions for p in range(item.start, until + 1))
        return False


@pytest.mark.slow
@pytest.mark.parametrize("begin", [datetime(2026, 2, 20, 21, 17, tzinfo=UTC), datetime(2026, 9, 10, 5, 59, tzinfo=UTC)])
def test_both_limits_hold_every_hour_for_two_months(begin) -> None:
    """After 33 days every moment of the last 33 days can be restored to, and never is a byte older than 35 days; summer time comes and goes."""
    life = Life(begin)
    berlin = ZoneInfo("Europe/Berlin")
    for hour in range(24 * 64):
        life.hour()
        assert life.oldest() < 35 * DAY
        assert all(life.now - item.born < 35 * DAY + SPAN for item in life.items if item.kind is ItemKind.KEY)
        if life.now - begin > 35 * DAY and hour % 5 == 0:
            moment = (life.now - 33 * DAY).astimezone(berlin)
            assert life.reaches(moment.astimezone(UTC)), life.now
            assert life.reaches(life.now - 20 * DAY)
    assert life.codes == set()


@pytest.mark.slow
def test_failing_fulls_for_forty_days_leave_nothing_and_alarm() -> None:
    """When no backup succeeds for forty days the last old one goes at the limit all the same, loudly, and the next success heals."""
    life = Life(datetime(2026, 1, 1, tzinfo=UTC))
    for _ in range(24 * 36):
        life.hour()
    life.failing = True
    for _ in range(24 * 40):
        life.hour()
        assert life.oldest() < 35 * DAY
    assert not [item for item in life.items if item.kind is ItemKind.BACKUP]
    assert {"window-short", "nothing-restorable"} <= life.codes
    life.failing = False
    for _ in range(24 * 34):
        life.hour()
        assert life.oldest() < 35 * DAY
    assert life.reaches(life.now - 33 * DAY)


def test_a_clock_that_jumps_back_removes_nothing() -> None:
    """Ages below nothing keep everything, with a warning."""
    items = daily(range(1, 5))
    decided = decide(items, RULES, NOW - 100 * DAY)
    assert decided.removals == []
    assert "clock-behind" in decided.warnings


@pytest.mark.parametrize(
    ("restorable", "gone_after", "full_every", "fits"),
    [
        (33, 35, 1, True),
        (33, 35, 1.5, True),
        (33, 35, 1.6, False),
        (33, 35, 7, False),
        (33, 42, 7, True),
        (34, 35, 0.5, True),
        (35, 35, 0.1, False),
    ],
)
def test_limits_that_cannot_both_hold_are_refused(restorable, gone_after, full_every, fits) -> None:
    """Window plus time between full backups plus slack must fit into the limit; the hint says how often is often enough."""
    rules = Rules(restorable * DAY, gone_after * DAY, full_every * DAY, HOUR)
    if fits:
        assert validated(rules) is rules
    else:
        with pytest.raises(SettingsError) as caught:
            validated(rules)
        assert caught.value.hint


def test_what_is_due_is_said_with_its_reason() -> None:
    """Nothing yet: full; a full a day; an incremental six hours after the last one; none for servers that cannot."""
    full = backup("f", NOW - 20 * HOUR)

    def kind(*items: Item, incrementals: bool = True, archive: int = 1) -> str | None:
        return due(items, RULES, NOW, archive=archive, incrementals=incrementals).kind

    assert kind() == "full"
    assert kind(backup("f", NOW - DAY)) == "full"
    assert kind(full) == "incremental"
    assert kind(full, incrementals=False) is None
    assert kind(full, backup("i", NOW - HOUR, parent="f")) is None
    assert kind(full, archive=2) == "full"
    assert kind(full, backup("i", NOW - HOUR, parent="missing")) == "incremental"
    assert kind(backup("f", NOW + 30 * DAY)) == "full"
