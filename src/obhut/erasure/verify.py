"""Look again, by other means than the eraser: by key values instead of row addresses, one plain question a link.

Shares neither the closure nor its statements. A question that could not be asked is reported as such and never counts as passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from obhut.datamap.graph import Graph, Link, LinkForm, Subject
from obhut.datamap.models import Verb
from obhut.erasure.plan import Cohort
from obhut.masking import expressions
from obhut.postgres.catalogue import Table
from obhut.postgres.connections import Session
from obhut.postgres.sql import SQL, Composable, Identifier, Literal, array_literal, rendered, trusted

_DISTINCT = SQL("{} IS DISTINCT FROM {}")
_TEXTUAL = {"S", "U", "A"}  # string, user-defined (json, jsonb, citext, xml, hstore) and array types may hold a text


@dataclass(frozen=True, slots=True)
class Answer:
    """One question and what the database answered.

    Attributes:
        table: ``schema.name``.
        question: what was counted.
        rows: number of rows that should not be there.
    """

    table: str
    question: str
    rows: int

    @property
    def passed(self) -> bool:
        """Whether no such row was found."""
        return self.rows == 0


@dataclass(frozen=True, slots=True)
class Verification:
    """All answers about one erasure.

    Attributes:
        position: where the WAL stood when they were given; empty when nothing was asked, or on a standby.
    """

    answers: tuple[Answer, ...]
    position: str = ""

    @property
    def passed(self) -> bool:
        """Whether questions were asked and every answer is as it should be."""
        return bool(self.answers) and all(answer.passed for answer in self.answers)

    @property
    def failed(self) -> tuple[Answer, ...]:
        """Answers that found rows."""
        return tuple(answer for answer in self.answers if not answer.passed)


def verify(session: Session, graph: Graph, kind: str, keys: Sequence[Sequence[str]], cohort: Cohort) -> Verification:
    """Count what an erasure of these people must not have left.

    Args:
        session: on the protected database or on a restored one.
        graph: the data map resolved against that database.
        kind: subject kind of the data map.
        keys: columns of the subject's primary key as text, in the map's order.
        cohort: how the people were treated.

    Raises:
        DatabaseError: a question could not be asked.
    """
    subject = graph.subject(kind)
    wanted = "verify", kind, cohort
    if wanted not in graph.made:
        graph.made[wanted] = _statement(graph, subject, cohort)
    questions, statement = graph.made[wanted]
    if not questions:
        return Verification(())
    params = {f"k{position}": array_literal([key[position] for key in keys]) for position in range(len(subject.key))}
    position, *counts = session.row(statement, params) or ("",)
    return Verification(
        tuple(Answer(table, question, rows) for (table, question), rows in zip(questions, counts, strict=True)), position or ""
    )


def _statement(graph: Graph, subject: Subject, cohort: Cohort) -> tuple[list[tuple[str, str]], SQL]:
    """Return table and words of each question, and one statement for all: a single erasure pays one round trip for being looked at."""
    questions = list(_questions(graph, subject, cohort))
    position = SQL("CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END")
    asked = SQL(", ").join([position, *(SQL("({})").format(query) for _, _, query in questions)])
    statement = SQL("WITH k AS MATERIALIZED {} SELECT {}").format(_listed(subject), asked)
    return [(table, question) for table, question, _ in questions], rendered(statement)


def _questions(graph: Graph, subject: Subject, cohort: Cohort) -> Iterator[tuple[str, str, Composable]]:
    """Table, question and counting statement; the people's keys are the relation ``k``."""
    yield from _own_question(graph, subject, cohort)
    for link in graph.links_to(subject.table):
        verb = cohort.verb(link.treatment(anonymising=cohort.anonymising))
        if not set(link.parent_columns) <= set(subject.key):
            continue
        child = graph.catalogue.tables[link.child]
        if verb in {Verb.DELETE, Verb.UNLINK}:
            yield child.full_name, f"rows that name the {subject.kind} by {link.name}", _counted(link, child, subject)
        elif verb is Verb.ANONYMISE and link.child in graph.tables:
            question = f"values of rows that name the {subject.kind} by {link.name} and are not anonymised"
            if differs := _still_personal(graph, child, "c", link.anonymises):
                yield child.full_name, question, _counted(link, child, subject, differs)


def _own_question(graph: Graph, subject: Subject, cohort: Cohort) -> Iterator[tuple[str, str, Composable]]:
    table = graph.catalogue.tables[subject.table]
    own = cohort.verb(subject.when_anonymised if cohort.anonymising else subject.erase)
    keyed = subject.is_keyed_by(table, subject.key, subject.key)
    if own is Verb.DELETE:
        here = SQL(" AND ").join(SQL("s.{} = k.{}").format(Identifier(name), _key(subject, name)) for name in subject.key)
        joined = SQL("SELECT count(*) FROM {} s JOIN k ON {}").format(table.relation, here)
        yield table.full_name, f"rows of the {subject.kind}", _counted_by_key(table, subject, subject.key[0]) if keyed else joined
    elif own is Verb.ANONYMISE and (differs := _still_personal(graph, table)):
        # A template names columns without their table, so no second relation with such columns may be in reach of it.
        names = SQL(", ").join(_key(subject, name) for name in subject.key)
        mine = SQL(", ").join(Identifier("s", name) for name in subject.key)
        among = SQL("SELECT count(*) FROM {} s WHERE ({}) IN (SELECT {} FROM k) AND {}").format(table.relation, mine, names, differs)
        by_key = _counted_by_key(table, subject, subject.key[0], "s", differs) if keyed else among
        yield table.full_name, f"values of the {subject.kind} that are not anonymised", by_key


def _counted(link: Link, child: Table, subject: Subject, condition: Composable | None = None) -> Composable:
    if link.form is LinkForm.COLUMNS and not link.when and subject.is_keyed_by(child, link.columns, link.parent_columns):
        return _counted_by_key(child, subject, link.columns[0], "c", condition)
    also = SQL("") if condition is None else SQL(" AND {}").format(condition)
    joined = SQL("SELECT count(*) FROM {} c JOIN k ON {}{}{}")
    return joined.format(child.relation, _names(link, child, subject), also, _when(link, child))


def _counted_by_key(table: Table, subject: Subject, column: str, alias: str = "c", condition: Composable | None = None) -> Composable:
    """Count with the keys as an array: an index on the column will do, where a join would read the table."""
    query = SQL("SELECT count(*) FROM {} {} WHERE {} = ANY(%(k0)s::text[]::{}[])").format(
        table.relation, Identifier(alias), Identifier(alias, column), trusted(subject.key_types[0])
    )
    return query if condition is None else SQL("{} AND {}").format(query, condition)


def _still_personal(graph: Graph, table: Table, alias: str = "s", only: Sequence[str] = ()) -> Composable | None:
    """Condition that is true where some column of the row behind ``alias`` does not hold what its rule gives; None without a rule.

    One question a table and not one a column: each would read the same rows again.
    """
    node = graph.tables[table.oid]
    parts: list[Composable] = []
    for name, rule in node.anonymise.items():
        if only and name not in only:
            continue
        column = table.by_name[name]
        wanted = expressions.anonymised(rule, column)(Identifier(alias, name))
        form = SQL("{}::text IS DISTINCT FROM {}::text") if column.base_type in {"json", "xml", "point"} else _DISTINCT
        parts.append(form.format(Identifier(alias, name), wanted))
    return SQL("({})").format(SQL(" OR ").join(parts)) if parts else None


def _key(subject: Subject, column: str) -> Identifier:
    """Return the name under which ``k`` holds a column of the key: none that a column of the vendor's could have."""
    return Identifier(f"obhut_key_{subject.key.index(column)}")


def _listed(subject: Subject) -> Composable:
    arrays = SQL(", ").join(
        SQL("%(k{})s::text[]::{}[]").format(trusted(str(position)), trusted(kind)) for position, kind in enumerate(subject.key_types)
    )
    names = SQL(", ").join(_key(subject, name) for name in subject.key)
    return SQL("(SELECT * FROM unnest({}) AS u({}))").format(arrays, names)


def _names(link: Link, child: Table, subject: Subject) -> Composable:
    theirs = _key(subject, link.parent_columns[0])
    if link.form is LinkForm.ARRAY:
        return SQL("k.{} = ANY(c.{})").format(theirs, Identifier(link.columns[0]))
    if link.form is LinkForm.JSON:
        path = "$" + "".join("[*]" if step is None else '."' + step.replace('"', '\\"') + '"' for step in link.path)
        return SQL("k.{}::text IN (SELECT j #>> '{{}}' FROM jsonb_path_query(c.{}::jsonb, {}::jsonpath) j)").format(
            theirs, Identifier(link.columns[0]), Literal(path)
        )
    return SQL(" AND ").join(
        SQL("c.{}::text = k.{}::text" if child.by_name[mine].category == "S" else "c.{} = k.{}").format(
            Identifier(mine), _key(subject, their)
        )
        for mine, their in zip(link.columns, link.parent_columns, strict=True)
    )


def _when(link: Link, child: Table) -> Composable:
    conditions = [
        SQL("c.{} = {}::{}").format(Identifier(column), Literal(value), trusted(child.by_name[column].type)) for column, value in link.when
    ]
    return SQL(" WHERE {}").format(SQL(" AND ").join(conditions)) if conditions else SQL("")


def scan(session: Session, graph: Graph, values: Sequence[str]) -> Verification:
    """Search every text-like column of every table for the values, wherever they may have been copied to.

    Reads all tables from end to end: meant for a single erasure or a drill. Values shorter than four characters are left out, since they
    occur by chance.

    Args:
        session: on the protected database or on a restored one.
        graph: the data map resolved against that database.
        values: identifiers such as an e-mail address; sent as parameters, never part of a statement or of the answers.
    """
    patterns = ["%" + value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%" for value in values if len(value) > 3]
    answers: list[Answer] = []
    if not patterns:
        return Verification(())
    for table in graph.catalogue.tables.values():
        columns = [column for column in table.columns if column.category in _TEXTUAL]
        if table.kind == "p" or not columns:
            continue
        found = SQL(" OR ").join(SQL("{}::text ILIKE ANY(%(patterns)s)").format(Identifier(column.name)) for column in columns)
        query = SQL("SELECT count(*) FROM {} WHERE {}").format(table.relation, found)
        answers.append(Answer(table.full_name, "rows that hold an identifier of the person", session.value(query, {"patterns": patterns})))
    return Verification(tuple(answers))
