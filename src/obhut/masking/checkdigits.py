"""Check digits of numbers that invented values carry, so that an application's own validation lets them pass.

IBAN: ISO 13616 (mod 97). German tax identification number and VAT number: ISO 7064 MOD 11,10, the former with the rule that among its first
ten digits exactly one comes twice or three times (not thrice in a row). Card: Luhn.
"""

from __future__ import annotations


def iban(country: str, account: str) -> str:
    """Return an IBAN from country and account part (BBAN) with its two check digits."""
    digits = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
    return f"{country}{98 - int(digits) % 97:02d}{account}"


def valid_iban(number: str) -> bool:
    """Whether the check digits of an IBAN are right."""
    turned = number[4:] + number[:4]
    return turned.isalnum() and int("".join(str(int(sign, 36)) for sign in turned)) % 97 == 1


def mod_11_10(digits: str) -> int:
    """Return the check digit of ISO 7064 MOD 11,10."""
    product = 10
    for digit in digits:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10


def tax_number(number: int) -> str:
    """Return a German tax identification number made from any whole number.

    Nine different digits, one of them twice and not next to itself, the first one not zero.
    """
    pool = list(range(10))
    number, first = divmod(number, 9)
    digits = [pool.pop(first + 1)]
    for size in range(9, 1, -1):
        number, index = divmod(number, size)
        digits.append(pool.pop(index))
    number, place = divmod(number, 7)  # the tenth digit repeats one that stands at least two places before it
    digits.append(digits[place])
    text = "".join(map(str, digits))
    return text + str(mod_11_10(text))


def valid_tax_number(text: str) -> bool:
    """Whether a text is a German tax identification number."""
    if len(text) != 11 or not text.isdigit() or text[0] == "0":
        return False
    counts = sorted(text[:10].count(digit) for digit in set(text[:10]))
    once = counts[-1] == 2 and counts[:-1] == [1] * 8
    twice = counts[-1] == 3 and counts[:-1] == [1] * 7 and not any(digit * 3 in text[:10] for digit in "0123456789")
    return (once or twice) and int(text[10]) == mod_11_10(text[:10])


def vat_number(number: int) -> str:
    """Return a German VAT number: DE, eight digits of which the first is not zero, a check digit."""
    digits = str(10_000_000 + number % 90_000_000)
    return f"DE{digits}{mod_11_10(digits)}"


def luhn(digits: str) -> int:
    """Return the check digit that makes a card number valid."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return -total % 10
