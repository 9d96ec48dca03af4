"""What a personal column becomes when the map only says what it is: by category first, by type where the category says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from obhut.datamap.conflicts import SECRETS
from obhut.datamap.kinds import Kind
from obhut.datamap.transformers import CATALOGUE, Family, Uniqueness
from obhut.postgres.catalogue import Column

Choice = tuple[str, Mapping[str, Any]]

# The longest prefix of a category wins. Several: the first that fits the column's type.
_BY_CATEGORY: Mapping[str, tuple[Choice, ...]] = {
    "user.contact.email": (("email", {}),),
    "user.contact.phone_number": (("phone", {}),),
    "user.contact.fax_number": (("phone", {}),),
    "user.contact.address.street": (("street", {}),),
    "user.contact.address.postal_code": (("postcode", {}),),
    "user.contact.address.city": (("city", {}),),
    "user.contact.address.state": (("sample", {}),),
    "user.contact.address.country": (("sample", {}),),
    "user.contact.address": (("address", {}),),
    "user.contact.url": (("url", {}),),
    "user.contact.organization": (("company", {}),),
    "user.name.first": (("first_name", {}),),
    "user.name.last": (("last_name", {}),),
    "user.name": (("name", {}),),
    "user.account.username": (("username", {}),),
    "user.demographic.date_of_birth": (("generalise", {"unit": "year"}),),
    "user.demographic": (("sample", {}),),
    "user.financial.bank_account": (("iban", {}),),
    "user.financial.credit_card": (("card", {}),),
    "user.government_id.national_identification_number": (("tax_number", {}),),
    "user.government_id": (("scramble", {}),),
    "user.device.ip_address": (("ip", {}),),
    "user.device": (("user_agent", {}),),
    "user.content.self_image": (("url", {}),),
    "user.job_title": (("sample", {}),),
    "user.unique_id": (("scramble", {}),),
}
_BY_FAMILY: Mapping[Family, tuple[Choice, ...]] = {
    Family.TEXT: (("text", {}),),
    Family.INTEGER: (("noise", {}),),
    Family.NUMBER: (("noise", {}),),
    Family.DATE: (("shift", {}),),
    Family.BOOLEAN: (("sample", {}),),
    Family.ENUM: (("sample", {}),),
    Family.UUID: (("uuid", {}),),
    Family.ADDRESS: (("ip", {}),),
    Family.JSON: (("json", {}),),
    Family.BYTES: (("bytes", {}),),
}
_APART: Mapping[Family, Choice] = {Family.TEXT: ("scramble", {}), Family.INTEGER: ("rekey", {}), Family.UUID: ("uuid", {})}


def choose(category: str, column: Column, kind: Kind, *, unique: bool) -> Choice:
    """Return transformer and options for a personal column.

    Args:
        category: of the data map.
        column: from the catalogue.
        kind: of its values.
        unique: whether it stands in a unique index, so that values must stay apart.
    """
    if category.startswith(SECRETS):
        return _secret(column, kind, unique=unique)
    for name, options in _candidates(category, kind):
        transformer = CATALOGUE[name]
        fits = kind.family in transformer.families and (kind.limit is None or transformer.width <= kind.limit)
        if fits and (not unique or transformer.uniqueness is Uniqueness.PRESERVED):
            return name, options
    if unique and kind.family in _APART:
        return _APART[kind.family]
    return ("null", {})


def _candidates(category: str, kind: Kind) -> Iterator[Choice]:
    steps = category.split(".")
    for length in range(len(steps), 0, -1):
        yield from _BY_CATEGORY.get(".".join(steps[:length]), ())
    yield from _BY_FAMILY.get(kind.family, ())


def _secret(column: Column, kind: Kind, *, unique: bool) -> Choice:
    """Secrets go; where a value must stand, it is one that nobody can use."""
    if not column.not_null:
        return ("null", {})
    if kind.family in {Family.TEXT, Family.UUID} and not kind.array and (kind.limit is None or kind.limit >= 16):
        return ("token", {})
    if not unique and kind.family in CATALOGUE["empty"].families:
        return ("empty", {})
    return ("default" if column.default is not None else "null", {})
