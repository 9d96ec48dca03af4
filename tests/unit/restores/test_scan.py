"""Searching definitions for identifiers."""

from __future__ import annotations

import pytest

from obhut.restores import scan
from obhut.restores.scan import Place, TextIndex
from obhut.restores.schema import Section, cut


@pytest.mark.parametrize(
    ("definition", "value", "found"),
    [
        ("CREATE INDEX i ON t (a) WHERE email = 'Eva.Maus@example.org'", "eva.maus@example.org", True),
        ("COMMENT ON TABLE t IS 'ask Eva about it'", "eva", False),  # too short to be more than chance
        ("COMMENT ON TABLE t IS 'ask Evamaria about it'", "evamaria", True),
        ("COMMENT ON TABLE t IS 'the Evamarias'", "evamaria", False),
        ("CREATE TABLE default_things (a int DEFAULT 3)", "default", False),  # a word of the language, not of a person
        ('CREATE ROLE "anna.schmidt"', "anna.schmidt", True),
        ("CREATE FUNCTION f() AS $$ SELECT 'Paulchen' $$", "paulchen", True),
        ("CREATE VIEW v AS SELECT 'O''Malley'", "o'malley", True),
        ("ALTER TABLE t ADD CHECK (phone <> '+49301234567')", "+49301234567", True),
    ],
)
def test_a_value_counts_where_a_definition_says_it(definition, value, found):
    """Constants, comments, bodies and quoted names are searched, whatever their case; words of SQL are no finding."""
    assert (TextIndex([Place("thing", definition)]).find([value]) == {"thing"}) is found


def test_byte_search_finds_across_blocks_and_names_files_only(tmp_path, monkeypatch):
    """A pattern that lies across two blocks is found, and with either way of searching."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "one").write_bytes(b"x" * (scan._BLOCK - 3) + b"obhutcanary77" + b"y" * 10)
    (tmp_path / "d" / "two").write_bytes(b"nothing")
    assert list(scan.files_with(tmp_path / "d", [b"obhutcanary77"], tmp_path)) == ["one"]
    monkeypatch.setattr(scan.shutil, "which", lambda *_a, **_k: None)
    assert list(scan.files_with(tmp_path / "d", [b"obhutcanary77"], tmp_path)) == ["one"]
    assert not (tmp_path / "patterns").exists()


def test_entries_are_cut_at_their_headings():
    """Each heading of pg_dump begins an entry; commands for psql are left out."""
    text = (
        "\\restrict abc\n--\n-- Name: a; Type: TABLE; Schema: public; Owner: o\n--\n\nCREATE TABLE public.a (\n    id integer\n);\n\n\n"
        "--\n-- Name: a a_pkey; Type: CONSTRAINT; Schema: public; Owner: o\n--\n\nALTER TABLE ONLY public.a ADD PRIMARY KEY (id);\n\n\n"
        "--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n"
    )
    entries = cut(text, Section.PRE_DATA)
    assert [entry.name for entry in entries] == ["TABLE public.a", "CONSTRAINT public.a a_pkey"]
    assert entries[1].sql == "ALTER TABLE ONLY public.a ADD PRIMARY KEY (id);"
