"""Amounts of CPU and memory, as Kubernetes writes them: `200m`, `1.5`, `2`, `512Mi`, `1G`, `1e9`."""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

_PATTERN = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([eE][+-]?[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_MAX_LENGTH = 64
_MAX_MILLI = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount. `text` is how it was written, `milli` what it means, in thousandths."""

    text: str
    milli: int
    """Thousandths of a core, of a byte ...; rounded up."""

    @property
    def whole(self) -> int:
        """The amount in whole units (bytes, for memory), rounded up."""
        return ceil(Fraction(self.milli, 1000))


def parse_quantity(text: str) -> Quantity | None:
    """The amount that a text means, or None when it means none, or one that Kubernetes cannot hold."""
    if len(text) > _MAX_LENGTH or not (match := _PATTERN.fullmatch(text)):
        return None
    sign, digits, exponent, suffix = match.groups()
    factor = _factor(exponent, suffix or "")
    milli = ceil(Fraction(digits.rstrip(".") or "0") * factor * 1000)
    milli = -milli if sign == "-" else milli
    return Quantity(text, milli) if abs(milli) <= _MAX_MILLI else None


def _factor(exponent: str | None, suffix: str) -> Fraction:
    if exponent is not None:
        return Fraction(10) ** int(exponent[1:])
    if suffix in _BINARY:
        return Fraction(2 ** _BINARY[suffix])
    return Fraction(10) ** _DECIMAL[suffix]
