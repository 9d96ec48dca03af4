"""Materialised views: an erasure is done only when no view shows the person any more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.clinic import installed_clinic
from support.commands import KILLED
from support.installation import Installation

VIEWS = """
CREATE VIEW written AS SELECT l.id, p.email FROM letter l JOIN patient p ON p.id = l.sender_id;
CREATE MATERIALIZED VIEW writers AS SELECT email, count(*) AS letters FROM written GROUP BY 1;
CREATE UNIQUE INDEX ON writers (email);
CREATE MATERIALIZED VIEW most AS SELECT email FROM writers;
CREATE MATERIALIZED VIEW never AS SELECT email FROM patient WITH NO DATA;
CREATE MATERIALIZED VIEW prices AS SELECT *, random() AS filled FROM price;
CREATE MATERIALIZED VIEW billed AS SELECT patient_id FROM invoice
"""


@pytest.fixture
def clinic() -> Iterator[Installation]:
    """Give an installation with views of every kind."""
    with installed_clinic() as made:
        with made.session() as session:
            for statement in VIEWS.split(";\n"):
                session.execute(statement)
        yield made


def _shown(clinic: Installation, patient: int) -> list[str]:
    """Return the views that show a patient."""
    asked = dict.fromkeys(("writers", "most"), f"email = 'secret{patient}@mail.invalid'")
    asked |= dict.fromkeys(("busy", "billed"), f"patient_id = {patient}")
    with clinic.session() as session:
        return [name for name, where in asked.items() if session.value(f"SELECT count(*) FROM {name} WHERE {where}")]


def test_views_forget_with_the_tables(clinic: Installation) -> None:
    """Views over views and partitions show the erased person no more; one that was never filled, or reads nobody, is left alone."""
    filled = clinic.value("SELECT sum(filled) FROM prices")
    assert set(_shown(clinic, 5)) == {"writers", "most", "busy", "billed"}
    clinic.erase("patient", 5)
    assert _shown(clinic, 5) == ["billed"]  # the invoice itself is kept
    assert clinic.value("SELECT relispopulated FROM pg_class WHERE relname = 'never'") is False
    assert clinic.value("SELECT sum(filled) FROM prices") == filled
    assert set(_shown(clinic, 7)) >= {"writers", "most"}


def test_a_killed_erasure_is_not_done_until_the_views_are(clinic: Installation) -> None:
    """Killed between the commit and the refresh, the erasure is still recorded, and finishing it refreshes the views."""
    clinic.obhut.killed_at("erase.committed", "erase", "clinic", "patient", 11)
    assert clinic.value("SELECT count(*) FROM patient WHERE id = 11") == 0
    assert "most" in _shown(clinic, 11)
    assert clinic.obhut("erase", "clinic", "--finish")["finished"] == 1
    assert _shown(clinic, 11) == ["billed"]


def test_a_view_of_somebody_else_keeps_the_erasure_open(clinic: Installation) -> None:
    """A view that the role may not refresh is named; the erasure stays recorded until somebody lets it."""
    with clinic.session() as session:
        session.execute("CREATE ROLE eraser LOGIN BYPASSRLS")
        session.execute("GRANT pg_read_all_data, pg_write_all_data TO eraser")
    settings = clinic.folder / "obhut.toml"
    superuser = clinic.url
    with clinic.session() as session:
        me = session.value("SELECT current_user")
    settings.write_text(settings.read_text().replace(superuser, clinic.cluster.url(clinic.name, "eraser")), encoding="utf-8")
    refused = clinic.obhut.refused("erase", "clinic", "patient", 17, code="erasure-views-stale", status=5)
    assert "public.writers" in refused.said and "public.prices" not in refused.said
    assert [one["state"] for one in clinic.obhut("erasures", "list", "clinic")] == ["recorded"]
    with clinic.session() as session:
        session.execute(f'GRANT "{me}" TO eraser')
    clinic.obhut("erase", "clinic", "--finish")
    assert [one["state"] for one in clinic.obhut("erasures", "list", "clinic")] == ["effective"]
    assert _shown(clinic, 17) == ["billed"]


def test_kept_rows_leave_the_views_when_their_period_is_over(clinic: Installation) -> None:
    """An invoice whose nine years are over leaves its view, also when the process was killed just after the rows went."""
    clinic.erase("patient", 5, 23)
    clinic.sql("INSERT INTO invoice SELECT 'S' || id, id, 'x', 1 FROM patient WHERE id = 1")
    late = {"OBHUT_CLOCK_OFFSET": "P10Y"}
    assert clinic.obhut.run("erase", "clinic", "--kept", env={**late, "OBHUT_DIE_AT": "erase.committed"}).status == KILLED
    assert clinic.value("SELECT count(*) FROM invoice WHERE patient_id IN (5, 23)") == 0
    assert _shown(clinic, 5) == ["billed"]
    clinic.obhut("erase", "clinic", "--kept", env=late)
    assert (_shown(clinic, 5), _shown(clinic, 1)[-1:]) == ([], ["billed"])
    filled = clinic.value("SELECT relfilenode FROM pg_class WHERE relname = 'billed'")
    clinic.obhut("erase", "clinic", "--kept", env=late)
    assert clinic.value("SELECT relfilenode FROM pg_class WHERE relname = 'billed'") == filled  # nothing went, nothing is refreshed
