"""The Pagila sample in an installation: customers and staff are people, the two stores are controllers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obhut.postgres.connections import Session
from support import samples
from support.installation import Installation, installed

STORES = {"1": "Store one", "2": "Store two"}
MAP = Path(__file__).parents[1] / "data" / "pagila.datamap.yaml"

# The table in which a test leaves a word before each restore target, to read it back afterwards.
STATUS = """
      public.status_word: {personal: false}
"""
# A synthetic customer with an address of its own: the token stands wherever it fits.
CANARY = """
    canary:
      subject: customer
      rows:
        - {table: public.address, values: {address: "{token}", address2: "{token}", district: none, postal_code: "00000", phone: "0", city_id: 1}}
        - {table: public.customer, values: {store_id: 1, first_name: "{token}", last_name: "{token}", email: "{token}@canary.invalid", address_id: "{public.address.address_id}"}}
"""


def map_text() -> str:
    """Return the data map with a recipe for canaries."""
    return MAP.read_text(encoding="utf-8").rstrip("\n") + STATUS + CANARY


def load(installation: Installation) -> None:
    """Load schema and data as their README says."""
    if not samples.present():
        raise AssertionError(f"the sample data is missing: {samples.absence(1)}")
    with Session.connect(installation.cluster.url()) as session:
        session.execute("CREATE ROLE postgres SUPERUSER LOGIN")
    installation.psql(samples.pagila() / "pagila-schema.sql")
    installation.psql(samples.pagila() / "pagila-data.sql")
    installation.sql("CREATE TABLE public.status_word (word text PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())")
    installation.sql("REFRESH MATERIALIZED VIEW public.nicer_but_slower_film_list")
    # In the sample nobody shares an address: 11 with 12; 13 with a member of staff; 14 with 15; 21 with 22.
    installation.sql(
        "UPDATE public.customer SET address_id = (SELECT address_id FROM public.customer WHERE customer_id = 11) WHERE customer_id = 12"
    )
    installation.sql(
        "UPDATE public.customer SET address_id = (SELECT address_id FROM public.staff WHERE staff_id = 1) WHERE customer_id = 13"
    )
    installation.sql(
        "UPDATE public.customer SET address_id = (SELECT address_id FROM public.customer WHERE customer_id = 14) WHERE customer_id = 15"
    )
    installation.sql(
        "UPDATE public.customer SET address_id = (SELECT address_id FROM public.customer WHERE customer_id = 21) WHERE customer_id = 22"
    )


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
    leaves = [
        name for (name,) in session.rows("SELECT relid::regclass::text FROM pg_partition_tree('public.payment') WHERE isleaf ORDER BY 1")
    ]
    gone.update({leaf: lines(session, f"SELECT * FROM {leaf} WHERE {payments}") for leaf in leaves})
    return {name: rows for name, rows in gone.items() if rows}


def anonymised(session: Session, customers: list[int]) -> dict[str, tuple[list[str], list[str]]]:
    """Return what becomes of rows of customers who are anonymised: by leaf table the rows as they are and as they must come out."""
    from support.oracle import lines

    keys = ", ".join(map(str, customers))
    session.set("search_path", "")
    people = f"FROM public.customer WHERE customer_id IN ({keys})"
    homes = (
        f"FROM public.address WHERE address_id IN (SELECT address_id {people})"
        f" AND address_id NOT IN (SELECT address_id FROM public.customer WHERE customer_id NOT IN ({keys}))"
    )
    changed_people = "SELECT customer_id, store_id, 'Anonymous', 'Customer ' || customer_id, NULL::text, address_id, activebool, create_date, last_update, active "
    changed_homes = "SELECT address_id, 'erased', NULL::text, 'erased', city_id, NULL::text, '0', last_update "
    return {
        "public.customer": (lines(session, f"SELECT * {people}"), lines(session, changed_people + people)),
        "public.address": (lines(session, f"SELECT * {homes}"), lines(session, changed_homes + homes)),
    }
