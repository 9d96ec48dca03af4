"""From deidentified to anonymised: figures measured in the copy, a fresh leak check, and a named person's word, until a date.

The verdict itself is :mod:`obhut.masking.verdict`'s. What nobody measured is not met. Where something of the originals is left (classes,
noise, kept values), the attacks are carried out on a sample of the source, masked by the same plan (:mod:`obhut.clones.sampling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

from obhut.clones import check, mark, sampling, verify
from obhut.clones.check import Checked
from obhut.clones.errors import CloneLeakError, CloneNotAnonymousError
from obhut.clones.findings import Result, Statement, leaks
from obhut.datamap.graph import Graph
from obhut.foundation.clock import Clock
from obhut.foundation.settings import Settings
from obhut.keystore import open_keystore
from obhut.masking.model import MaskPlan
from obhut.masking.verdict import Attack, Evidence, Label, SignOff, Verdict, judge, quasi_identifiers, sensitive_columns
from obhut.postgres.catalogue import Catalogue
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Identifier, column_list

_READING = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}


@dataclass(frozen=True, slots=True)
class Judged:
    """A copy with its verdict."""

    run: str
    label: Label
    k: int | None
    l: int | None  # noqa: E741 - its name in the literature
    verdict: Verdict


def sign(settings: Settings, run_id: str, person: str, review_by: date, clock: Clock) -> Judged:
    """Judge a copy anew and, when every criterion is met, write the label into its mark.

    Args:
        settings: the installation.
        run_id: the run that made the copy.
        person: opaque reference of who answers for it.
        review_by: until when the word holds.
        clock: the day of the word.

    Raises:
        CloneLeakError: the check of today fails.
        CloneNotAnonymousError: a criterion is not met; the mark stays as it is.
    """
    found = verify.verify(settings, run_id=run_id)
    if not found.holds:
        raise CloneLeakError("the copy does not hold any more", f'"obhut clone verify {run_id}" names the places.', found.statements)
    today = clock.now().date()
    with Session.connect(found.url, application_name="obhut clone sign") as session:
        graph, catalogue, masks = check.afresh(Checked(settings, found.mark.database), session)
        k, l = figures(session, graph, catalogue, masks)  # noqa: E741 - as above
        evidence = Evidence(
            key_destroyed=True, k=k, l=l, attacks=_attacks(settings, found.mark.database, masks), leaks=_leaks(found.statements), residue=0,
            sign_off=SignOff(person, today, review_by),
        )  # fmt: skip
        verdict = judge(masks, evidence, today)
        if verdict.label is not Label.ANONYMISED:
            missing = [criterion for criterion in verdict.criteria if not criterion.met]
            raise CloneNotAnonymousError(
                f"the copy cannot be called anonymised: {missing[0].fact}"
                + (f" (and {len(missing) - 1} more criteria)" if len(missing) > 1 else ""),
                missing[0].todo,
                verdict,
            )
        with session.transaction():
            signed = replace(found.mark, label=verdict.label.value, signed_by=person, review_by=review_by.isoformat())
            mark.write(session, signed, open_keystore(settings))
    return Judged(run_id, verdict.label, k, l, verdict)


def figures(session: Session, graph: Graph, catalogue: Catalogue, masks: MaskPlan) -> tuple[int | None, int | None]:
    """Return k and l of a copy: its smallest class of rows that look alike, and the fewest different sensitive values in a class.

    Classes are reckoned inside each controller where the row says whose it is.
    """
    quasi, sensitive = quasi_identifiers(masks), sensitive_columns(masks)
    classes = {oid: _grouped(graph, oid, names) for oid, names in quasi.items()}
    smallest = [
        session.value(
            SQL("SELECT min(n) FROM (SELECT count(*) AS n FROM {} GROUP BY {}) classes").format(
                catalogue.tables[oid].relation, column_list(names)
            )
        )
        for oid, names in classes.items()
    ]
    fewest = [
        session.value(
            SQL("SELECT min(n) FROM (SELECT count(DISTINCT {}::text) AS n FROM {} {}) classes").format(
                Identifier(name),
                catalogue.tables[oid].relation,
                SQL("GROUP BY {}").format(column_list(classes[oid])) if oid in classes else SQL(""),
            )
        )
        for oid, names in sensitive.items()
        for name in names
    ]
    return _least(smallest), _least(fewest)


def _grouped(graph: Graph, oid: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns of a class, with those that name the controller."""
    paths = [subject.controller_path for subject in graph.subjects.values() if subject.table == oid and subject.controller_path]
    owner = paths[0][0].columns if paths else ()
    return tuple(dict.fromkeys((*names, *owner)))


def _least(values: Iterable[int | None]) -> int | None:
    known = [int(value) for value in values if value is not None]
    return min(known) if known else None


def _attacks(settings: Settings, database: str, masks: MaskPlan) -> Mapping[str, Attack]:
    """Carry out the attacks at the living source; where nothing of an original is left, there is nothing to attack."""
    if not sampling.attributes(masks):
        return sampling.nothing_left()
    url = settings.database(database).url
    with (
        Session.connect(url, application_name="obhut clone sign", settings=_READING) as source,
        source.transaction("repeatable read", read_only=True),
    ):
        _, catalogue, plan = check.afresh(Checked(settings, database), source)
        return sampling.measure(source, plan, catalogue)


def _leaks(statements: Iterable[Statement]) -> int | None:
    """Return the number of leaks, or None where the search for identifiers had nothing to look at."""
    everything = list(statements)
    searched = [one for one in everything if one.name == "identifiers"]
    return len(leaks(everything)) if searched and searched[0].result is Result.PASSED else None
