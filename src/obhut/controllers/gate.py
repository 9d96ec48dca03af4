"""The one gate: nothing touches personal data without a permission from here.

A single instruction is taken by the run that uses it, in one conditional update, so that two runs cannot share it; the same run
may come back after a crash. Asking without a run (a dry run) takes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Q

from obhut.controllers.errors import NotInstructedError
from obhut.controllers.plan import ASK_CONTROLLER, REMEDIES, WORDS, ContractFacts, Granted, InstructionFacts, Question, Refusal, decide
from obhut.controllers.refusals import documented
from obhut.controllers.vocabulary import Action, InstructionKind, SubjectRef
from obhut.foundation.actors import Actor
from obhut.foundation.clock import Clock
from obhut.postgres.control import Deferred, control_safe, prepared

if TYPE_CHECKING:
    from obhut.controllers import models
else:
    models = Deferred("obhut.controllers.models")

# Every erasure asks, so the two questions are one statement of plain SQL; a contract has no kind.
_CANDIDATES = """
SELECT controller_id, id, kind, actions, database, subject_kind, subject_keys, valid_from, valid_until, revoked_at, used_by_run
FROM controllers_instruction
WHERE controller_id = ANY(%(controllers)s) AND database = %(database)s AND actions @> %(actions)s::varchar[]
  AND (subject_keys IS NULL OR subject_keys && ARRAY(SELECT json_array_elements_text(%(keys)s::json)))
UNION ALL
SELECT controller_id, id, NULL, NULL, NULL, NULL, NULL, valid_from, valid_until, NULL, NULL
FROM controllers_contract WHERE controller_id = ANY(%(controllers)s)
ORDER BY 2 DESC
"""
_NAMED = 10  # controllers that one refusal spells out


@dataclass(frozen=True, slots=True)
class Permission:
    """Proof that the gate was asked: goes into the run and the tombstone."""

    action: Action
    database: str
    controller_id: str
    contract_id: str
    instruction_id: str
    actor: Actor
    granted_at: datetime


def permit(
    action: Action,
    *,
    controller_id: str,
    database: str,
    subject: SubjectRef | None,
    actor: Actor,
    clock: Clock,
    run_id: str | None = None,
) -> Permission:
    """Return the permission to act for one controller, on one person or (``subject=None``) on all its people.

    Args:
        action: what is to be done.
        controller_id: whose people are concerned.
        database: name of the protected database.
        subject: the person; None for everybody of the controller.
        actor: who asks.
        clock: tells what is valid now.
        run_id: the run that will act; takes a single instruction. None only asks.

    Raises:
        NotInstructedError: nothing permits it; the reason is the nearest miss.
    """
    return permit_subjects(
        action, controller_id=controller_id, database=database, subjects=[subject], actor=actor, clock=clock, run_id=run_id
    )[0]


def permit_subjects(
    action: Action,
    *,
    controller_id: str,
    database: str,
    subjects: Sequence[SubjectRef | None],
    actor: Actor,
    clock: Clock,
    run_id: str | None = None,
) -> list[Permission]:
    """Return one permission a person, in order; all or none. See :func:`permit`; the number of queries does not grow with the people.

    Raises:
        NotInstructedError: at least one person is not covered.
    """
    now = clock.now()
    with documented(action, database, actor, run_id, now), control_safe():
        contracts, candidates = _candidates(action, [controller_id], database, subjects)
        general = [facts for _, facts in candidates if facts.subject_keys is None]
        named: dict[str, list[InstructionFacts]] = {}
        for _, facts in candidates:
            for key in facts.subject_keys or ():
                named.setdefault(key, []).append(facts)
        granted: list[Granted] = []
        mine = contracts.get(controller_id, [])
        alike: dict[str | None, Granted] = {}  # people of a kind whom no instruction names get the same answer
        for subject in subjects:
            own = named.get(subject.canonical, []) if subject and named else []
            kind = subject.kind if subject else None
            verdict = None if own else alike.get(kind)
            if verdict is None:
                question = Question(action, database, subject, run_id, now)
                answer = decide(question, mine, [*general, *own])
                if isinstance(answer, Refusal):
                    raise _refused(question, [(controller_id, _explained(question, controller_id, mine, answer))])
                verdict = answer
                if not own:
                    alike[kind] = verdict
            granted.append(verdict)
        _take({controller_id: granted}, action, database, run_id, now)
    permissions = {  # one for all who have the same answer
        number: Permission(action, database, controller_id, yes.contract_id, yes.instruction.id, actor, now)
        for number, yes in {id(yes): yes for yes in granted}.items()
    }
    return [permissions[id(yes)] for yes in granted]


def permit_all(
    action: Action,
    *,
    database: str,
    controller_keys: Iterable[str],
    actor: Actor,
    clock: Clock,
    run_id: str | None = None,
) -> list[Permission]:
    """Return one permission a controller for an action on everybody in a database, such as restoring all of it.

    Args:
        action: what is to be done.
        database: name of the protected database.
        controller_keys: canonical keys of every controller that has data in it.
        actor: who asks.
        clock: tells what is valid now.
        run_id: the run that will act; takes single instructions. None only asks.

    Raises:
        NotInstructedError: lists every controller that has not instructed it.
    """
    now = clock.now()
    keys = sorted(set(controller_keys))
    question = Question(action, database, None, run_id, now)
    with documented(action, database, actor, run_id, now), control_safe():
        ids = dict(models.Controller.objects.filter(database=database, key__in=keys).values_list("key", "id"))
        contracts, candidates = _candidates(action, list(ids.values()), database, [None])
        instructions: dict[str, list[InstructionFacts]] = {}
        for owner_id, facts in candidates:
            instructions.setdefault(owner_id, []).append(facts)
        missing: list[tuple[str, Refusal]] = []
        granted: dict[str, Granted] = {}
        for key in keys:
            owner = ids.get(key)
            if owner is None:
                missing.append((key, Refusal.NO_CONTROLLER))
                continue
            verdict = decide(question, contracts.get(owner, []), instructions.get(owner, []))
            if isinstance(verdict, Refusal):
                missing.append((owner, _explained(question, owner, contracts.get(owner, []), verdict)))
            else:
                granted[owner] = verdict
        if missing:
            raise _refused(question, missing)
        _take({owner: [yes] for owner, yes in granted.items()}, action, database, run_id, now)
    return [Permission(action, database, owner, yes.contract_id, yes.instruction.id, actor, now) for owner, yes in granted.items()]


def _take(granted: Mapping[str, Sequence[Granted]], action: Action, database: str, run_id: str | None, now: datetime) -> None:
    """Mark single instructions as used by the run, all or none; a run that came first in the meantime makes this one refuse."""
    wanted = {owner: {yes.instruction.id for yes in verdicts if yes.instruction.unused} for owner, verdicts in granted.items()}
    if run_id is None or not any(wanted.values()):
        return
    with transaction.atomic():
        for owner, ids in wanted.items():
            free = models.Instruction.objects.filter(id__in=ids, revoked_at=None).filter(Q(used_by_run="") | Q(used_by_run=run_id))
            if free.update(used_by_run=run_id, used_at=now) != len(ids):
                raise _refused(Question(action, database, None, run_id, now), [(owner, Refusal.ALREADY_USED)])


def _candidates(
    action: Action, controller_ids: Sequence[str], database: str, subjects: Sequence[SubjectRef | None]
) -> tuple[dict[str, list[ContractFacts]], list[tuple[str, InstructionFacts]]]:
    """Return the contracts, and the instructions that can matter: a controller may have given one for each of thousands of people."""
    contracts: dict[str, list[ContractFacts]] = {}
    instructions: list[tuple[str, InstructionFacts]] = []
    keys = [subject.canonical for subject in subjects if subject]
    asked = {"controllers": list(controller_ids), "database": database, "actions": [action.value], "keys": json.dumps(keys)}
    for owner, identifier, kind, actions, named, of_kind, of_keys, since, until, revoked_at, used_by in prepared(_CANDIDATES, asked):
        if kind is None:
            contracts.setdefault(owner, []).append(ContractFacts(identifier, since, until))
            continue
        facts = InstructionFacts(
            identifier, InstructionKind(kind), frozenset(actions), named, of_kind, _keys(of_keys), since, until, revoked_at, used_by
        )
        instructions.append((owner, facts))
    return contracts, instructions


def _keys(found: Sequence[str] | None) -> frozenset[str] | None:
    return None if found is None else frozenset(found)


def _facts(condition: Q, limit: int | None = None) -> list[tuple[str, InstructionFacts]]:
    columns = [field.name for field in fields(InstructionFacts)]
    rows = models.Instruction.objects.filter(condition).order_by("-id").only("controller", *columns)[:limit]
    return [
        (
            row.controller_id,
            InstructionFacts(
                id=row.id,
                kind=InstructionKind(row.kind),
                actions=frozenset(row.actions),
                database=row.database,
                subject_kind=row.subject_kind,
                subject_keys=None if row.subject_keys is None else frozenset(row.subject_keys),
                valid_from=row.valid_from,
                valid_until=row.valid_until,
                revoked_at=row.revoked_at,
                used_by_run=row.used_by_run,
            ),
        )
        for row in rows
    ]


def _explained(question: Question, controller_id: str, contracts: Sequence[ContractFacts], verdict: Refusal) -> Refusal:
    """Return the nearest miss among all the controller's instructions; only asked once the answer is no."""
    if verdict in {Refusal.NO_CONTRACT, Refusal.CONTRACT_ENDED, Refusal.CONTRACT_NOT_YET}:
        known = models.Controller.objects.filter(id=controller_id).exists()
        return verdict if known else Refusal.NO_CONTROLLER
    everything = _facts(Q(controller_id=controller_id, actions__contains=[question.action]), limit=1000)
    again = decide(question, contracts, [facts for _, facts in everything])
    return again if isinstance(again, Refusal) else verdict


def _refused(question: Question, missing: Sequence[tuple[str, Refusal]]) -> NotInstructedError:
    """Return the refusal; it names controllers, never the person."""
    what = f"{question.action} in database {question.database}"
    if len(missing) == 1:
        controller, reason = missing[0]
        fact = f"{what} is not permitted for controller {controller}: {WORDS[reason]}"
    else:
        named = "; ".join(f"{controller}: {WORDS[reason]}" for controller, reason in missing[:_NAMED])
        rest = f"; and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        fact = f"{what} is not permitted by {len(missing)} controllers: {named}{rest}"
    return NotInstructedError(fact, REMEDIES.get(missing[0][1], ASK_CONTROLLER), tuple(missing))
