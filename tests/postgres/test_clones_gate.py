"""k and l of a copy, counted by the server and written down here by hand."""

from __future__ import annotations

from typing import Any

from obhut.clones.gate import figures
from obhut.datamap.check import examine
from obhut.datamap.load import loads
from obhut.datamap.surroundings import read_surroundings
from obhut.masking.plan import plan
from obhut.postgres.catalogue import read_catalogue

SCHEMA = """
CREATE TABLE school (id int PRIMARY KEY);
CREATE TABLE person (id int PRIMARY KEY, school_id int NOT NULL REFERENCES school, email text, born date, illness text);
INSERT INTO school VALUES (1), (2);
INSERT INTO person VALUES
  (1, 1, 'a@example.org', '1990-01-01', 'cold'), (2, 1, 'b@example.org', '1990-01-01', 'flu'), (3, 1, 'c@example.org', '1990-01-01', 'cold'),
  (4, 2, 'd@example.org', '1990-01-01', 'flu'), (5, 2, 'e@example.org', '1990-01-01', 'flu'),
  (6, 2, 'f@example.org', '1980-01-01', 'gout'), (7, 2, 'g@example.org', '1980-01-01', 'cold');
"""
MAP = """
obhut: 1
databases:
  copy:
    controller: {table: public.school}
    subjects: {person: {table: public.person, controller: {school_id: id}, identifiers: [email]}}
    tables:
      public.school: {personal: false}
      public.person:
        erase: delete
        columns:
          email: user.contact.email
          born: {category: user.demographic.date_of_birth, mask: {generalise: year}}
          illness: {category: user.health_and_medical, mask: {keep: measured below}}
        not_personal: [id, school_id]
"""


def test_classes_are_counted_inside_each_controller(database: Any) -> None:
    """1990 has five people in all, but two at the second school, both with the same illness: k is 2 and l is 1."""
    with database.session() as session:
        session.execute(SCHEMA)
        catalogue = read_catalogue(session)
        graph, _ = examine(loads(MAP), "copy", catalogue, read_surroundings(session))
        assert graph is not None
        masks = plan(graph, read_surroundings(session))
        assert figures(session, graph, catalogue, masks) == (2, 1)
        session.execute("UPDATE person SET illness = 'cold' WHERE id = 5")
        assert figures(session, graph, catalogue, masks) == (2, 2)
        session.execute("DELETE FROM person WHERE id = 4")
        assert figures(session, graph, catalogue, masks) == (1, 1)
        session.execute("DELETE FROM person")
        assert figures(session, graph, catalogue, masks) == (None, None), "an empty copy has no classes to measure"
