"""Decimals, whole numbers, texts and JSON held to plain Python, text by text."""

import json
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.mapped import values
from tests.feeds.reading import plain, read_file

NUMBERS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=8).map(lambda d: format(d, "f")),
    st.text("0123456789.-", max_size=24),
    st.text("0123456789.-+eE_, ٣nNaA\n", max_size=6),
    st.from_regex(r"\A-?[0-9]{0,12}\.?[0-9]{0,10}0{0,3}\Z"),
)


def reference(text: str, unit: Decimal) -> Decimal | None:
    """What a text is worth, None where it must be rejected."""
    if not re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)", text) or "\n" in text:
        return None
    value = Decimal(text) * unit
    fits = abs(value) < Decimal(10) ** 10 and value == value.quantize(Decimal("1e-8"))
    return value if fits else None


@settings(max_examples=80, deadline=None)
@given(st.lists(NUMBERS, max_size=20))
def test_decimals_are_exact_or_rejected(texts: list[str]) -> None:
    found, faults = values.to_decimals(
        pa.array(texts, pa.string()), np.zeros(len(texts), bool), "price", Decimal(1)
    )
    wanted = [reference(text, Decimal(1)) for text in texts]
    assert found.to_pylist() == wanted
    assert [fault.row for fault in faults] == [n for n, value in enumerate(wanted) if value is None]
    found.validate(full=True)


@settings(max_examples=80, deadline=None)
@given(st.lists(NUMBERS, max_size=20), st.sampled_from(["0.01", "1e-9", "0.25", "100", "1e8"]))
def test_units_are_exact_or_rejected(texts: list[str], unit: str) -> None:
    found, faults = values.to_decimals(
        pa.array(texts, pa.string()), np.zeros(len(texts), bool), "price", Decimal(unit)
    )
    rejected = {fault.row for fault in faults}
    for row, text in enumerate(texts):
        wanted = reference(text, Decimal(unit))
        digits = text.lstrip("-").partition(".")
        if len(digits[0]) <= 19 and len(digits[2]) <= 9:
            assert found[row].as_py() == wanted
        assert (row in rejected) == (found[row].as_py() is None)
        assert found[row].as_py() in (None, wanted)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("101250000000", "1e-9", "101.25"),
        ("9223372036854775807", "1e-9", None),
        ("1", "1e-9", None),
        ("3612", "0.01", "36.12"),
        ("361.25", "0.01", "3.6125"),
        ("-5", "0.5", "-2.5"),
    ],
)
def test_units(text: str, unit: str, value: str | None) -> None:
    found, faults = values.to_decimals(pa.array([text]), np.zeros(1, bool), "price", Decimal(unit))
    assert found[0].as_py() == (None if value is None else Decimal(value))
    assert len(faults) == (value is None)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("0123456789-+.", max_size=20), max_size=9))
def test_whole_numbers_are_exact_or_rejected(texts: list[str]) -> None:
    array = pa.array(texts, pa.string())
    found, faults = values.to_whole(array, np.zeros(len(texts), bool), "n", pa.int64())
    wanted = [int(t) if re.fullmatch("-?[0-9]{1,18}", t) else None for t in texts]
    assert found.to_pylist() == wanted
    assert [fault.row for fault in faults] == [n for n, value in enumerate(wanted) if value is None]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=9), st.tuples(st.text(), st.text()))
def test_json_holds_what_is_not_empty(rows: list[tuple[str, str]], names: tuple[str, str]) -> None:
    if names[0] == names[1]:
        return
    columns = [
        (name, pa.array([row[at] for row in rows], pa.string())) for at, name in enumerate(names)
    ]
    found = values.to_json(columns, len(rows)).to_pylist()
    wanted = [{n: v for n, v in zip(names, row, strict=True) if v} or None for row in rows]
    assert [None if text is None else json.loads(text) for text in found] == wanted


def test_texts_are_translated_and_unknown_ones_rejected(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "".join(f"2026-03-02 10:00:00.0,{side},5,9\n" for side in ["B", "sell", "b", "X", ""])
    )
    for otherwise, sides, refused in (
        ("", ["BUY", "SELL", "BUY"], [(4, 'side "X" is unknown here'), (5, "side is empty")]),
        (', otherwise = "UNKNOWN"', ["BUY", "SELL", "BUY", "UNKNOWN", "UNKNOWN"], []),
        (', null = "X"', ["BUY", "SELL", "BUY", "UNKNOWN"], [(5, "side is empty")]),
        (
            ', null = "X", optional = true',
            ["BUY", "SELL", "BUY", "UNKNOWN", "UNKNOWN"],
            [],
        ),
    ):
        mapping = plain(
            ('columns = ["time", ', 'columns = ["time", "side", '),
            (
                'price = "price"',
                'price = "price"\nside = { column = "side",'
                f' values = {{ b = "BUY", SELL = "SELL" }}{otherwise} }}',
            ),
        )
        found = read_file(path, mapping, "trades")
        assert found.column("side") == sides
        assert [(line, reason) for line, _, reason in found.refused()] == refused


def test_trades_that_form_prices_by_conditions_and_another_column(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [("@", "N"), ("@ T", "N"), ("T W", "N"), ("@", "D"), ("", "N")]
    path.write_text("".join(f"2026-03-02 10:00:00.0,{c},{v},5,9\n" for c, v in rows))
    columns = ('columns = ["time", ', 'columns = ["time", "codes", "venue", ')
    field = 'price = "price"\nconditions = { column = "codes", separator = " ", optional = true }\n'
    for rule, forming in (
        ('[trades.not_price_forming]\ncodes = ["W", "Z"]\nvenue = "D"', [1, 1, 0, 0, 1]),
        ('[trades.price_forming_only]\ncodes = ["@"]', [1, 1, 0, 1, 0]),
        ('[trades.price_forming_only]\ncodes = ["@", ""]', [1, 1, 0, 1, 1]),
        (
            '[trades.price_forming_only]\ncodes = "@"\n[trades.not_price_forming]\nvenue = "D"',
            [1, 1, 0, 0, 0],
        ),
    ):
        mapping = plain(columns, ('price = "price"', field), ("[exchange]", f"{rule}\n[exchange]"))
        found = read_file(path, mapping, "trades")
        assert found.column("price_forming") == [bool(forms) for forms in forming]
        assert found.column("conditions") == ["@", "@,T", "T,W", "@", None]
