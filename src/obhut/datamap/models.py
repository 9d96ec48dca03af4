"""The data map as written: the values of ``datamap.yaml``, nothing resolved against a database yet.

Reference: ``docs/reference/datamap.md``; JSON Schema for editors: ``obhut datamap schema``. Categories are Fideslang data categories
(``user.contact.email``). Durations are ISO 8601 (``P10Y``).
"""

from __future__ import annotations

import difflib
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from obhut.datamap.transformers import CATALOGUE, problem

FORMAT = 1
DURATION = r"^P(\d+[YMWD])+$"
_CATEGORY = r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$"
_TABLE = r"^[^.]+\.[^.]+$"
PATH = r"^\$(\.[A-Za-z_][A-Za-z0-9_]*|\.\"[^\"]+\"|\[\*\])+$"

TableName = Annotated[str, Field(pattern=_TABLE, description="schema.table as PostgreSQL stores the names")]
Duration = Annotated[str, Field(pattern=DURATION, description="ISO 8601 duration such as P10Y")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Verb(StrEnum):
    """What an erasure does to a row that belongs to the person."""

    DELETE = "delete"
    ANONYMISE = "anonymise"
    UNLINK = "unlink"
    KEEP = "keep"
    DELETE_IF_ORPHANED = "delete_if_orphaned"


class Treatment(_Model):
    """A verb with what it needs; written short (``delete``) or, for ``keep``, with its ground and period."""

    verb: Verb
    ground: Annotated[str | None, Field(description="legal ground such as § 147 AO", max_length=200)] = None
    period: Annotated[Duration | None, Field(description="how long rows are kept after the erasure")] = None
    then: Annotated[Verb | None, Field(description="what happens when the period is over: delete or anonymise")] = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"verb": value}
        if isinstance(value, dict) and "keep" in value:
            rest = {key: content for key, content in value.items() if key not in {"keep", "for"}}
            return {"verb": "keep", "ground": value["keep"], "period": value.get("for"), "then": "delete", **rest}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.verb is Verb.KEEP and not (self.ground and self.period):
            raise ValueError("keep needs a legal ground and a period: {keep: § 147 AO, for: P10Y}")
        if self.verb is not Verb.KEEP and (self.ground or self.period or self.then):
            raise ValueError("only keep takes a ground, a period and what comes then")
        if self.then not in {None, Verb.DELETE, Verb.ANONYMISE}:
            raise ValueError("after keep only delete or anonymise can come")
        return self


class JsonRule(_Model):
    """What becomes of one JSON path: ``remove`` the key, set it to ``null``, or to a constant string."""

    path: Annotated[str, Field(pattern=PATH)]
    to: Annotated[Any, Field(description="remove, null or a constant")] = "remove"


# Transformers of the catalogue that rows in production take, too: the same result from the same row, again and again.
SHARED = frozenset({"bucket", "age_band", "truncate", "redact"})


class Anonymisation(_Model):
    """How a personal column is anonymised where its row stays. Exactly one way is set."""

    way: Literal[
        "null", "empty", "constant", "template", "generalise", "bucket", "age_band", "truncate", "redact", "json", "default", "keep"
    ]
    value: Annotated[Any, Field(description="the constant, the template's text, or the first option of the transformer")] = None
    paths: tuple[JsonRule, ...] = ()
    reason: Annotated[str | None, Field(description="why keep does not hurt", max_length=200)] = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if value is None:
            return {"way": "null"}
        if isinstance(value, str):
            return {"way": value}
        if isinstance(value, dict) and "way" not in value and len(value) == 1:
            ((way, content),) = value.items()
            if way == "json":
                if isinstance(content, dict):
                    return {"way": "json", "paths": [{"path": path, "to": to} for path, to in content.items()]}
                return {"way": "json", "paths": [{"path": path} for path in content]}
            if way == "keep":
                return {"way": "keep", "reason": content}
            return {"way": way, "value": content}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.way in {"constant", "template", "generalise"} and self.value is None:
            raise ValueError(f"{self.way} needs a value: {{{self.way}: …}}")
        if self.way == "generalise" and self.value not in {"year", "month", "day", "decade", "hour"}:
            raise ValueError("generalise takes year, month, day, hour or decade")
        if self.way in SHARED and (fault := problem(CATALOGUE[self.way], self.options)):
            raise ValueError(fault)
        if self.way == "json" and not self.paths:
            raise ValueError("json needs at least one path")
        if self.way == "keep" and not self.reason:
            raise ValueError("keep needs a reason: {keep: why the value tells nothing about the person}")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The value as an option of the transformer of the same name."""
        first = CATALOGUE[self.way].options
        return {} if self.value is None or not first else {first[0].name: self.value}


class Mask(_Model):
    """What a copy for tests gets instead of the value: a transformer of the catalogue with its options."""

    transformer: str
    options: Annotated[dict[str, Any], Field(description="the transformer's parameters")] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if value is None:
            return {"transformer": "null"}
        if isinstance(value, str):
            return {"transformer": value}
        if isinstance(value, dict) and "transformer" not in value and len(value) == 1:
            ((name, content),) = value.items()
            return {"transformer": name, "options": _options(str(name), content)}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        transformer = CATALOGUE.get(self.transformer)
        if transformer is None:
            near = ", ".join(difflib.get_close_matches(self.transformer, CATALOGUE, n=3, cutoff=0.5)) or "see docs/reference/masking.md"
            raise ValueError(f"there is no transformer of that name ({near})")
        if fault := problem(transformer, self.options):
            raise ValueError(fault)
        for path, inner in (self.options.get("paths") or {}).items() if self.transformer == "json" else ():
            if not re.fullmatch(PATH, str(path)):
                raise ValueError("a JSON path starts with $ and has names and [*] only")
            Mask.model_validate(inner)
        return self


def _options(name: str, content: Any) -> Any:
    """Return the options of a short form: a mapping names them, anything else is the first one."""
    transformer = CATALOGUE.get(name)
    first = transformer.options[0].name if transformer and transformer.options else "value"
    if not isinstance(content, dict):
        return {} if content is None else {first: content}
    return {first: content} if any(str(key).startswith("$") for key in content) else content


class ColumnRule(_Model):
    """A personal column: its category, how it is anonymised, and what copies for tests get."""

    category: Annotated[str, Field(pattern=_CATEGORY)]
    anonymise: Anonymisation | None = None
    mask: Annotated[Mask | None, Field(description="transformer for masked copies; default: by category and type")] = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"category": value}
        if isinstance(value, dict):
            # A key that is written with nothing behind it, or with null, means NULL and not "no rule".
            return {name: "null" if name in {"anonymise", "mask"} and content is None else content for name, content in value.items()}
        return value


class LinkRule(_Model):
    """How rows of a table lead to rows of another one that stands nearer to the person.

    One of: ``columns`` (mine to theirs, with or without a foreign key; ``when`` for polymorphic pairs), ``by`` (a foreign key's name),
    ``array`` (a column with an array of keys), ``json`` with ``path`` (keys inside a JSON column).
    """

    to: TableName
    name: str | None = None
    by: Annotated[str | None, Field(description="name of a foreign key")] = None
    columns: Annotated[dict[str, str] | None, Field(description="my column: their column")] = None
    array: Annotated[str | None, Field(description="my array column")] = None
    json_column: Annotated[str | None, Field(alias="json", description="my json or jsonb column")] = None
    path: Annotated[str | None, Field(pattern=PATH)] = None
    key: Annotated[str | None, Field(description="their column that array or path holds; default: the primary key")] = None
    when: dict[str, str | int | bool] = Field(default_factory=dict, description="only rows where my column has this value")
    erase: Annotated[Treatment | None, Field(description="treatment for rows reached by this link; default: the table's")] = None
    anonymises: Annotated[
        tuple[str, ...], Field(description="the personal columns that are this person's, where a row has several; default: all")
    ] = ()
    when_anonymised: Treatment | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = [self.columns is not None, self.by is not None, self.array is not None, self.json_column is not None]
        if sum(forms) > 1:
            raise ValueError("a link is one of columns, by, array, json")
        if (self.json_column is None) != (self.path is None):
            raise ValueError("json and path go together")
        if self.path is not None and self.path.count("[*]") > 1:
            raise ValueError("a path may hold one [*] at the most")
        return self


class SharedBy(_Model):
    """A referencing column set that has no foreign key, for ``delete_if_orphaned``."""

    table: TableName
    columns: dict[str, str]


class TableRule(_Model):
    """All that the map says about one table."""

    personal: Annotated[bool, Field(description="false: no column holds personal data")] = True
    columns: dict[str, ColumnRule] = Field(default_factory=dict)
    not_personal: tuple[str, ...] | Literal["*"] = ()
    links: tuple[LinkRule, ...] = ()
    shared_by: tuple[SharedBy, ...] = ()
    erase: Treatment | None = None
    when_anonymised: Treatment | None = None
    retain: Annotated[RetainRule | None, Field(description="rows go by themselves, so long after an event")] = None
    rekey: Annotated[
        bool | tuple[str, ...] | None,
        Field(description="key columns that masked copies re-issue; default: the number or uuid that is the key of a table with people"),
    ] = None
    note: Annotated[str | None, Field(max_length=500)] = None


class ActivityRule(_Model):
    """What counts as activity beside columns of the person's own row: rows of another table, or an expression."""

    table: Annotated[TableName | None, Field(description="table whose rows count; a link of the map leads from it to the person")] = None
    column: Annotated[str | None, Field(description="its column with the moment")] = None
    sql: Annotated[str | None, Field(max_length=2000, description="SQL that gives a moment; s is the person's row")] = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.table is None) != (self.column is None) or (self.table is None) == (self.sql is None):
            raise ValueError("activity is a column, {table: …, column: …} or {sql: …}")
        return self


class NoticeRule(_Model):
    """Where the person is told before being anonymised; read at the moment of sending and kept nowhere."""

    address: Annotated[str, Field(description="column with the e-mail address")]
    language: Annotated[str | None, Field(description="column with the language, such as de-AT")] = None


class RetainRule(_Model):
    """Rows that go by themselves, so long after an event, whoever they are about."""

    period: Annotated[Duration, Field(alias="for", description="how long after the event")]
    after: Annotated[str, Field(description="column with the moment of the event")]
    then: Annotated[Verb, Field(description="delete or anonymise")] = Verb.DELETE
    ground: Annotated[str | None, Field(max_length=200, description="why so long, for the deletion concept")] = None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.then not in {Verb.DELETE, Verb.ANONYMISE}:
            raise ValueError("after the period only delete or anonymise can come")
        return self


class SubjectRule(_Model):
    """A kind of data subject: the table in which a row is a person."""

    table: TableName
    key: tuple[str, ...] = ()
    controller: Annotated[
        dict[str, str] | tuple[LinkRule, ...],
        Field(description="my column: column of the controller's key; or the hops that lead to the controller table"),
    ] = ()
    incarnation: Annotated[tuple[str, ...], Field(description="columns that tell this person from the next with the same key")] = ()
    never_reused: Annotated[
        str | None, Field(max_length=200, description="instead of incarnation: why no key is ever given to a second person")
    ] = None
    created: Annotated[str | None, Field(description="column with the moment of registration")] = None
    identifiers: Annotated[tuple[str, ...], Field(description="columns whose values leak checks look for")] = ()
    activity: Annotated[
        tuple[str | ActivityRule, ...], Field(description="what counts as activity: columns, rows of other tables, expressions")
    ] = ()
    notice: Annotated[NoticeRule | None, Field(description="where the person is told before being anonymised")] = None


class CanaryRow(_Model):
    """A row of a canary; values may hold ``{token}`` and ``{table.column}`` of an earlier row."""

    table: TableName
    values: dict[str, Any]


class CanaryRule(_Model):
    """How a synthetic person is planted (``obhut canary plant``), the positive control of every proof."""

    subject: str
    rows: Annotated[tuple[CanaryRow, ...], Field(min_length=1)]


class ControllerRule(_Model):
    """The table in which a row is a controller (a customer of the vendor)."""

    table: TableName
    key: tuple[str, ...] = ()


class DatabaseMap(_Model):
    """The map of one protected database."""

    controller: ControllerRule
    subjects: Annotated[dict[str, SubjectRule], Field(min_length=1)]
    tables: dict[TableName, TableRule]
    canary: CanaryRule | None = None

    @field_validator("subjects")
    @classmethod
    def _short_names(cls, value: dict[str, SubjectRule]) -> dict[str, SubjectRule]:
        for name in value:
            if not name.replace("_", "").isalnum() or not name.isascii() or not name.islower():
                raise ValueError(f"the subject kind {name!r} needs a name of lower-case letters, digits and underscores")
        return value


class DataMap(_Model):
    """A whole ``datamap.yaml``."""

    obhut: Annotated[Literal[1], Field(description="version of the format")]
    databases: Annotated[dict[str, DatabaseMap], Field(min_length=1)]
