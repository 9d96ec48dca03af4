"""Import from and export to Fideslang dataset YAML, with a list of everything that the other side cannot say.

Fideslang's models drop unknown words below a dataset, so all that is ours alone goes into the dataset's ``meta`` under ``obhut``: a file
that was exported here comes back whole. A file from elsewhere gives tables, categories and single-column references.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from fideslang.models import Dataset, DatasetField
from pydantic import ValidationError
from ruamel.yaml import YAML

from obhut.datamap import positions, vocabulary
from obhut.datamap.models import DatabaseMap, LinkRule, SubjectRule, TableRule, Verb
from obhut.datamap.proposal import ColumnProposal, LinkProposal, Proposal, SubjectProposal, TableProposal
from obhut.foundation.errors import ObhutError

_TYPES: Final = {"S": "string", "N": "integer", "B": "boolean", "D": "string", "U": "string"}


class FidesFormatError(ObhutError):
    """The file is no Fideslang dataset."""

    code = "fides-invalid"


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that could not be carried over, and where it stands."""

    where: str
    what: str


# -- export --------------------------------------------------------------------------------------------------------------------------


def to_fides(database: str, rules: DatabaseMap) -> tuple[str, list[Loss]]:
    """Return the dataset as YAML, validated by the installed Fideslang models, and what a reader of it will not see.

    Raises:
        FidesFormatError: a name of the map cannot be a name there.
    """
    losses: list[Loss] = []
    content: dict[str, Any] = {
        "fides_key": _key(database),
        "name": database,
        "description": "Exported from an Obhut data map",
        "meta": {"obhut": json.loads(rules.model_dump_json(exclude_defaults=True))},
        "collections": [_collection(name, rule, database, rules, losses) for name, rule in rules.tables.items()],
    }
    losses += _whole_map(rules)
    try:
        Dataset(**json.loads(json.dumps(content)))
    except (ValidationError, ValueError):
        raise FidesFormatError(
            f"the map of {database} has a name that Fideslang refuses", "Names there hold letters, digits and . _ - only."
        ) from None
    yaml = YAML()
    yaml.width = 120
    text = io.StringIO()
    yaml.dump({"dataset": [content]}, text)
    return text.getvalue(), losses


def _key(name: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-") else "_" for letter in name)


def _collection(name: str, rule: TableRule, database: str, rules: DatabaseMap, losses: list[Loss]) -> dict[str, Any]:
    subjects = {kind: subject for kind, subject in rules.subjects.items() if subject.table == name}
    keys = {column for subject in subjects.values() for column in subject.key}
    references, link_losses = _references(name, rule, database)
    losses += link_losses
    harmless = () if rule.not_personal == "*" else rule.not_personal
    if rule.not_personal == "*" or not rule.personal:
        losses.append(Loss(name, "columns that are not personal are not listed one by one"))
    fields = [
        _field_of(name, column, rule, subjects, references.get(column), losses)
        for column in dict.fromkeys([*rule.columns, *harmless, *keys, *references])
    ]
    collection: dict[str, Any] = {"name": name, "fields": fields}
    if rule.note:
        collection["description"] = rule.note
    if rule.erase and rule.erase.verb is Verb.DELETE:
        collection["fides_meta"] = {"masking_strategy_override": {"strategy": "delete"}}
    elif rule.erase and rule.erase.verb is not Verb.ANONYMISE:
        losses.append(
            Loss(name, f"the treatment {rule.erase.verb}" + (f" ({rule.erase.ground}, {rule.erase.period})" if rule.erase.ground else ""))
        )
    if not rule.personal:
        collection["fides_meta"] = {"skip_processing": True}
    return collection


def _field_of(
    name: str, column: str, rule: TableRule, subjects: dict[str, SubjectRule], references: list[dict[str, str]] | None, losses: list[Loss]
) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if any(column in subject.key for subject in subjects.values()):
        meta["primary_key"] = True
    if references:
        meta["references"] = references
    entry: dict[str, Any] = {"name": column}
    if column in rule.columns:
        category = rule.columns[column].category
        if any(column in subject.identifiers for subject in subjects.values()):
            meta["identity"] = category.rsplit(".", 1)[-1]
        entry["data_categories"] = [category]
        meta |= _masking(name, column, rule, losses)
    return {**entry, "fides_meta": meta} if meta else entry


def _masking(name: str, column: str, rule: TableRule, losses: list[Loss]) -> dict[str, Any]:
    way = rule.columns[column].anonymise
    if way is None:
        return {}
    if way.way == "null":
        return {"masking_strategy_override": {"strategy": "null_rewrite"}}
    if way.way in {"constant", "empty"}:
        value = "" if way.way == "empty" else str(way.value)
        return {"masking_strategy_override": {"strategy": "string_rewrite", "configuration": {"rewrite_value": value}}}
    if way.way == "keep":
        return {"masking_strategy_override": {"strategy": "preserve"}}
    losses.append(Loss(f"{name}.{column}", f"anonymised by {way.way}"))
    return {}


def _references(name: str, rule: TableRule, database: str) -> tuple[dict[str, list[dict[str, str]]], list[Loss]]:
    found: dict[str, list[dict[str, str]]] = {}
    losses: list[Loss] = []
    for index, link in enumerate(rule.links):
        problem = _unsayable(name, link)
        if problem:
            losses.append(Loss(f"{name} links {index}", problem))
            continue
        ((mine, theirs),) = (link.columns or {}).items()
        found.setdefault(mine, []).append({"dataset": _key(database), "field": f"{link.to}.{theirs}", "direction": "from"})
        if link.erase or link.anonymises:
            losses.append(Loss(f"{name} links {index}", "the treatment of the link's rows"))
    return found, losses


def _unsayable(name: str, link: LinkRule) -> str:
    if link.to == name:
        return "a table that refers to itself"
    if link.when:
        return "a polymorphic pair"
    if link.array or link.json_column:
        return "keys in an array" if link.array else "keys in JSON"
    if not link.columns:
        return f"the foreign key {link.by}" if link.by else "a link without columns"
    return "a key of several columns" if len(link.columns) > 1 else ""


def _whole_map(rules: DatabaseMap) -> list[Loss]:
    losses = [Loss("controller", f"the table of controllers {rules.controller.table}")]
    for kind, subject in rules.subjects.items():
        losses.append(Loss(f"subjects {kind}", "the way to the controller (the tenant column)"))
        for word, value in (("incarnation", subject.incarnation), ("created", subject.created)):
            if value:
                losses.append(Loss(f"subjects {kind}", f"{word}: {value if isinstance(value, str) else ', '.join(value)}"))
        if subject.activity:
            named = (item if isinstance(item, str) else item.table or "an expression" for item in subject.activity)
            losses.append(Loss(f"subjects {kind}", f"activity: {', '.join(named)}"))
        losses += [Loss(f"subjects {kind}", "notice")] if subject.notice else []
    if rules.canary:
        losses.append(Loss("canary", "the synthetic person"))
    for name, rule in rules.tables.items():
        losses += [Loss(name, "shared_by")] if rule.shared_by else []
        losses += [Loss(name, f"retain for {rule.retain.period}")] if rule.retain else []
        losses += [Loss(name, f"when_anonymised: {rule.when_anonymised.verb}")] if rule.when_anonymised else []
    return losses


# -- import --------------------------------------------------------------------------------------------------------------------------


def from_fides(text: str) -> list[tuple[str, DatabaseMap | Proposal, list[Loss]]]:
    """Return each dataset with its name: the whole map when it was exported here, else a proposal to complete; and what is not understood.

    Raises:
        FidesFormatError: it is not YAML, or no dataset by the installed Fideslang models.
    """
    value, _, problems = positions.read(text)
    found = value.get("dataset") if isinstance(value, dict) else None
    if problems or not isinstance(found, list) or not found:
        raise FidesFormatError("the file holds no list called dataset", "Export it from Fides as dataset YAML.")
    result: list[tuple[str, DatabaseMap | Proposal, list[Loss]]] = []
    for number, content in enumerate(found, 1):
        try:
            dataset = Dataset(**content)
        except (ValidationError, ValueError, TypeError):
            raise FidesFormatError(f"dataset number {number} does not have Fideslang's form", "Check it with Fides' own tools.") from None
        name = str(dataset.name or dataset.fides_key)
        ours = (dataset.meta or {}).get("obhut")
        if ours is not None:
            result.append((name, _own(ours, number), []))
        else:
            proposal, losses = _foreign(name, dataset)
            result.append((name, proposal, losses))
    return result


def _own(content: object, number: int) -> DatabaseMap:
    try:
        return DatabaseMap.model_validate(content)
    except ValidationError:
        raise FidesFormatError(
            f"the meta of dataset number {number} was changed", "Remove meta: obhut to import only what Fideslang says."
        ) from None


def _foreign(name: str, dataset: Dataset) -> tuple[Proposal, list[Loss]]:
    losses: list[Loss] = []
    tables = [_table(collection.name, collection, dataset, losses) for collection in dataset.collections]
    subjects: list[SubjectProposal] = []
    for collection in dataset.collections:
        identities = [field for field in collection.fields if field.fides_meta and field.fides_meta.identity]
        if identities:
            table = _qualified(collection.name)
            keys = tuple(field.name for field in collection.fields if field.fides_meta and field.fides_meta.primary_key)
            decide = [
                "which column leads to the controller, and which one tells this person from the next with the same key (incarnation)?"
            ]
            kind = "_".join(vocabulary.words(collection.name)[-1:]).removesuffix("s") or "person"
            named = kind if all(kind != other.kind for other in subjects) else f"{kind}_{len(subjects)}"
            subjects.append(SubjectProposal(named, table, keys, None, None, None, tuple(field.name for field in identities), (), decide))
    first = subjects[0].table if subjects else tables[0].name
    decide = ["the table of controllers is not known to Fideslang; name it"]
    if not subjects:
        decide.append("no field has an identity, so no table of people is known; name it")
        subjects.append(SubjectProposal("person", first, (), None, None, None, (), ()))
    for proposed in tables:
        if proposed.name in {subject.table for subject in subjects} and proposed.erase is None:
            proposed.erase = "anonymise"
            proposed.decide.append("Fideslang masks and keeps the row; delete it instead?")
    return Proposal(name, first, (), subjects, tables, decide), losses


def _qualified(collection: str) -> str:
    return collection if collection.count(".") == 1 else f"public.{collection.replace('.', '_')}"


def _table(name: str, collection: Any, dataset: Dataset, losses: list[Loss]) -> TableProposal:
    table = TableProposal(_qualified(name))
    for field in collection.fields:
        _field(table, field, [*(collection.data_categories or []), *(dataset.data_categories or [])], str(dataset.fides_key), losses)
    meta = collection.fides_meta
    if meta and meta.masking_strategy_override:
        table.erase = "delete"
    for word in ("after", "erase_after", "partitioning"):
        if meta and getattr(meta, word, None):
            losses.append(Loss(table.name, f"{word}: the order of an erasure follows from the foreign keys here"))
    if table.links and table.erase is None:
        table.erase = "anonymise"
    if meta and meta.skip_processing and not table.columns:
        table.personal = False
    return table


def _field(table: TableProposal, field: DatasetField, inherited: Iterable[str], dataset: str, losses: list[Loss]) -> None:
    given = [str(category) for category in (field.data_categories or inherited)]
    personal = [category for category in given if category.split(".")[0] == "user"]
    where = f"{table.name}.{field.name}"
    if len(personal) > 1:
        losses.append(Loss(where, f"further categories: {', '.join(personal[1:])}"))
    if field.fields:
        losses.append(Loss(where, "nested fields: anonymise them with json paths"))
    meta = field.fides_meta
    if personal:
        table.columns.append(ColumnProposal(field.name, personal[0], _rule(meta), None))
    elif given or (meta and (meta.primary_key or meta.references)):
        table.not_personal.append(field.name)
    else:
        table.unknown.append(field.name)
    for reference in (meta.references if meta else None) or []:
        _reference(table, field.name, reference, dataset, losses)
    if meta:
        for word in ("read_only", "custom_request_field", "redact", "return_all_elements"):
            if getattr(meta, word):
                losses.append(Loss(where, word))


def _reference(table: TableProposal, mine: str, reference: Any, dataset: str, losses: list[Loss]) -> None:
    where = f"{table.name}.{mine}"
    if str(reference.dataset) != dataset:
        losses.append(Loss(where, f"a reference into another dataset ({reference.dataset})"))
        return
    parent, _, theirs = reference.field.rpartition(".")
    if not parent:
        losses.append(Loss(where, "a reference without a collection"))
    elif getattr(reference.direction, "value", reference.direction) == "to":
        losses.append(Loss(where, f"a reference towards {reference.field}: links go from the further table to the nearer one here"))
    else:
        table.links.append(LinkProposal(_qualified(parent), f"columns: {{{json.dumps(mine)}: {json.dumps(theirs)}}}"))


def _rule(meta: Any) -> str:
    override = meta.masking_strategy_override if meta else None
    if override is None or override.strategy == "null_rewrite":
        return "null"
    if override.strategy == "string_rewrite":
        return f"{{constant: {json.dumps(str((override.configuration or {}).get('rewrite_value', 'erased')), ensure_ascii=False)}}}"
    if override.strategy == "preserve":
        return "{keep: preserved in Fides}"
    return "null"  # hashes and random texts are pseudonyms or lose nothing by going


def written(name: str, rules: DatabaseMap) -> str:
    """Return a whole map as the text of a ``datamap.yaml``."""
    yaml = YAML()
    yaml.width = 120
    text = io.StringIO()
    yaml.dump({"obhut": 1, "databases": {name: json.loads(rules.model_dump_json(exclude_defaults=True, by_alias=True))}}, text)
    return text.getvalue()
