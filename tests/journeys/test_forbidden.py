"""An erasure that production refuses for ever: the refusal says so, in production and in a restore, and names the way out."""

from __future__ import annotations

from support.clinic import installed_clinic

NOTES = """
CREATE TABLE note (id int PRIMARY KEY, about bigint REFERENCES patient ON DELETE CASCADE, author bigint NOT NULL REFERENCES patient);
INSERT INTO note VALUES (1, 9, 5)
"""
RULE = """\
      public.note:
        erase: delete
        links: [{to: public.patient, columns: {about: id}}]
        not_personal: [id, author]
"""


def test_an_erasure_that_a_foreign_key_forbids() -> None:
    """A note of patient 5 about another stays and forbids to delete 5: erase, finish and restore say it alike until the tombstone is lifted."""
    with installed_clinic() as clinic:
        clinic.sql(NOTES)
        clinic.map.write_text(clinic.map.read_text().replace("      public.clinic: {", RULE + "      public.clinic: {"), encoding="utf-8")
        clinic.obhut("canary", "plant", "clinic")
        clinic.backup()
        clinic.flush()
        point = clinic.position()
        clinic.commit_something()
        refused = clinic.obhut.refused("erase", "clinic", "patient", 5, code="erasure-forbidden", status=3)
        assert "obhut erasures lift" in refused.said and "note_author_fkey" in refused.said
        clinic.flush()
        clinic.obhut.refused("erase", "clinic", "--finish", code="erasure-forbidden", status=3)
        refused = clinic.obhut.refused("restore", "run", "clinic", "--to", point, code="erasure-forbidden", status=3)
        assert "obhut erasures lift" in refused.said and "note_author_fkey" in refused.said
        (run,) = [one["run"] for one in clinic.obhut("restore", "list", "clinic")]
        clinic.obhut("restore", "abandon", run)
        tombstone = clinic.obhut("erasures", "list", "clinic", "--state", "recorded")[0]["id"]  # the next one is the canary's
        clinic.obhut("erasures", "lift", tombstone, "--instruction", clinic.instruct("1", ["erase"]))
        restored = clinic.obhut("restore", "run", "clinic", "--to", point)
        assert restored["holds"]
        clinic.obhut("restore", "abandon", restored["run"])
