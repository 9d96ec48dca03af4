"""How well ``obhut datamap suggest`` tells personal columns from others, on schemas that were not made for it.

Run ``python -m bench.discovery``. Names, types and keys of the corpus decide alone (what its columns hold is not public); then Pagila,
with its values and without its column names. The peers run on the same corpus in the same minutes. Method: docs/explanation/discovery.md
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid

import obhut
from bench import corpus, peers
from bench.corpus import Corpus, Label
from bench.measure import host
from obhut.datamap.discovery.findings import discover
from obhut.datamap.discovery.looking import Sampled
from obhut.postgres.catalogue import Catalogue

RESULT: Final = Path("build/bench.json")
BOUND, CATEGORY_BOUND = 0.9, 0.8
SAMPLES: Final = Path(os.environ.get("OBHUT_SAMPLES") or "../shared/data")

# (table, column) -> category, or "" where a tool names none
Found = dict[tuple[str, str], str]


@dataclass(frozen=True)
class Score:
    """Counts over decided labels, and what is made of them; ``silent``: personal columns that a tool called harmless without asking."""

    tool: str
    on: str
    right: int = 0
    wrong: int = 0
    missed: int = 0
    silent: int = 0
    category: int = 0
    exact: int = 0
    open_found: int = 0
    open: int = 0

    def __add__(self, other: Score) -> Score:
        """Return the counts of both."""
        counts = {name: value + getattr(other, name) for name, value in asdict(self).items() if isinstance(value, int)}
        return replace(self, **counts)

    @property
    def precision(self) -> float:
        """Share of the named columns that are personal."""
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Share of the personal columns that are named."""
        return self.right / max(1, self.right + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.precision * self.recall / max(1e-9, self.precision + self.recall)

    def document(self) -> dict[str, object]:
        """Return the object for ``build/bench.json``."""
        figures = {name: round(getattr(self, name), 4) for name in ("precision", "recall", "f1")}
        share = round(self.category / max(1, self.right), 4)
        exact = round(self.exact / max(1, self.right), 4)
        return {
            "name": f"discovery-{self.tool}-{self.on}",
            **figures,
            "category_right": share,
            "category_exact": exact,
            "counts": asdict(self),
        }


def score(tool: str, on: str, labels: dict[tuple[str, str], Label], found: Found, asked: Iterable[tuple[str, str]] = ()) -> Score:
    """Compare what a tool found with the labels; open labels are counted beside."""
    right = wrong = missed = silent = category = exact = open_found = 0
    questions = set(asked)
    for place, label in labels.items():
        named = place in found
        if label.open:
            open_found += named
        elif named and label.category:
            right += 1
            exact += found[place] == label.category
            category += _related(found[place], label.category)
        elif named:
            wrong += 1
        elif label.category:
            missed += 1
            silent += place not in questions
    return Score(tool, on, right, wrong, missed, silent, category, exact, open_found, sum(1 for label in labels.values() if label.open))


def _related(found: str, label: str) -> bool:
    """Whether one category is the other or lies above it: user.contact.address and user.contact.address.city; ``user`` names none."""
    return found == label or found.startswith(f"{label}.") or bool(found not in {"", "user"} and label.startswith(f"{found}."))


def ours(catalogue: Catalogue, sampled: Sampled | None = None) -> tuple[Found, set[tuple[str, str]]]:
    """Return what Obhut finds and what it asks about."""
    verdicts = discover(catalogue, sampled).verdicts
    found, asked = {}, set()
    for table in catalogue.roots:
        for name, verdict in verdicts[table.oid].items():
            if verdict.category is not None:
                found[table.name, name] = verdict.category
            elif verdict.open:
                asked.add((table.name, name))
    return found, asked


def keys(one: Corpus) -> set[tuple[str, str]]:
    """Return the key columns, which no tool is blamed or praised for."""
    tables = one.catalogue.tables
    found = {(table.name, name) for table in tables.values() for name in table.primary_key}
    return found | {(tables[key.table].name, name) for key in one.catalogue.foreign_keys for name in key.columns}


def blind(catalogue: Catalogue, sampled: Sampled) -> tuple[Catalogue, Sampled]:
    """Return the same database with columns called c1, c2, …: what values alone tell."""
    tables, looks = {}, {}
    for oid, table in catalogue.tables.items():
        new = {column.name: f"c{column.number}" for column in table.columns}
        renamed = tuple(replace(column, name=new[column.name], comment=None) for column in table.columns)
        unique = tuple(replace(key, columns=tuple(name and new.get(name, name) for name in key.columns)) for key in table.keys)
        tables[oid] = replace(table, columns=renamed, keys=unique)
        looks[oid] = {new[name]: look for name, look in sampled.looks.get(oid, {}).items()}
    by_number = {oid: {column.name: f"c{column.number}" for column in table.columns} for oid, table in catalogue.tables.items()}
    foreign = tuple(replace(key, columns=tuple(by_number[key.table][name] for name in key.columns)) for key in catalogue.foreign_keys)
    return replace(catalogue, tables=tables, foreign_keys=foreign), Sampled(looks, sampled.unseen)


def main() -> int:
    """Measure, print, write; return 1 when a bound is missed."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    schemas = [corpus.read(name) for name in corpus.names()]
    scores: list[Score] = []
    seconds = time.monotonic()
    for one in schemas:
        found, asked = ours(one.catalogue)
        scores.append(score("obhut", one.name, one.labels, found, asked))
    seconds = time.monotonic() - seconds
    with tempfile.TemporaryDirectory(prefix="obhut-bench-discovery-", dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o711)
        scores += _values(place, console)
        scores += _peers(place, schemas, console)
    scores += _sums(scores)
    _report(scores, seconds, console)
    held = next(one for one in scores if (one.tool, one.on) == ("obhut", "held-out"))
    return 1 if held.f1 < BOUND or held.category / max(1, held.right) < CATEGORY_BOUND else 0


def _sums(scores: list[Score]) -> list[Score]:
    found = []
    for tool in dict.fromkeys(one.tool for one in scores):
        for on, names in corpus.sets().items():
            if chosen := [one for one in scores if one.tool == tool and one.on in names]:
                found.append(sum(chosen[1:], start=replace(chosen[0], on=on)))
    return found


def _values(place: Path, console: Console) -> list[Score]:
    """Look at Pagila's values, with names and without; a machine without the samples says so."""
    found = peers.pagila(place, SAMPLES)
    if found is None:
        console.print(f"Pagila was not looked at: no sample data in {SAMPLES} (OBHUT_SAMPLES names another folder)", style="yellow")
        return []
    catalogue, sampled = found
    one = corpus.read("pagila")
    scores = [score("obhut", "pagila-values", one.labels, *ours(catalogue, sampled))]
    hidden, looks = blind(catalogue, sampled)
    numbers = {(table.name, column.name): (table.name, f"c{column.number}") for table in catalogue.roots for column in table.columns}
    labels = {numbers[place]: label for place, label in one.labels.items() if place in numbers}
    return [*scores, score("obhut", "pagila-blind", labels, *ours(hidden, looks))]


def _peers(place: Path, schemas: list[Corpus], console: Console) -> list[Score]:
    programs, problem = peers.install(place)
    if programs is None:
        console.print(f"The peers could not be installed, so they were not measured: {problem}", style="yellow")
        return []
    tools: dict[str, Callable[[], dict[str, Found]]] = {
        "dbslice": lambda: peers.dbslice(programs, schemas),
        "pg_anon": lambda: peers.pg_anon(programs, place, schemas),
    }
    scores = []
    for tool, run in tools.items():
        try:
            answers = run()
        except peers.PeerError as error:
            console.print(f"{tool} did not run, so it was not measured: {error}", style="yellow")
            continue
        for one in schemas:
            found = {at: category for at, category in answers[one.name].items() if at not in keys(one)}
            scores.append(score(tool, one.name, one.labels, found))
    return scores


def _report(scores: list[Score], seconds: float, console: Console) -> None:
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("tool", "on", "precision", "recall", "F1", "category", "exact", "personal", "silent", "open found"):
        grid.add_column(column, justify="left" if column in {"tool", "on"} else "right")
    for one in scores:
        shares = (one.category / max(1, one.right), one.exact / max(1, one.right)) if one.category else (None, None)
        written = [f"{value:.3f}" if value is not None else "" for value in (one.precision, one.recall, one.f1, *shares)]
        grid.add_row(one.tool, one.on, *written, str(one.right + one.missed), str(one.silent), f"{one.open_found}/{one.open}")
    console.print(grid)
    RESULT.parent.mkdir(exist_ok=True)
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else []
    about = {"host": host(), "version": obhut.__version__, "seconds": {"obhut": round(seconds, 3)}}
    fresh = [{**one.document(), **about} for one in scores]
    others = [entry for entry in kept if not entry["name"].startswith("discovery-")]
    RESULT.write_text(json.dumps([*others, *fresh], indent=1) + "\n", encoding="utf-8")
    console.print(f"Names of {len(corpus.names())} schemas judged in {seconds:.2f} s. Written: {RESULT}", style="dim")


if __name__ == "__main__":
    sys.exit(main())
