"""What the search in the copy may leave out: only what is proved to have passed."""

from __future__ import annotations

from typing import Any

from obhut.clones import passing
from obhut.clones.originals import Originals
from obhut.datamap.check import examine
from obhut.datamap.load import loads
from obhut.datamap.surroundings import read_surroundings
from obhut.erasure.addresses import RowAddresses
from obhut.masking.plan import plan
from obhut.postgres.catalogue import read_catalogue
from obhut.restores import streams
from obhut.restores.filter import Filter, TableFilter

SCHEMA = """
CREATE TYPE mood AS (word text);
CREATE DOMAIN address AS text;
CREATE TABLE school (id int PRIMARY KEY, name text, code uuid, door inet, picture bytea, moods mood[], card jsonb, words text[],
  told text GENERATED ALWAYS AS (name || '!') STORED, due date);
CREATE TABLE person (id int PRIMARY KEY, school_id int NOT NULL REFERENCES school, email address, name text, notes jsonb, token uuid);
"""
MAP = """
obhut: 1
databases:
  copy:
    controller: {table: public.school}
    subjects: {person: {table: public.person, controller: {school_id: id}, identifiers: [email]}}
    tables:
      public.school: {personal: false, not_personal: "*"}
      public.person:
        erase: delete
        rekey: false
        columns: {email: user.contact.email, name: user.name, notes: {category: user.unique_id, mask: {json: {'$.no': redact}}}}
        not_personal: [id, school_id, token]
"""
INVENTED = ("email", "name", "notes")


def test_only_rows_that_passed_are_proved(database: Any) -> None:
    """A row that was changed, added or taken away after its part was loaded leaves the whole table to the search in the copy."""
    with database.session() as session:
        session.execute("CREATE TABLE t (id int, word text)")
        streams.prepare_records(session)
        for part, first in (("public.t#0", 1), ("public.t#1", 101)):
            with session.transaction():
                session.execute("INSERT INTO t SELECT n, 'x' FROM generate_series(%s::int, %s::int) n", (first, first + 99))
                streams.record(session, part, 100)
        table = next(one for one in read_catalogue(session).tables.values() if one.name == "t")

        def proved(*parts: str) -> int | None:
            return passing.proved(session, table, passing.writers(session), parts)

        both = ("public.t#0", "public.t#1")
        assert proved(*both) == 200
        assert proved("public.t#0") is None and proved(*both, "public.t#2") is None and proved() is None
        for change in ("UPDATE t SET word = 'y' WHERE id = 5", "INSERT INTO t VALUES (999, 'z')", "DELETE FROM t WHERE id = 107"):
            session.execute("BEGIN")
            session.execute(change)
            assert proved(*both) is None, change
            session.execute("ROLLBACK")
        session.execute("VACUUM (FREEZE) t")
        assert proved(*both) == 200


def test_what_the_stream_does_not_tell_is_searched_in_the_copy(database: Any) -> None:
    """Computed columns, bytes and types of others always are; identifiers of other shapes keep all that passes in binary for the copy."""
    with database.session() as session:
        session.execute(SCHEMA)
        catalogue = read_catalogue(session)
        graph, findings = examine(loads(MAP), "copy", catalogue, read_surroundings(session))
        assert graph is not None, findings
        masks = plan(graph, read_surroundings(session))
    oids = {mask.name.removeprefix("public."): oid for oid, mask in masks.tables.items()}

    def chosen(*identifiers: str, rows: Filter | None = None) -> dict[str, passing.Looking]:
        found = Originals(invented={f"public.person.{name}": masks.tables[oids["person"]].column(name) for name in INVENTED})
        found.identifiers.add(identifiers)
        looking = passing.tables(catalogue, masks, rows or Filter(), found)
        return {name: looking[oid] for name, oid in oids.items()}

    plain = chosen("anna@firma.de")
    assert plain["school"].binary and plain["school"].columns == {"name", "code", "door", "card", "words"}
    assert not plain["person"].binary and plain["person"].columns == {"email", "name", "token"}, "documents are compared path by path"
    assert plain["person"].values == {"email", "name"}
    assert chosen("anna@firma.de", "493012345678")["school"].columns == {"name", "card", "words"}, "a uuid may spell a number"
    assert chosen("anna schmidt")["school"].columns == frozenset() and "name" in chosen("anna schmidt")["person"].columns
    assert "card" not in chosen('x"y')["school"].columns
    left_out = Filter({oids["person"]: TableFilter(RowAddresses([1 << 16 | 1]))})
    with database.session() as session:
        session.execute("CREATE MATERIALIZED VIEW shown AS SELECT name FROM person")
        catalogue = read_catalogue(session)
    assert chosen("anna@firma.de")["person"].values == {"email"}, "a view is judged by the values that it may repeat"
    assert chosen("anna@firma.de", rows=left_out)["person"].values == frozenset(), "values of rows that stay behind are looked for, too"
