"""What a masked copy may be called. Pure: plan and evidence in, a word and every criterion out.

``pseudonymised``: the run's key still exists, so whoever holds it can test guesses (GDPR Art. 4(5); EDPB Guidelines 01/2025: the additional
information was not removed). ``deidentified``: masked, and not shown to be anonymous; personal data for everybody who holds the originals.
``anonymised``: every criterion is met, and a named person says so, until a date. The three questions of WP216 (Opinion 05/2014) stand
behind the columns: can a person be singled out, can records be linked, can something be inferred?

What could not be checked is not met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from obhut.datamap import vocabulary
from obhut.datamap.transformers import Effect, Family, Per
from obhut.masking.model import ColumnPlan, MaskPlan, TablePlan

SENSITIVE = (
    "user.health_and_medical",
    "user.biometric",
    "user.demographic.religious_belief",
    "user.demographic.political_opinion",
    "user.demographic.race_ethnicity",
    "user.demographic.sexual_orientation",
    "user.criminal_history",
)  # special categories (Art. 9, 10): their values must differ inside a class


class Label(StrEnum):
    """What the copy may be called."""

    PSEUDONYMISED = "pseudonymised"
    DEIDENTIFIED = "deidentified"
    ANONYMISED = "anonymised"


class Risk(StrEnum):
    """Whether a way back to the person is closed in a column."""

    GONE = "gone"
    MEASURED = "measured"  # depends on the values: k, l and the attacks decide
    REMAINS = "remains"


@dataclass(frozen=True, slots=True)
class Attack:
    """A measured attack: upper bound of its success above baseline and control, between 0 and 1; or why it does not apply."""

    upper: float | None = None
    not_applicable: str | None = None


@dataclass(frozen=True, slots=True)
class SignOff:
    """A named person's word, and until when it holds."""

    person: str
    on: date
    review_by: date


@dataclass(frozen=True)
class Evidence:
    """What was looked at in the finished copy; None stands for "nobody looked".

    Attributes:
        key_destroyed: whether the run's key is gone.
        k, l: smallest class over the quasi-identifiers, fewest different sensitive values in a class, over all tables and controllers.
        attacks: by name: ``singling_out``, ``linkability``, ``inference``.
        leaks: findings of the leak check.
        residue: places on the target's server in which bytes of the originals may remain.
        sign_off: a person's word.
    """

    key_destroyed: bool | None = None
    k: int | None = None
    l: int | None = None  # noqa: E741 - its name in the literature
    attacks: Mapping[str, Attack] = field(default_factory=dict)
    leaks: int | None = None
    residue: int | None = None
    sign_off: SignOff | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which figures on a copy may be called anonymised."""

    k: int = 11
    l: int = 3  # noqa: E741 - its name in the literature
    attack: float = 0.05


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question of the gate; ``met`` None: it could not be answered, which is as good as no."""

    id: str
    source: str
    met: bool | None
    fact: str
    todo: str


@dataclass(frozen=True, slots=True)
class ColumnVerdict:
    """A column against the three questions."""

    table: str
    column: str
    transformer: str
    effect: Effect
    singling_out: Risk
    linkability: Risk
    inference: Risk
    why: str


@dataclass(frozen=True)
class Verdict:
    """The word, and what it stands on."""

    label: Label
    criteria: tuple[Criterion, ...]
    columns: tuple[ColumnVerdict, ...]

    @property
    def missing(self) -> tuple[Criterion, ...]:
        """Criteria that keep the copy from being called anonymised."""
        return tuple(criterion for criterion in self.criteria if not criterion.met)


def judge(plan: MaskPlan, evidence: Evidence, today: date, *, stable: bool = False, thresholds: Thresholds | None = None) -> Verdict:
    """Return what the copy may be called.

    Args:
        plan: by which it was made.
        evidence: what was looked at afterwards.
        today: a sign-off does not hold beyond its review.
        stable: whether the run's key is kept for later copies.
        thresholds: figures to reach.
    """
    columns = tuple(_column(table, column) for table in plan.tables.values() for column in table.columns if _speaks(column))
    criteria = (*_of_plan(plan), *_of_copy(evidence, thresholds or Thresholds(), plan), *_of_people(evidence, today, stable=stable))
    if stable or evidence.key_destroyed is not True:
        label = Label.PSEUDONYMISED
    else:
        label = Label.ANONYMISED if all(criterion.met for criterion in criteria) else Label.DEIDENTIFIED
    return Verdict(label, criteria, columns)


def identifying(plan: MaskPlan, table: TablePlan, column: ColumnPlan) -> bool:
    """Whether a column names a person outside the database: by its category, or because the map lists it among the identifiers."""
    return (table.oid, column.name) in plan.identifiers or bool(column.category and vocabulary.identifies(column.category))


def quasi_identifiers(plan: MaskPlan) -> dict[int, tuple[str, ...]]:
    """Return columns of which something of the original is left, by table: k is reckoned over them. Documents are left to the attacks."""
    left = {Effect.GENERALISES, Effect.PERTURBS, Effect.PSEUDONYMISES, Effect.KEEPS}
    found = {
        oid: tuple(one.name for one in table.columns if one.effect in left and (one.category or _dated(one)) and not _sensitive(one))
        for oid, table in plan.tables.items()
        if any(one.category for one in table.columns)
    }
    return {oid: names for oid, names in found.items() if names}


def sensitive_columns(plan: MaskPlan) -> dict[int, tuple[str, ...]]:
    """Return columns of special categories whose values are left, by table: l is reckoned over them."""
    found = {
        oid: tuple(one.name for one in table.columns if _sensitive(one) and one.effect not in {Effect.DESTROYS, Effect.INVENTS})
        for oid, table in plan.tables.items()
    }
    return {oid: names for oid, names in found.items() if names}


def _sensitive(column: ColumnPlan) -> bool:
    return bool(column.category and column.category.startswith(SENSITIVE))


def _dated(column: ColumnPlan) -> bool:
    """Whether a kept column that is not called personal is a moment: exact times link rows of two databases."""
    return column.kind.family is Family.DATE


def _speaks(column: ColumnPlan) -> bool:
    return column.category is not None or column.transformer != "keep" or _dated(column) or column.reason.startswith("the key stays")


def _column(table: TablePlan, column: ColumnPlan) -> ColumnVerdict:
    single, link, infer, why = _risks(column)
    return ColumnVerdict(table.name, column.name, column.transformer, column.effect, single, link, infer, why)


def _risks(column: ColumnPlan) -> tuple[Risk, Risk, Risk, str]:
    if column.transformer == "rekey":
        return Risk.GONE, Risk.GONE, Risk.GONE, "issued anew: rows stay connected inside the copy and name no row outside of it"
    inside = set(column.inside.values())
    if inside & {Effect.KEEPS, Effect.PSEUDONYMISES, Effect.PERTURBS}:
        single = Risk.REMAINS if Effect.PSEUDONYMISES in inside else Risk.MEASURED
        return single, single, Risk.MEASURED, "invented but for some paths, of whose values something is left"
    if column.effect is Effect.INVENTS:
        return _INVENTED[column.per or Per.ROW]
    if column.effect is Effect.KEEPS and column.category is None:
        return (*_MEASURED, "kept and called not personal: with other columns it may still tell who somebody is")
    return _LEFT[column.effect]


_MEASURED = (Risk.MEASURED, Risk.MEASURED, Risk.MEASURED)
_INVENTED = {
    Per.ROW: (Risk.GONE, Risk.GONE, Risk.GONE, "invented for each row"),
    Per.PERSON: (Risk.GONE, Risk.MEASURED, Risk.GONE, "invented for each person: a person's rows can be told from other people's"),
    Per.VALUE: (Risk.GONE, Risk.MEASURED, Risk.MEASURED, "invented for each value: how often a value occurs is still seen"),
}
_LEFT = {
    Effect.DESTROYS: (Risk.GONE, Risk.GONE, Risk.GONE, "nothing of the value is left"),
    Effect.GENERALISES: (*_MEASURED, "a class of values: k and l decide"),
    Effect.PERTURBS: (*_MEASURED, "near the value, or another person's: attacks decide"),
    Effect.PSEUDONYMISES: (Risk.REMAINS, Risk.REMAINS, Risk.MEASURED, "a mark that stands for the value"),
    Effect.KEEPS: (Risk.REMAINS, Risk.REMAINS, Risk.REMAINS, "kept"),
}


def _of_plan(plan: MaskPlan) -> Iterator[Criterion]:
    yield Criterion(
        "classified",
        "GDPR Art. 25(2)",
        not plan.refusals,
        f"{len(plan.refusals)} refusals of the plan" if plan.refusals else "every column is classified and every rule fits",
        'Run "obhut datamap check".',
    )
    marked = [name for table in plan.tables.values() for column in table.columns for name in _marked(plan, table, column)]
    yield Criterion(
        "identifiers",
        "WP216 (pseudonymisation), EDPB 01/2025",
        not marked,
        f"kept or only marked: {', '.join(marked[:5])}" if marked else "no direct identifier is kept, hashed, scrambled or partly shown",
        "Use a transformer that invents or destroys.",
    )
    kept = [
        f"{table.name}.{column.name}"
        for table in plan.tables.values()
        for column in table.columns
        if column.reason.startswith("the key stays")
    ]
    yield Criterion(
        "keys",
        "WP216 (linkability)",
        not kept,
        f"keys that link the copy to production: {', '.join(kept[:5])}" if kept else "keys of people's rows are issued anew",
        "Let them be issued anew: rekey: true, or key the table by a number or uuid.",
    )


def _marked(plan: MaskPlan, table: TablePlan, column: ColumnPlan) -> Iterator[str]:
    """Yield a column, or paths of a document, where an identifier is kept or only replaced by a mark that stands for it."""
    named = identifying(plan, table, column)
    if column.transformer != "rekey" and named and column.effect in {Effect.PSEUDONYMISES, Effect.KEEPS}:
        yield f"{table.name}.{column.name}"
    for path, effect in column.inside.items():
        # Nobody said what stands at a path: a mark is made where somebody wants to recognise a person.
        if effect is Effect.PSEUDONYMISES or (named and effect is Effect.KEEPS):
            yield f"{table.name}.{column.name} {path}"


def _of_copy(evidence: Evidence, thresholds: Thresholds, plan: MaskPlan) -> Iterator[Criterion]:
    if quasi_identifiers(plan):
        yield _figure("k", "WP216 (singling out)", "k", evidence.k, thresholds.k, "Generalise more, or destroy a column.")
    if sensitive_columns(plan):
        yield _figure("l", "WP216 (inference)", "l", evidence.l, thresholds.l, "Generalise more, or destroy a sensitive column.")
    for name in ("singling_out", "linkability", "inference"):
        yield _attack(name, evidence.attacks.get(name), thresholds.attack)
    yield _none("leaks", "GDPR Recital 26", evidence.leaks, "values of the source", "Repair the map and make the copy again.")
    yield _none(
        "residue", "GDPR Recital 26", evidence.residue, "places that may hold bytes of the originals", "Rewrite what is named there."
    )


def _of_people(evidence: Evidence, today: date, *, stable: bool) -> Iterator[Criterion]:
    destroyed = False if stable else evidence.key_destroyed
    yield Criterion(
        "key-destroyed",
        "GDPR Art. 4(5), EDPB 01/2025",
        destroyed,
        "the key of the run is gone" if destroyed else "the key of the run is kept" if stable else "nobody recorded the end of the key",
        "End the run; a key that is kept for later copies keeps all of them pseudonymised.",
    )
    signed = evidence.sign_off
    yield Criterion(
        "sign-off",
        "AEPD and EDPS 2021: anonymisation cannot be fully automated",
        None if signed is None else bool(signed.person.strip()) and signed.on <= today <= signed.review_by,
        "a named person answers for it" if signed and signed.on <= today <= signed.review_by else "no valid word of a named person",
        "Let the data protection officer look at the figures and sign, with a date for the next review.",
    )


def _figure(name: str, source: str, what: str, found: int | None, wanted: int, todo: str) -> Criterion:
    fact = f"{what} was not measured" if found is None else f"{what} is {found}, at least {wanted} is wanted"
    return Criterion(name, source, None if found is None else found >= wanted, fact, todo)


def _attack(name: str, found: Attack | None, wanted: float) -> Criterion:
    words = name.replace("_", " ")
    source = f"WP216 ({words})"
    todo = "Generalise or destroy what the attack used, and measure again."
    if found is None or (found.upper is None and not found.not_applicable):
        return Criterion(name, source, None, f"{words} was not measured", todo)
    if found.upper is None:
        return Criterion(name, source, True, f"{words} does not apply: {found.not_applicable}", todo)
    return Criterion(
        name, source, found.upper <= wanted, f"{words} succeeds at most {found.upper:.2f} above chance, {wanted:.2f} is allowed", todo
    )


def _none(name: str, source: str, found: int | None, what: str, todo: str) -> Criterion:
    fact = f"nobody looked for {what}" if found is None else f"{found} {what}" if found else f"no {what}"
    return Criterion(name, source, None if found is None else found == 0, fact, todo)
