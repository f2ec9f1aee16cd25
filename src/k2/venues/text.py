"""Numbers and times as venues print them: exact text from integers, never through floats."""

from functools import lru_cache
from time import gmtime, strftime

SCALE = 10**8
"""Prices and quantities are integers that count 1e-8."""


def decimal_text(units: int, digits: int = 8) -> str:
    """A number of 1e-8 with that many digits behind the point, the others cut off."""
    sign, units = ("-", -units) if units < 0 else ("", units)
    whole, rest = divmod(units, SCALE)
    return f"{sign}{whole}.{rest:08d}"[
        : len(sign) + len(str(whole)) + (digits + 1 if digits else 0)
    ]


def short_text(units: int) -> str:
    """A number of 1e-8 without zeros at its end."""
    return decimal_text(units).rstrip("0").rstrip(".")


def digits_of(step: int) -> int:
    """Digits behind the point that multiples of `step` (a power of ten, in 1e-8) need."""
    return max(0, 9 - len(str(step)))


def iso_text(micros: int) -> str:
    """Microseconds since 1970 as RFC 3339 in UTC, six digits of a second."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_second_text(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))
