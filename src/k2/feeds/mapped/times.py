"""Times and dates in columns of text, by a strptime-like pattern or as a count since 1970.

Comes in: an Arrow array of strings without nulls. Goes out: numpy arrays of microseconds (or days),
the nanoseconds beyond them, and a mask of what could be read; nothing is rounded.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

EPOCHS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Nanoseconds in one unit of each count since 1970."""
_DIGITS: Final = {"s": (9, 10), "ms": (12, 13), "us": (15, 16), "ns": (18, 19)}
_MONTHS: Final = [
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
]
_LAST_MICRO: Final = 253_402_300_799_999_999
"""The end of the year 9999: later times are no times."""

_PARTS: Final = {
    "Y": r"(?P<Y>[0-9]{4})",
    "y": r"(?P<y>[0-9]{2})",
    "m": r"(?P<m>[0-9]{1,2})",
    "b": r"(?P<b>[A-Za-z]{3})",
    "d": r"(?P<d>[0-9]{1,2})",
    "H": r"(?P<H>[0-9]{1,2})",
    "I": r"(?P<I>[0-9]{1,2})",
    "M": r"(?P<M>[0-9]{2})",
    "S": r"(?P<S>[0-9]{2})",
    "f": r"(?P<f>[0-9]{1,9})",
    "p": r"(?P<p>[AaPp][Mm])",
    "z": r"(?P<z>Z|[+-][0-9]{2}:?[0-9]{2})",
}
_WIDTHS: Final = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
"""The directives of which the fast path knows the width."""


@dataclass(frozen=True)
class Read:
    """What one pattern made of a column. `micros` are local times, or UTC where `utc` says so."""

    micros: Ints
    nanos: npt.NDArray[np.int32]
    good: Mask
    utc: bool


def check_format(text: str, *, date_only: bool) -> None:
    """Raise `BadInput` if `text` is no pattern of a time (or of a date alone)."""
    if text.startswith("epoch:"):
        if text[6:] in (*EPOCHS, "digits") and not date_only:
            return
        raise BadInput("this is no format of a time", expected="epoch:s, ms, us, ns or digits")
    parts = _directives(text)
    names = [p for p in parts if len(p) == 2 and p[0] == "%"]
    letters = {name[1] for name in names}
    if unknown := sorted(n for n in names if n[1] not in _PARTS and n != "%%"):
        raise BadInput(
            f"{unknown[0]} is unknown here", expected=" ".join(f"%{letter}" for letter in _PARTS)
        )
    if len(letters) != len(names):
        raise BadInput("a part of the time is named twice")
    if not (letters & set("Yy")) or not (letters & set("mb")) or "d" not in letters:
        raise BadInput("a date needs year, month and day", expected="such as %Y-%m-%d")
    if date_only and letters & set("HIMSfpz"):
        raise BadInput("this is a date alone", expected="such as %Y-%m-%d")
    if ("I" in letters) != ("p" in letters) or {"H", "I"} <= letters:
        raise BadInput("hours are %H, or %I with %p")


def example(pattern: str) -> str:
    """A text that fits the pattern, to be shown."""
    if pattern.startswith("epoch:"):
        return {"s": "1394406794", "ms": "1394406794754", "us": "1394406794754000"}.get(
            pattern[6:], "1394406794754000000"
        )
    shown = {"f": "754", "z": "+11:00"}
    moment = datetime(2014, 3, 10, 10, 13, 14, tzinfo=UTC)
    return "".join(
        p if len(p) == 1 else shown.get(p[1]) or moment.strftime(p) for p in _directives(pattern)
    )


def read_times(text: pa.Array, pattern: str) -> Read:
    """Read each text by `pattern`; what does not fit it is not `good` and has no meaning."""
    if pattern.startswith("epoch:"):
        return _read_epoch(text, pattern[6:])
    micros, nanos, good = _read_fixed(text, pattern)
    utc = "%z" in pattern or pattern.endswith("Z")
    if not good.all():
        # Unpadded numbers, names of months, am and pm: a regular expression, for these rows alone.
        rows = np.flatnonzero(~good)
        some = _read_regex(text.take(pa.array(rows)), pattern)
        micros[rows], nanos[rows], good[rows] = some
    return Read(micros, nanos, good, utc)


def _read_fixed(text: pa.Array, pattern: str) -> tuple[Ints, npt.NDArray[np.int32], Mask]:
    """The fast path: every part in its place, read from the bytes of the whole column at once."""
    n = len(text)
    layout = _fixed_layout(pattern)
    if layout is None or n == 0:
        return np.zeros(n, np.int64), np.zeros(n, np.int32), np.zeros(n, bool)
    body = layout.width + len(layout.suffix)
    longest = body + 9 * layout.fraction
    chars, lengths = _by_place(text, longest)
    good = (lengths > body) & (lengths <= longest) if layout.fraction else lengths == body
    numbers = chars - np.uint8(48)
    digits = {}
    for name, at in layout.parts.items():
        digits[name] = number = np.zeros(n, np.int64)
        for place in range(at, at + _WIDTHS[name]):
            good &= numbers[place] <= 9
            number *= 10
            number += numbers[place]
    for place, byte in layout.literals:
        good &= chars[place] == byte
    fraction, ends = np.zeros(n, np.int64), lengths - len(layout.suffix)
    for place in range(layout.width, layout.width + 9 * layout.fraction):
        there = place < ends
        good &= (numbers[place] <= 9) | ~there
        fraction *= 10
        fraction += np.where(there, numbers[place], 0)
    for i, byte in enumerate(layout.suffix):
        places = np.clip(ends, 0, longest - len(layout.suffix)) + i
        good &= chars[places, np.arange(n)] == byte
    micros, real = _to_micros(digits)
    return micros + fraction // 1000, (fraction % 1000).astype(np.int32), good & real


@dataclass(frozen=True)
class _Fixed:
    width: int
    parts: dict[str, int]
    literals: list[tuple[int, int]]
    fraction: bool
    suffix: bytes


@cache
def _fixed_layout(pattern: str) -> _Fixed | None:
    """Where each part of the pattern stands; None if a part has no fixed width."""
    width, parts, literals, fraction, suffix = 0, {}, [], False, b""
    for part in _directives(pattern):
        if len(part) == 2 and part[0] == "%" and part != "%%":
            if part == "%f" and not fraction:
                fraction = True
            elif part[1] in _WIDTHS and not fraction:
                parts[part[1]] = width
                width += _WIDTHS[part[1]]
            else:
                return None
            continue
        byte = part[-1].encode()
        if fraction:
            suffix += byte
        else:
            literals += [(width + i, b) for i, b in enumerate(byte)]
            width += len(byte)
    return _Fixed(width, parts, literals, fraction, suffix)


def _read_regex(text: pa.Array, pattern: str) -> tuple[Ints, npt.NDArray[np.int32], Mask]:
    n = len(text)
    found = pc.extract_regex(text, _regex(pattern))
    good = _numpy(found.is_valid())
    names = [field.name for field in found.type]
    parts = {name: pc.fill_null(found.field(name), "") for name in names}
    digits = {
        name: _int64(parts[name].take(pa.array(np.flatnonzero(good))), n, good)
        for name in names
        if name not in "bpzf"
    }
    if "y" in digits:
        short = digits.pop("y")
        digits["Y"] = np.where(short < 69, 2000 + short, 1900 + short)
    if "b" in parts:
        months = pc.index_in(pc.utf8_lower(parts["b"]), pa.array(_MONTHS))
        digits["m"] = _numpy(pc.fill_null(months, -1)).astype(np.int64) + 1
    if "p" in parts:
        hour = digits.pop("I")
        good &= (hour >= 1) & (hour <= 12)
        after = _numpy(pc.equal(pc.utf8_lower(parts["p"]), "pm"))
        digits["H"] = hour % 12 + 12 * after
    micros, real = _to_micros(digits)
    good &= real
    fraction = np.zeros(n, np.int64)
    if "f" in parts:
        padded = pc.utf8_rpad(parts["f"], 9, "0")
        fraction = _int64(padded.take(pa.array(np.flatnonzero(good))), n, good)
    if "z" in parts:
        east = pc.if_else(pc.equal(parts["z"], "Z"), "0000", parts["z"])
        east = pc.replace_substring_regex(east, r"[+:]", "")
        number = _int64(east.take(pa.array(np.flatnonzero(good))), n, good)
        minutes = np.sign(number) * (np.abs(number) // 100 * 60 + np.abs(number) % 100)
        micros -= minutes * 60_000_000
    return micros + fraction // 1000, (fraction % 1000).astype(np.int32), good


def _read_epoch(text: pa.Array, unit: str) -> Read:
    n = len(text)
    if unit == "digits":
        nanos_of = {low: EPOCHS[u] for u, bounds in _DIGITS.items() for low in bounds}
        length = _numpy(pc.binary_length(text))
        lengths = np.arange(length.max(initial=0) + 1)
        scale = np.array([nanos_of.get(int(size), 0) for size in lengths], np.int64)[length]
        plain = _numpy(pc.match_substring_regex(text, r"^[0-9]{9,19}$")) & (scale > 0)
    else:
        scale = np.full(n, EPOCHS[unit], np.int64)
        plain = _numpy(pc.match_substring_regex(text, r"^[0-9]{1,19}$"))
    count, more, good = np.zeros(n, np.int64), np.zeros(n, np.int64), plain.copy()
    count, fits = _whole(text, plain)
    good &= fits
    rest = np.flatnonzero(~plain)
    if len(rest) and unit != "digits":
        # `1767600000.123456`: a count with a fraction, which must come out in whole nanoseconds.
        found = pc.extract_regex(
            text.take(pa.array(rest)), r"^(?P<i>[0-9]{1,16})\.(?P<f>[0-9]{1,9})$"
        )
        fits = _numpy(found.is_valid())
        rows = rest[fits]
        found = found.filter(pa.array(fits))
        count[rows] = _numpy(found.field("i").cast(pa.int64()))
        billionths = _numpy(pc.utf8_rpad(found.field("f"), 9, "0").cast(pa.int64())) * EPOCHS[unit]
        more[rows] = billionths // 1_000_000_000
        good[rows] = billionths % 1_000_000_000 == 0
    good &= (scale == 1) | (count <= _LAST_MICRO // np.maximum(scale // 1000, 1))
    count[~good] = 0
    sub = count % 1000 if unit == "ns" else np.where(scale == 1, count % 1000, 0)
    micros = np.where(scale == 1, count // 1000, count * (scale // 1000)) + more // 1000
    return Read(micros, (sub + more % 1000).astype(np.int32), good, True)


def _whole(text: pa.Array, rows: Mask) -> tuple[Ints, Mask]:
    """Whole numbers in these rows; those beyond int64 are not good."""
    out, good = np.zeros(len(text), np.int64), np.ones(len(text), bool)
    at = np.flatnonzero(rows)
    some = text if len(at) == len(text) else text.take(pa.array(at))
    try:
        out[at] = _numpy(some.cast(pa.int64()))
    except pa.ArrowInvalid:
        wide = some.cast(pa.decimal128(19, 0))
        fits = _numpy(pc.less_equal(wide, pa.scalar(2**63 - 1, pa.decimal128(19, 0))))
        out[at[fits]] = _numpy(wide.filter(pa.array(fits)).cast(pa.int64()))
        good[at[~fits]] = False
    return out, good


def _to_micros(parts: dict[str, Ints]) -> tuple[Ints, Mask]:
    """Microseconds since 1970 of date and clock time, as if in UTC, and which of them exist."""
    year, month, day = parts["Y"], parts["m"], parts["d"]
    zero = np.zeros_like(year)
    hour, minute, second = (parts.get(name, zero) for name in "HMS")
    real = (month >= 1) & (month <= 12) & (year >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    month = np.where(real, month, 1)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[month - 1]
    real &= (day >= 1) & (day <= last + ((month == 2) & leap))
    # Howard Hinnant's days_from_civil: years that begin in March, so that leap days come last.
    shifted = year - (month <= 2)
    era, of_era = shifted // 400, shifted % 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return ((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000, real


@cache
def _regex(pattern: str) -> str:
    parts = (
        _PARTS[p[1]] if len(p) == 2 and p[0] == "%" and p != "%%" else re.escape(p[-1])
        for p in _directives(pattern)
    )
    return "^" + "".join(parts) + "$"


def _directives(pattern: str) -> list[str]:
    """The pattern in pieces: `%Y`, or one literal character."""
    return re.findall(r"%.|.", pattern, re.DOTALL)


def _int64(some: pa.Array, n: int, rows: Mask) -> Ints:
    out = np.zeros(n, np.int64)
    out[rows] = _numpy(some.cast(pa.int64()))
    return out


def _by_place(text: pa.Array, longest: int) -> tuple[npt.NDArray[np.uint8], Ints]:
    """The bytes of each text, a row per place and a column per text, and the lengths.

    Has `longest` places; what stands past the end of a text means nothing.
    """
    n = len(text)
    offsets = np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + n + 1]
    starts, lengths = offsets[:-1].astype(np.int64), np.diff(offsets).astype(np.int64)
    data = text.buffers()[2]
    chars = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    size = int(lengths[0])
    if size and (lengths == size).all():
        # All of one length, as nearly always: a matrix as it lies.
        matrix = chars[starts[0] : starts[0] + n * size].reshape(n, size)[:, :longest]
        places = np.zeros((longest, n), np.uint8)
        places[: matrix.shape[1]] = matrix.T
        return places, lengths
    padded = np.concatenate([chars, np.zeros(longest, np.uint8)])
    return padded[starts + np.arange(longest)[:, np.newaxis]], lengths


def _numpy(array: pa.Array) -> Any:
    return array.to_numpy(zero_copy_only=False)
