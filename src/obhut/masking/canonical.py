"""One form for values that mean the same, before they are keyed: else one address written twice becomes two.

Each takes and returns cells of a COPY stream; only equality of the results matters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from obhut.masking.fields import unescape

Cells = Sequence[bytes]
_SPACES = re.compile(r"\s+")
_PREFIXES = {"DE": b"49", "AT": b"43", "GB": b"44", "US": b"1", "FR": b"33", "CH": b"41"}


def text(cells: Cells) -> Cells:
    """Unicode form NFKC, case folded, white space single and not at the ends."""
    joined = b"\n".join(cells)
    if joined.isascii() and b"\\" not in joined:
        return [b" ".join(cell.split()) for cell in joined.lower().split(b"\n")]
    return [_folded(cell) for cell in cells]


def _folded(cell: bytes) -> bytes:
    folded = unicodedata.normalize("NFKC", unescape(cell).decode("utf-8", "surrogateescape")).casefold()
    return _SPACES.sub(" ", folded).strip().encode("utf-8", "surrogateescape")


def compact(cells: Cells) -> Cells:
    """Letters and digits only, in lower case: IBAN, tax number, UUID, card."""
    return [cell.translate(None, b" -./{}\\").lower() for cell in cells]


def phone(country: str) -> Callable[[Cells], Cells]:
    """Return the E.164 form without its plus sign; a number without a country's prefix belongs to ``country``."""
    prefix = _PREFIXES.get(country, b"49")

    def canonical(cells: Cells) -> Cells:
        bare = b"\n".join(cells).replace(b"(0)", b"").translate(None, b" -/().").split(b"\n")  # +49 (0)30: the zero is dialled at home
        return [
            cell[1:] if cell[:1] == b"+" else cell[2:] if cell[:2] == b"00" else prefix + (cell[1:] if cell[:1] == b"0" else cell)
            for cell in bare
        ]

    return canonical


def network(cells: Cells) -> Cells:
    """An address without the length of its own full mask."""
    if b"/" not in b"".join(cells):
        return cells
    return [cell[:-3] if cell.endswith(b"/32") and b"." in cell else cell.removesuffix(b"/128").lower() for cell in cells]
