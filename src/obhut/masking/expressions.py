"""The SQL expressions of the data map: how a column's value changes when its row stays.

One set of expressions serves the live ``UPDATE`` and the restore's ``SELECT``, so that a person who was anonymised in production comes
out of a restore the same. They are deterministic and read nothing but their own row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from obhut.datamap.graph import parse_path
from obhut.datamap.models import SHARED, Anonymisation
from obhut.postgres.catalogue import Column
from obhut.postgres.sql import SQL, Composable, Identifier, Literal, trusted

Expression = Callable[[Composable], Composable]  # from the value so far to the new one
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def null(_: Composable) -> Composable:
    """The value is gone."""
    return SQL("NULL")


def column_default(column: Column) -> Expression:
    """The column's default, or NULL when it has none."""
    if column.default is None:
        return null
    fragment = trusted(column.default)
    return lambda _: SQL("({})::{}").format(fragment, trusted(column.type))


def array_without(setting: str, column: Column) -> Expression:
    """The array without the keys listed in a run-time parameter; the order of the rest stays."""
    element = trusted(column.base_type.removesuffix("[]"))
    return lambda current: SQL(
        "(CASE WHEN {current} IS NULL THEN NULL ELSE ARRAY("
        "SELECT obhut_e.v FROM unnest({current}) WITH ORDINALITY AS obhut_e(v, n) WHERE obhut_e.v IS NULL"
        " OR obhut_e.v NOT IN (SELECT unnest(current_setting({setting})::{element}[])) ORDER BY obhut_e.n) END)::{type}"
    ).format(current=current, setting=Literal(setting), element=element, type=trusted(column.type))


def json_without(setting: str, column: Column, path: tuple[str | None, ...]) -> Expression:
    """The JSON value without the keys listed in a run-time parameter at the path; a list loses the elements that hold them."""
    listed = SQL("(SELECT unnest(current_setting({})::text[]))").format(Literal(setting))
    if None not in path:
        where = Literal(_steps(path))
        return lambda current: _as(
            column,
            _let(current, SQL("CASE WHEN ({v} #>> {p}) IN {l} THEN {v} #- {p} ELSE {v} END").format(v=_VALUE, p=where, l=listed)),
        )
    star = path.index(None)
    kept = SQL(" WHERE (obhut_e.v #>> {b}) IS NULL OR (obhut_e.v #>> {b}) NOT IN {l}").format(b=Literal(_steps(path[star + 1 :])), l=listed)
    return lambda current: _as(column, _let(current, _rebuilt_list(path[:star], SQL("obhut_e.v"), kept)))


def anonymised(rule: Anonymisation, column: Column) -> Expression:
    """Return the expression of an anonymisation rule of the data map."""
    kind = trusted(column.type)
    if rule.way == "null":
        return null
    if rule.way == "default":
        return column_default(column)
    if rule.way == "empty":
        text = "{}" if column.category == "A" or column.base_type in {"json", "jsonb"} else ""
        return lambda _: SQL("{}::{}").format(Literal(text), kind)
    if rule.way == "constant":
        return lambda _: SQL("{}::{}").format(Literal(_constant(rule.value)), kind)
    if rule.way == "template":
        pieces = enumerate(_FIELD.split(str(rule.value)))
        parts = [SQL("{}::text").format(Identifier(piece)) if index % 2 else Literal(piece) for index, piece in pieces]
        return lambda _: SQL("concat({})::{}").format(SQL(", ").join(parts), kind)
    if rule.way in SHARED:
        return lambda current: _MASKS[rule.way](current, rule.options, column)
    if rule.way == "generalise":
        return lambda current: SQL("date_trunc({}, {}::timestamp)::{}").format(Literal(rule.value), current, kind)
    return _json_rules(rule, column)


_INTEGER_BITS = {"smallint": 15, "integer": 31, "bigint": 63}


def masked(transformer: str, options: Mapping[str, Any], column: Column) -> Composable | None:
    """Return what a copy's SELECT says for a column under a transformer of the server; None for the column itself."""
    if transformer == "keep":
        return None
    current: Composable = Identifier(column.name)
    make = _MASKS.get(transformer)
    if make is not None:
        return make(current, options, column)
    way: dict[str, Any] = {"way": transformer, "value": next(iter(options.values()), None)}
    return anonymised(Anonymisation.model_validate(way), column)(current)


def fields(template: object) -> tuple[str, ...]:
    """Return the columns that a template's text reads."""
    return tuple(_FIELD.findall(str(template or "")))


def _redact(current: Composable, options: Mapping[str, Any], column: Column) -> Composable:
    mark = Literal(options.get("mark", "[redacted]"))
    return SQL("(CASE WHEN {} IS NOT NULL THEN {}::text END)::{}").format(current, mark, trusted(column.type))


def _bucket(current: Composable, options: Mapping[str, Any], column: Column) -> Composable:
    width, lowest = Literal(str(options["width"])), _lowest(column)
    bound = SQL("floor({c}::numeric / {w}::numeric) * {w}::numeric").format(c=current, w=width)
    if lowest is not None:  # the lowest class may begin below what the type can hold; greatest() would make a value of NULL
        bound = SQL("CASE WHEN {c} IS NOT NULL THEN greatest({b}, {l}::numeric) END").format(c=current, b=bound, l=Literal(lowest))
    return SQL("({})::{}").format(bound, trusted(column.type))


def _lowest(column: Column) -> str | None:
    """Return the lowest number of a column's type, or None where it has none."""
    if column.base_type in _INTEGER_BITS:
        return str(-(2 ** _INTEGER_BITS[column.base_type]))
    if column.base_type == "numeric" and column.modifier > 0:
        precision, scale = (column.modifier - 4) >> 16, (column.modifier - 4) & 0x7FF
        scale -= 0x800 if scale > 0x3FF else 0  # since version 15 a scale may be below zero
        return f"-{'9' * precision}e{-scale}"
    return None


def _age_band(current: Composable, options: Mapping[str, Any], column: Column) -> Composable:
    years = Literal(int(options.get("years", 5)))
    year = SQL("(extract(year FROM {c})::int - mod(extract(year FROM {c})::int, {y}))").format(c=current, y=years)
    # No calendar has a year 0, and infinity has none at all.
    first = SQL("make_date(coalesce(nullif({}, 0), 1), 1, 1)").format(year)
    return SQL("(CASE WHEN isfinite({c}) THEN {first}::{t} ELSE {c} END)").format(c=current, first=first, t=trusted(column.type))


def _truncate(current: Composable, options: Mapping[str, Any], column: Column) -> Composable:
    length, pad = Literal(int(options["length"])), str(options.get("pad") or "")
    cut = SQL("left({}::text, {})").format(current, length)
    if pad:
        cut = SQL("rpad({}, length({}::text), {})").format(cut, current, Literal(pad))
    return SQL("({})::{}").format(cut, trusted(column.type))


def _partial(current: Composable, options: Mapping[str, Any], column: Column) -> Composable:
    start, end = int(options.get("start", 1)), int(options.get("end", 0))
    text = SQL("{}::text").format(current)
    # A value no longer than what would stay is all stars.
    shown = SQL("left({t}, {s}) || repeat('*', length({t}) - {n}) || right({t}, {e})").format(
        t=text, s=Literal(start), e=Literal(end), n=Literal(start + end)
    )
    made = SQL("CASE WHEN length({t}) > {n} THEN {shown} ELSE repeat('*', length({t})) END").format(
        t=text, n=Literal(start + end), shown=shown
    )
    return SQL("({})::{}").format(made, trusted(column.type))


_MASKS: Mapping[str, Callable[[Composable, Mapping[str, Any], Column], Composable]] = {
    "redact": _redact,
    "bucket": _bucket,
    "age_band": _age_band,
    "truncate": _truncate,
    "partial": _partial,
}


def template_columns(rule: Anonymisation) -> tuple[str, ...]:
    """Return the columns that a template reads."""
    return tuple(_FIELD.findall(str(rule.value))) if rule.way == "template" else ()


def _json_rules(rule: Anonymisation, column: Column) -> Expression:
    steps = [(parse_path(entry.path), entry.to) for entry in rule.paths]

    def apply(current: Composable) -> Composable:
        for path, to in steps:
            current = _let(current, _json_step(path, to))
        return _as(column, current)

    return apply


def _json_step(path: tuple[str | None, ...], to: Any) -> Composable:
    """Return the value ``obhut_j.v`` after one rule."""
    if None in path:
        star = path.index(None)
        rest = path[star + 1 :]
        if rest:
            return _rebuilt_list(path[:star], _let(SQL("obhut_e.v"), _json_step(rest, to)), SQL(""))
        if to == "remove":
            return _rebuilt_list(path[:star], SQL("obhut_e.v"), SQL(" WHERE false"))
        return _rebuilt_list(path[:star], _json(to), SQL(""))
    where = Literal(_steps(path))
    # Where the path leads nowhere, the operators would fail (on a scalar, on an array that is asked for a member) or add the key.
    made = SQL("{} #- {}").format(_VALUE, where) if to == "remove" else SQL("jsonb_set({}, {}, {})").format(_VALUE, where, _json(to))
    return SQL("CASE WHEN ({v} #> {p}) IS NULL THEN {v} ELSE {made} END").format(v=_VALUE, p=where, made=made)


def _rebuilt_list(path: tuple[str | None, ...], element: Composable, where: Composable) -> Composable:
    """Return the value ``obhut_j.v`` with the list at the path made anew from its elements ``obhut_e.v``."""
    above = Literal(_steps(path))
    rebuilt: Composable = SQL(
        "(SELECT coalesce(jsonb_agg({element} ORDER BY obhut_e.n), '[]') FROM jsonb_array_elements({v} #> {a})"
        " WITH ORDINALITY AS obhut_e(v, n){where})"
    ).format(element=element, v=_VALUE, a=above, where=where)
    if path:
        rebuilt = SQL("jsonb_set({}, {}, {})").format(_VALUE, above, rebuilt)
    return SQL("CASE WHEN jsonb_typeof({v} #> {a}) = 'array' THEN {new} ELSE {v} END").format(v=_VALUE, a=above, new=rebuilt)


_VALUE = SQL("obhut_j.v")


def _let(value: Composable, body: Composable) -> Composable:
    """Return ``body``, which names the value ``obhut_j.v``: without a name, each rule would double the statement."""
    # OFFSET 0 keeps the planner from writing the value out again at each place.
    return SQL("(SELECT {} FROM (SELECT {}::jsonb OFFSET 0) AS obhut_j(v))").format(body, value)


def _json(value: Any) -> Composable:
    return SQL("to_jsonb({}::text)").format(Literal(str(value))) if value is not None else SQL("'null'::jsonb")


def _as(column: Column, value: Composable) -> Composable:
    return SQL("({})::{}").format(value, trusted(column.type))


def _steps(path: tuple[str | None, ...]) -> list[str]:
    return [step for step in path if step is not None]


def _constant(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
