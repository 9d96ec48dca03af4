"""k and l of a copy, counted by the server and written down here by hand."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from obhut.clones import sampling
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


MANY = """
INSERT INTO school SELECT generate_series(1, 2);
INSERT INTO person SELECT n, 1 + n % 2, 'p' || n || '@example.org', date '1950-01-01' + (n * 37) % 18000, (ARRAY['cold', 'flu', 'gout'])[1 + n % 3]
FROM generate_series(1, 3000) n;
ALTER TABLE person ADD card jsonb;
UPDATE person SET card = jsonb_build_object('no', id, 'shoe', 40 + (id * 7) % 5);
"""
GENERALISED = MAP.replace("generalise: year", "generalise: decade").replace(
    "not_personal", "  card: {category: user.unique_id, mask: {json: {'$.no': redact, '$.shoe': {keep: sizes}}}}\n        not_personal"
)


@pytest.mark.parametrize(("born", "told"), [("generalise: decade", False), ("keep: nobody asked", True)])
def test_attacks_tell_classes_from_kept_values(database: Any, born: str, told: bool) -> None:
    """Decades, illnesses and a shoe size in a document are shared by hundreds; exact dates beside them single out, and link."""
    with database.session() as session:
        session.execute(SCHEMA.split("INSERT", maxsplit=1)[0])
        session.execute(MANY)
        catalogue = read_catalogue(session)
        rules = GENERALISED.replace("generalise: decade", born)
        graph, findings = examine(loads(rules), "copy", catalogue, read_surroundings(session))
        assert graph is not None, findings
        masks = plan(graph, read_surroundings(session))
        masks.require()
        with session.transaction("repeatable read", read_only=True):
            (left,) = sampling.attributes(masks).values()
            assert {one.name for one in left} == {"born", "illness", "card$.shoe"}
            found = sampling.measure(session, masks, catalogue, random=Random(1))
        single = found["singling_out"]
        assert (single.upper is not None and single.upper > 0.5) is told, found
        assert bool(single.not_applicable) is not told
        linked = found["linkability"].upper
        assert linked is not None and (linked > 0.1) is told, found
