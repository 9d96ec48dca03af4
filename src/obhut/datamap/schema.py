"""The JSON Schema of ``datamap.yaml`` for editors, generated from the models and widened by the short forms that people write."""

from __future__ import annotations

import json
from typing import Any

from obhut.datamap.models import PATH, SHARED, DataMap, Verb
from obhut.datamap.transformers import CATALOGUE, Option, Transformer

ID = "https://obhut.dev/schema/datamap-1.json"
_TREATMENT_WORDS = [verb.value for verb in Verb if verb is not Verb.KEEP]
_PERIOD = {"type": "string", "pattern": r"^P(\d+[YMWD])+$", "description": "ISO 8601 duration such as P10Y"}
# Options that many transformers take, described once.
_SHARED = {
    option.name: option
    for one in CATALOGUE.values()
    for option in (*one.options, *one.common)
    if option.name in {"identity", "per", "nulls", "locale", "domain"}
}


def schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12)."""
    generated = DataMap.model_json_schema(by_alias=True)
    definitions = generated["$defs"]
    definitions["Treatment"] = _treatment(definitions["Treatment"])
    definitions["Anonymisation"] = _anonymisation(definitions["Anonymisation"])
    definitions["Mask"] = _mask(definitions["Mask"])
    definitions.update({f"mask_{name}": _spelt(option) for name, option in _SHARED.items()})
    column = definitions["ColumnRule"]
    alone = {"type": "string", "description": "the category alone", "pattern": column["properties"]["category"]["pattern"]}
    definitions["ColumnRule"] = {"anyOf": [alone, column]}
    for word in ("CanaryRow", "SharedBy"):
        definitions[word].setdefault("additionalProperties", False)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        **generated,
        "title": "Obhut data map",
        "description": "Whose data is where in the protected databases, and what an erasure does to it.",
    }


def text() -> str:
    """Return the schema as text, the same on every machine."""
    return json.dumps(schema(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _treatment(full: dict[str, Any]) -> dict[str, Any]:
    keep = {
        "type": "object",
        "additionalProperties": False,
        "required": ["keep", "for"],
        "properties": {
            "keep": {"type": "string", "maxLength": 200, "description": "legal ground such as § 147 AO"},
            "for": _PERIOD,
            "then": {"enum": ["delete", "anonymise"], "default": "delete", "description": "what comes when the period is over"},
        },
    }
    words = {"enum": _TREATMENT_WORDS, "description": "what happens to the row when the person is erased"}
    return {"description": full.get("description", ""), "anyOf": [words, keep, full]}


def _anonymisation(full: dict[str, Any]) -> dict[str, Any]:
    one = [
        ("constant", {"type": ["string", "number", "boolean"], "description": "the same value for everybody"}),
        ("template", {"type": "string", "description": "text with {column} of the same row, such as erased-{id}"}),
        ("generalise", {"enum": ["hour", "day", "month", "year", "decade"], "description": "a date or time cut down to this unit"}),
        *((name, _option(CATALOGUE[name].options[0])) for name in sorted(SHARED)),
        ("keep", {"type": "string", "maxLength": 200, "description": "why the value tells nothing about the person"}),
        ("json", _json_paths(full)),
    ]
    forms = [
        {"type": "object", "additionalProperties": False, "required": [word], "properties": {word: content}, "title": word}
        for word, content in one
    ]
    bare = {
        "enum": [None, "null", "empty", "default", "age_band", "redact"],
        "description": "null, an empty value, the column's default, a band of five years, a mark",
    }
    return {"description": full.get("description", ""), "anyOf": [bare, *forms, full]}


def _mask(full: dict[str, Any]) -> dict[str, Any]:
    bare = sorted(name for name, one in CATALOGUE.items() if not one.required)
    forms = [_transformer(one) for _, one in sorted(CATALOGUE.items()) if one.options or one.common]
    return {"description": full.get("description", ""), "anyOf": [{"enum": [None, *bare]}, *forms, full]}


def _transformer(one: Transformer) -> dict[str, Any]:
    options = {option.name: _option(option) for option in (*one.options, *one.common)}
    every: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": options}
    if one.required:
        every["required"] = [one.options[0].name]
    short = [_option(one.options[0])] if one.options else []
    if one.name == "json":
        short[0]["propertyNames"] = {"pattern": PATH}
    return {
        "title": one.name,
        "description": one.summary,
        "type": "object",
        "additionalProperties": False,
        "required": [one.name],
        "properties": {one.name: {"anyOf": [*short, every]}},
    }


def _option(option: Option) -> dict[str, Any]:
    return {"$ref": f"#/$defs/mask_{option.name}"} if option.name in _SHARED else _spelt(option)


def _spelt(option: Option) -> dict[str, Any]:
    made: dict[str, Any] = {"description": option.description}
    if option.kind != "any":
        made["type"] = option.kind
    if option.choices:
        made["enum"] = list(option.choices)
    if option.minimum is not None:
        made["minimum"] = option.minimum
    if option.default is not None:
        made["default"] = option.default
    if option.kind == "array":
        made["minItems"] = 1
    if option.name == "paths":
        made["additionalProperties"] = {"$ref": "#/$defs/Mask"}
    return made


def _json_paths(_: dict[str, Any]) -> dict[str, Any]:
    path = {"type": "string", "pattern": PATH}
    return {
        "description": "paths to remove, or paths with what they become: remove, null or a constant",
        "anyOf": [{"type": "array", "items": path, "minItems": 1}, {"type": "object", "propertyNames": path, "minProperties": 1}],
    }
