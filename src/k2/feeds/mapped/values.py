"""Columns of text to the values of a record: decimals, whole numbers, texts, JSON. Exactly.

A function takes an Arrow array of strings without nulls and gives the values, with null where the
text cannot be read, and the faults: the rows that hold such a text, each with what is wrong.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from k2.model import PRICE_TYPE

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# What fits decimal(18, 8) exactly, and what is a number at all. No exponents, signs or blanks that
# Arrow's own cast would let through.
_FITS: Final = r"^-?(?:0*[0-9]{1,10}(?:\.[0-9]{0,8}0*)?|\.[0-9]{1,8}0*)$"
_NUMBER: Final = r"^-?(?:[0-9]{1,19}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})$"
_WHOLE: Final = r"^-?[0-9]{1,18}$"
_WIDE: Final = pa.decimal128(28, 9)
EXPECTED_DECIMAL: Final = 'digits with "." as the decimal mark, at most 10 before and 8 after it'
EXPECTED_WHOLE: Final = "a whole number of at most 18 digits"


@dataclass(frozen=True)
class Fault:
    """Why a row cannot be read: `row` counts from 0 in its block."""

    row: int
    column: str | None
    reason: str
    expected: str | None


def shown(text: str) -> str:
    """A text as it is shown in a reason: in quotes, and cut if it is long."""
    return f'"{text}"' if len(text) <= 80 else f'"{text[:77]}…"'


def faults_at(
    bad: Mask, text: pa.Array, column: str, why: Callable[[str], str], expected: str | None
) -> list[Fault]:
    """A fault for each row of the mask; `why` completes "<column> <text> …"."""
    rows = np.flatnonzero(bad)
    texts = text.take(pa.array(rows)).to_pylist()
    return [
        Fault(
            int(row),
            column,
            f"{column} {shown(t)} {why(t)}" if t else f"{column} is empty",
            expected,
        )
        for row, t in zip(rows, texts, strict=True)
    ]


def to_decimals(
    text: pa.Array, absent: Mask, column: str, unit: Decimal
) -> tuple[pa.Array, list[Fault]]:
    """Decimals (18, 8) of each text times `unit`; null where `absent`."""
    if unit == 1:
        good = _numpy(pc.match_substring_regex(text, _FITS)) & ~absent
        values = _where(good, text).cast(PRICE_TYPE)
    else:
        good = _numpy(pc.match_substring_regex(text, _NUMBER)) & ~absent
        values, fits = _scaled(_where(good, text).cast(_WIDE), unit)
        good &= fits
        values = _where(good, values)
    bad = ~good & ~absent
    faults: list[Fault] = []
    if bad.any():
        faults = faults_at(bad, text, column, lambda t: _why_no_decimal(t, unit), EXPECTED_DECIMAL)
    return values, faults


def _scaled(values: pa.Array, unit: Decimal) -> tuple[pa.Array, Mask]:
    """Each value times the unit as decimal (18, 8), and whether that is exact and fits."""
    exponent = unit.normalize().as_tuple().exponent
    scale = max(0, -int(exponent))
    digits = max(scale, len(str(int(unit))))
    product = pc.multiply(values, pa.scalar(unit, pa.decimal128(digits, scale)))
    cut = product.cast(pa.decimal128(38, 8), safe=False)
    exact = pc.equal(cut.cast(pa.decimal256(76, 38)), product.cast(pa.decimal256(76, 38)))
    small = pc.less(pc.abs(cut), pa.scalar(Decimal(10) ** 10, pa.decimal128(38, 8)))
    fits = _numpy(pc.fill_null(pc.and_(exact, small), False))
    return _where(fits, cut).cast(PRICE_TYPE), fits


def _why_no_decimal(text: str, unit: Decimal) -> str:
    if not re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)", text):
        return "is no decimal number"
    value = abs(Decimal(text)) * unit
    if value >= Decimal(10) ** 10:
        return "has more than 10 digits before the decimal mark"
    return "has more than 8 decimals"


def to_whole(
    text: pa.Array, absent: Mask, column: str, kind: pa.DataType
) -> tuple[pa.Array, list[Fault]]:
    """Whole numbers; null where `absent`."""
    good = _numpy(pc.match_substring_regex(text, _WHOLE)) & ~absent
    bad = ~good & ~absent
    faults = faults_at(bad, text, column, lambda _: "is no whole number", EXPECTED_WHOLE)
    return _where(good, text).cast(kind), faults


def to_texts(
    text: pa.Array,
    absent: Mask,
    column: str,
    values: Mapping[str, str] | None,
    otherwise: str | None,
    why: str = "is unknown here",
) -> tuple[pa.Array, list[Fault]]:
    """Dictionary-encoded texts, translated by `values` (lower-case keys); null where `absent`.

    A text that `values` does not know becomes `otherwise`, or a fault where that is None.
    """
    encoded = _where(~absent, text).dictionary_encode()
    if values is None:
        return encoded, []
    known = [values.get(t.lower(), otherwise) for t in encoded.dictionary.to_pylist()]
    bad = np.array([k is None for k in known], bool)
    # Two texts may mean one thing, and a dictionary holds each value once.
    distinct = list(dict.fromkeys(k for k in known if k is not None))
    codes = pa.array([distinct.index(k) if k is not None else None for k in known], pa.int32())
    found = pa.DictionaryArray.from_arrays(
        codes.take(encoded.indices), pa.array(distinct, pa.string())
    )
    if not bad.any():
        return found, []
    wrong = _numpy(pc.fill_null(pa.array(bad).take(encoded.indices), False))
    expected = "one of " + ", ".join(values) if len(values) <= 20 else None
    return found, faults_at(wrong, text, column, lambda _: why, expected)


def to_codes(text: pa.Array, separator: str) -> pa.Array:
    """Condition codes, joined in the source by `separator`, joined by commas."""
    encoded = text.dictionary_encode()
    joined = [
        ",".join(code for code in t.split(separator) if code)
        for t in encoded.dictionary.to_pylist()
    ]
    return pa.array(joined, pa.string()).take(encoded.indices)


def matches(text: pa.Array, codes: frozenset[str], separator: str | None) -> Mask:
    """Which texts are one of the codes, or hold one of them between separators."""
    encoded = text.dictionary_encode()
    hits = [
        t in codes or (separator is not None and not codes.isdisjoint(t.split(separator)))
        for t in encoded.dictionary.to_pylist()
    ]
    found: Mask = _numpy(pa.array(hits, pa.bool_()).take(encoded.indices))
    return found


def to_json(columns: Sequence[tuple[str, pa.Array]], n: int) -> pa.Array:
    """`{"name":"text", …}` a row, of the columns that are not empty there; null where none is."""
    filled = [_numpy(pc.not_equal(text, "")) for _, text in columns]
    some = np.logical_or.reduce(filled) if filled else np.zeros(n, bool)
    rows = np.flatnonzero(some)
    if len(rows) == 0:
        return pa.nulls(n, pa.string())
    pieces = []
    for (name, text), there in zip(columns, filled, strict=True):
        key = "," + orjson.dumps(name).decode() + ':"'
        body = _escaped(text.take(pa.array(rows)))
        piece = pc.binary_join_element_wise(key, body, '"', "")
        pieces.append(pc.if_else(pa.array(there[rows]), piece, ""))
    inside = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*pieces, ""), 1)
    objects = pc.binary_join_element_wise("{", inside, "}", "")
    if len(rows) == n:
        return objects
    at = np.zeros(n, np.int64)
    at[rows] = np.arange(len(rows))
    return objects.take(pa.array(at, mask=~some))


def _escaped(text: pa.Array) -> pa.Array:
    """The text as the inside of a JSON string."""
    if not pc.any(pc.match_substring_regex(text, r'[\x00-\x1f"\\]')).as_py():
        return text
    text = pc.replace_substring(pc.replace_substring(text, "\\", "\\\\"), '"', '\\"')
    for code in range(32):
        text = pc.replace_substring(text, chr(code), f"\\u{code:04x}")
    return text


def _where(good: Mask, values: pa.Array) -> pa.Array:
    """The values, null where not good."""
    if good.all():
        return values
    return pc.if_else(pa.array(good), values, pa.scalar(None, values.type))


def _numpy(array: pa.Array) -> Any:
    return array.to_numpy(zero_copy_only=False)


def decimals(units: Ints, absent: Mask | None = None) -> pa.Array:
    """Decimals (18, 8) of whole units of 1e-8, which always fit: 64 bits of 1e-9 hold less."""
    wide = np.empty((len(units), 2), np.int64)
    wide[:, 0] = units
    wide[:, 1] = units >> 63
    valid = None if absent is None else pa.py_buffer(np.packbits(~absent, bitorder="little"))
    return pa.Array.from_buffers(PRICE_TYPE, len(units), [valid, pa.py_buffer(wide)])
