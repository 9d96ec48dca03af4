"""The Pagila sample in an installation: customers and staff are people, the two stores are controllers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import samples
from support.installation import Installation, installed

from obhut.postgres.connections import Session

STORES = {"1": "Store one", "2": "Store two"}
MAP = Path(__file__).parents[1] / "data" / "pagila.datamap.yaml"

# A synthetic customer with an address, a rental and a payment of its own: the token stands in every personal column that takes text.
CANARY = """
    canary:
      subject: customer
      rows:
        - {table: public.address, values: {address: "{token}", address2: "{token}", district: "{token}", postal_code: "00000", phone: "{token}", city_id: 1}}
        - {table: public.customer, values: {store_id: 1, first_name: "{token}", last_name: "{token}", email: "{token}@canary.invalid", address_id: "{public.address.address_id}"}}
"""


def map_text() -> str:
    """Return the data map with a recipe for canaries."""
    return MAP.read_text(encoding="utf-8").rstrip("\n") + CANARY


def load(installation: Installation) -> None:
    """Load schema and data as their README says."""
    if not samples.present():
        raise AssertionError(f"the sample data is missing: {samples.absence(1)}")
    with Session.connect(installation.cluster.url()) as session:
        session.execute("CREATE ROLE postgres SUPERUSER LOGIN")
    installation.psql(samples.pagila() / "pagila-schema.sql")
    installation.psql(samples.pagila() / "pagila-data.sql")


@contextmanager
def installed_pagila(major: int = 18) -> Iterator[Installation]:
    """Give an installation with Pagila in it and both stores registered."""
    with installed("pagila", map_text=map_text(), major=major) as installation:
        load(installation)
        installation.register(STORES)
        yield installation


# What an erasure of customers has to take away, computed here by hand and not by Obhut: their rentals, every payment of theirs or of
# one of their rentals, and the addresses that nobody else uses: no other customer, no member of staff, no store.
def gone_with(session: Session, customers: list[int]) -> dict[str, list[str]]:
    """Return the rows, in COPY's text form by leaf table, that go with customers who are erased."""
    from support.oracle import lines

    keys = ", ".join(map(str, customers))
    payments = f"customer_id IN ({keys}) OR rental_id IN (SELECT rental_id FROM public.rental WHERE customer_id IN ({keys}))"
    orphaned = (
        f"address_id IN (SELECT address_id FROM public.customer WHERE customer_id IN ({keys}))"
        f" AND address_id NOT IN (SELECT address_id FROM public.customer WHERE customer_id NOT IN ({keys}))"
        " AND address_id NOT IN (SELECT address_id FROM public.staff) AND address_id NOT IN (SELECT address_id FROM public.store)"
    )
    session.set("search_path", "")
    gone = {
        "public.customer": lines(session, f"SELECT * FROM public.customer WHERE customer_id IN ({keys})"),
        "public.rental": lines(session, f"SELECT * FROM public.rental WHERE customer_id IN ({keys})"),
        "public.address": lines(session, f"SELECT * FROM public.address WHERE {orphaned}"),
    }
    leaves = [name for (name,) in session.rows("SELECT relid::regclass::text FROM pg_partition_tree('public.payment') WHERE isleaf ORDER BY 1")]
    gone.update({leaf: lines(session, f"SELECT * FROM {leaf} WHERE {payments}") for leaf in leaves})
    return {name: rows for name, rows in gone.items() if rows}
