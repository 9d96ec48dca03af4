"""Words that give personal data away: column names in English and German, and Fideslang's categories.

A name is a hint, never a proof: :class:`Guess` says how strong it is, and only a person decides.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from fideslang.default_taxonomy import DEFAULT_TAXONOMY


@dataclass(frozen=True, slots=True)
class Guess:
    """A category for a column; ``strong`` when the name alone hardly means anything else."""

    category: str
    strong: bool
    reason: str


# Category, strong or weak, and words of a name (joined by underscores where the word is compound). Longer words win.
_STRONG: Final = {
    "user.contact.email": "email e_mail mail_address email_address emailadresse mailadresse e_mail_adresse",
    "user.contact.phone_number": (
        "phone telephone mobile_number phone_number cellphone telefon telefonnummer handy handynummer mobilnummer tel"
    ),
    "user.contact.fax_number": "fax fax_number faxnummer telefax",
    "user.name.first": "first_name firstname given_name forename vorname rufname",
    "user.name.last": "last_name lastname surname family_name nachname familienname geburtsname maiden_name",
    "user.name": (
        "full_name fullname display_name middle_name contact_name person_name customer_name ansprechpartner initials kontaktname nickname"
    ),
    "user.account.username": "username user_name login_name benutzername anmeldename",
    "user.authorization.password": "password passwort password_hash pass_hash password_digest kennwort passwd encrypted_password",
    "user.authorization.credentials": (
        "api_key access_token refresh_token secret_token reset_token session_token auth_token totp_secret otp_secret"
    ),
    "user.contact.address.street": (
        "street street_address strasse straße hausnummer house_number address1 address_line1 address_line_1 address2 anschrift"
    ),
    "user.contact.address.postal_code": "postal_code postcode zip_code zipcode plz postleitzahl",
    "user.demographic.date_of_birth": ("birth_date birthdate date_of_birth birthday dob geburtsdatum geburtstag geboren_am born_on"),
    "user.demographic.gender": "gender geschlecht salutation anrede",
    "user.demographic.marital_status": "marital_status familienstand",
    "user.demographic.religious_belief": "religion konfession",
    "user.demographic.race_ethnicity": "ethnicity nationality staatsangehoerigkeit staatsangehörigkeit",
    "user.financial.bank_account": "iban bank_account account_number kontonummer kontoinhaber account_holder bankverbindung",
    "user.financial.credit_card": "credit_card card_number kreditkarte kartennummer",
    "user.government_id.national_identification_number": (
        "ssn tax_id steuer_id steuernummer steuer_identifikationsnummer social_security_number "
        "sozialversicherungsnummer national_id personalausweis ausweisnummer id_card_number"
    ),
    "user.government_id.passport_number": "passport passport_number reisepass reisepassnummer",
    "user.government_id.drivers_license_number": "drivers_license driving_licence fuehrerschein führerschein",
    "user.government_id.vehicle_registration": "licence_plate license_plate kennzeichen",
    "user.health_and_medical": (
        "diagnosis diagnose allergies allergien medication medikation blood_type blutgruppe krankheit anamnese disability"
    ),
    "user.health_and_medical.insurance_beneficiary_id": "health_insurance_number krankenversichertennummer versichertennummer",
    "user.device.ip_address": ("ip ip_address ipaddress ip_adresse remote_addr client_ip last_ip current_sign_in_ip last_sign_in_ip"),
    "user.device": "user_agent device_id device_name fingerprint",
    "user.content.self_image": "avatar photo profile_picture picture portrait foto bild_url avatar_url",
}
_WEAK: Final = {
    "user.name": "name contact author recipient sender guest kontakt empfaenger empfänger absender teilnehmer",
    "user.contact.email": "mail recipient_email to_address from_address",
    "user.contact.phone_number": "mobile mobil cell",
    "user.contact.address": "address adresse billing_address shipping_address lieferadresse rechnungsadresse",
    "user.contact.address.city": "city town ort wohnort stadt district",
    "user.contact.address.state": "state region bundesland province",
    "user.contact.address.country": "country land",
    "user.contact.url": "website homepage webseite",
    "user.contact.organization": "company employer firma arbeitgeber organisation organization",
    "user.job_title": "job_title position beruf berufsbezeichnung occupation",
    "user.location": "latitude longitude lat lng lon geo location coordinates standort position",
    "user.content": "note notes notiz notizen comment comments kommentar bemerkung bemerkungen message body nachricht feedback remarks text"
    " freitext description beschreibung anmerkung subject",
    "user.demographic": "age alter",
    "user.demographic.language": "locale",
    "user.behavior": "last_login last_login_at last_seen_at letzte_anmeldung login_count",
    "user.unique_id": "user_id customer_id kundennummer customer_number mitgliedsnummer member_number patient_id external_id",
    "user.payment": "amount betrag payment_method zahlungsart",
    "user": "profile preferences settings payload data extra attributes metadata details einstellungen",
}
# Names that look personal and say nothing about a person, by themselves.
_HARMLESS: Final = frozenset(
    """
    id created_at updated_at created updated last_update deleted_at version sort_order position_number is_active active status
    state_code type kind price title slug sku currency quantity capacity starts_at ends_at angelegt_am geaendert_am erstellt_am
    aktiv preis titel waehrung menge
    """.split()  # noqa: SIM905 - a list of words reads as words
)
SUBJECT_WORDS: Final = frozenset(
    """
    user users customer customers person persons people member members patient patients employee employees staff contact contacts
    account accounts client clients student students participant participants subscriber subscribers guest guests applicant
    applicants lead leads benutzer nutzer kunde kunden person personen mitglied mitglieder patient patienten mitarbeiter
    mitarbeiterin teilnehmer schueler schüler gast gaeste gäste bewerber kontakt kontakte versicherte
    """.split()  # noqa: SIM905 - a list of words reads as words
)
CONTROLLER_WORDS: Final = frozenset(
    """
    controller controllers tenant tenants organisation organisations organization organizations company companies workspace
    workspaces team client store stores shop shops school schools clinic clinics mandant mandanten firma firmen organisation
    organisationen praxis praxen kunde schule schulen verein vereine anbieter
    """.split()  # noqa: SIM905 - a list of words reads as words
)
EVENT_WORDS: Final = frozenset(
    """
    log logs audit event events history historie protokoll verlauf
    """.split()  # noqa: SIM905 - a list of words reads as words
)
CREATED_NAMES: Final = (
    "created_at",
    "create_date",
    "created",
    "created_on",
    "registered_at",
    "signup_at",
    "angelegt_am",
    "erstellt_am",
    "registriert_am",
    "date_joined",
)
ACTIVITY_NAMES: Final = (
    "last_login_at",
    "last_login",
    "last_seen_at",
    "last_activity_at",
    "last_active_at",
    "letzte_anmeldung",
    "letzter_login",
    "zuletzt_aktiv",
)
# Last words of names that state a fact about something else: email_verified, phone_count.
_ABOUT: Final = {"id", "count", "type", "status", "enabled", "verified", "at", "sent", "anzahl"}
_IDENTIFYING: Final = ("user.contact", "user.name", "user.government_id", "user.account.username", "user.financial", "user.biometric")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def words(name: str) -> list[str]:
    """Return the words of a name written in snake_case, camelCase or with dashes."""
    return [word for word in re.split(r"[^0-9a-zäöüß]+", _CAMEL.sub("_", name).lower()) if word]


@cache
def _lexicon() -> dict[tuple[str, ...], tuple[str, bool]]:
    found: dict[tuple[str, ...], tuple[str, bool]] = {}
    for strong, table in ((True, _STRONG), (False, _WEAK)):
        for category, names in table.items():
            for name in names.split():
                found.setdefault(tuple(name.split("_")), (category, strong))
    return found


@cache
def guess(name: str) -> Guess | None:
    """Return the category that a column's name suggests, or None."""
    parts = words(name)
    if "_".join(parts) in _HARMLESS or not parts:
        return None
    if len(parts) > 1 and parts[-1] in _ABOUT and tuple(parts) not in _lexicon():
        return None  # email_verified and phone_count are facts about a column, not its content
    lexicon = _lexicon()
    for length in range(min(4, len(parts)), 0, -1):
        for start in range(len(parts) - length, -1, -1):
            found = lexicon.get(tuple(parts[start : start + length]))
            if found:
                # A strong word may stand anywhere (billing_email); a weak one must be the whole name or its end.
                if not found[1] and start + length != len(parts):
                    continue
                return Guess(found[0], found[1], f"its name holds {'_'.join(parts[start : start + length])}")
    return None


@cache
def categories() -> frozenset[str]:
    """Return the keys of the installed taxonomy's data categories."""
    return frozenset(str(category.fides_key) for category in DEFAULT_TAXONOMY.data_category)


def nearest(category: str) -> list[str]:
    """Return the categories that a misspelt one probably meant."""
    known = sorted(categories())
    close = difflib.get_close_matches(category, known, n=3, cutoff=0.6)
    last = category.rsplit(".", 1)[-1]
    return close or [key for key in known if key.rsplit(".", 1)[-1] == last] or [key for key in known if last in key][:3]


def identifies(category: str) -> bool:
    """Whether values of the category name a person outside the database: an e-mail address, a name, a number of the state."""
    return category.startswith(_IDENTIFYING)


def harmless(name: str) -> bool:
    """Whether a name says that the column is about a thing: ``status``, ``price``, ``created_at``."""
    return "_".join(words(name)) in _HARMLESS
