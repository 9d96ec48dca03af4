"""The deletion concept as a document."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from obhut.datamap.load import loads
from obhut.foundation.language import Language, speaking
from obhut.retention.concept import Concept, _deletions, classes, render
from obhut.retention.rules import Rule

MAP = """
obhut: 1
databases:
  d:
    controller: {table: public.shop}
    subjects:
      customer: {table: public.customer, controller: {shop_id: id}, activity: [seen_at, {table: public.bill, column: at}]}
      driver: {table: public.driver, controller: {shop_id: id}}
    tables:
      public.shop: {personal: false}
      public.customer: {erase: delete, columns: {email: user.contact.email}}
      public.driver: {erase: delete, columns: {name: user.name}}
      public.bill: {erase: {keep: § 147 AO, for: P9Y}, columns: {recipient: user.name}, links: [{to: public.customer}]}
      public.visit: {erase: delete, columns: {ip: user.device.ip_address}, links: [{to: public.customer}], retain: {for: P90D, after: at, ground: safety}}
"""
RULE = Rule("ret_1", "d", "ctl_1", '["1"]', "customer", "ins_1", "P2Y", "P30D", "P14D", "Europe/Berlin", 100, 0.2, None, None, None)


def _concept() -> Concept:
    rules = loads(MAP).database("d")
    return Concept(
        "d", datetime(2026, 11, 23, tzinfo=UTC), "a" * 64, tuple(rules.subjects.items()), tuple(_deletions(rules)),
        (("Shop | North", RULE),), ("Shop South",), 2, timedelta(days=35), "",
    )  # fmt: skip


def test_classes_gather_what_begins_and_ends_alike():
    """Rules with the same starting point and period are one class; each personal table is in one at least."""
    found = classes(_concept().deletions)
    assert {start_and_period: {rule.table for rule in members} for start_and_period, members in found.items()} == {
        ("the person is erased or anonymised", ""): {"public.customer", "public.driver", "public.visit"},
        ("the person is erased or anonymised", "P9Y"): {"public.bill"},
        ("an event, whoever the row is about", "P90D"): {"public.visit"},
    }


def test_the_document_says_what_is_ruled_and_what_is_not():
    """Periods with grounds, the rule of a controller, the end of the backups; and what nobody has decided."""
    page = render(_concept())
    assert "| public.bill | user.name | – | delete | § 147 AO |" in page
    assert "| public.visit | user.device.ip_address | at | delete | safety |" in page
    assert "| Shop \\| North | customer | P2Y | P30D | P14D | Europe/Berlin | ins_1 |" in page
    assert "seen_at, public.bill.at" in page and "gone after 35 days" in page
    left = page.partition("## 6")[2]
    assert "Shop South" in left and "a driver" in left and "customer" not in left


def test_the_german_document_has_no_english_sentence():
    """Every sentence of the document is in the catalogue."""
    english = render(_concept())
    with speaking(Language.GERMAN):
        german = render(_concept())
    prose = {line for line in english.splitlines() if line and not line.startswith("|")}
    assert not prose & set(german.splitlines())
    assert "## 3 Löschklassen und Löschregeln" in german
