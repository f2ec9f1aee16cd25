"""Answers on stdout: tables that people can read, files that are whole or not there."""

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.cli import chart
from k2.cli.show import Output, choose_output
from k2.cli.table import table_lines
from k2.errors import BadInput
from k2.query import Answer
from tests.cli.conftest import K2


def decimals(*values: str | None) -> pa.Array:
    return pa.array([None if v is None else Decimal(v) for v in values], pa.decimal128(18, 8))


def lines(table: dict[str, Any], **options: Any) -> list[str]:
    return [click.unstyle(line) for line in table_lines(pa.table(table), **options)]


def test_numbers_stand_at_their_decimal_point_and_nulls_are_dashes() -> None:
    table = {
        "symbol": ["BHP", "MARKET"],
        "price": decimals("36.10", "1200"),
        "bid": decimals(None, "0.5"),
        "n": pa.array([1, 20000]),
        "at": pa.array([datetime(2014, 3, 9, 23, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
    }
    assert lines(table) == [
        "symbol   price  bid      n  at",
        "BHP       36.1  -        1  2014-03-09T23:00:00.000000Z",
        "MARKET  1200    0.5  20000  2014-03-09T23:00:00.000000Z",
    ]


def test_columns_without_values_are_left_out_unless_named() -> None:
    table = {"a": [1], "b": pa.array([None], pa.string())}
    assert lines(table) == ["a", "1"]
    assert lines(table, columns=("b", "a", "c")) == ["b  a", "-  1"]
    assert lines({"a": pa.array([], pa.int64())}) == ["a"]


def test_columns_that_do_not_fit_are_named() -> None:
    table = {"first": ["x"], "second": ["y"], "third": ["z"]}
    assert lines(table, width=13) == [
        "first  second",
        "x      y",
        "not shown for want of room: third",
    ]
    assert lines(table, width=1)[0] == "first"


def test_what_is_the_same_everywhere_is_told_once_where_room_is_scarce() -> None:
    table = {"symbol": ["BHP"] * 2, "exchange": ["ASX"] * 2, "at": ["x", "y"], "n": [1, 2]}
    assert lines(table, width=26)[0] == "symbol  exchange  at  n"
    assert lines(table, width=20) == ["symbol BHP  exchange ASX", "at  n", "x   1", "y   2"]
    assert lines({"symbol": ["BHP"] * 2}, width=2)[0] == "symbol"


def test_text_is_cut_before_it_is_left_out() -> None:
    table = {"n": [1], "meaning": ["a sentence that is too long for this"], "more": ["x"]}
    assert lines(table, width=25) == [
        "n  meaning",
        "1  a sentence that is to…",
        "not shown for want of room: more",
    ]


def test_data_cannot_steer_the_terminal() -> None:
    assert lines({"symbol": ["a\x1b[31mb\nc"]}) == ["symbol", "a·[31mb·c"]


def test_wide_characters_keep_columns_straight() -> None:
    assert lines({"a": ["日本", "x"], "b": ["1", "2"]}) == ["a     b", "日本  1", "x     2"]


def test_a_suffix_chooses_the_format() -> None:
    assert choose_output(None, Path("x.CSV")) == Output("csv", Path("x.CSV"))
    assert choose_output("json", Path("x.csv")).format == "json"
    assert choose_output("table", Path("x.txt")).format == "table"
    with pytest.raises(BadInput, match=r"x\.xlsx"):
        choose_output(None, Path("x.xlsx"))
    assert choose_output(None, None) == Output("table")
    assert choose_output("csv", Path("-")) == Output("csv")


def test_every_format_of_one_command(k2: K2) -> None:
    envelope = json.loads(k2("settings", "--json").out)
    assert envelope["success"] is True
    assert envelope["data"][0]["setting"] == "K2_HOME"
    csv = k2("settings", "--csv").out
    assert csv.startswith("setting,value,source,unit,meaning\n")
    assert len(k2("settings", "--ndjson").out.splitlines()) == len(envelope["data"])
    arrow = pa.ipc.open_stream(k2("settings", "--arrow").raw).read_all()
    parquet = pq.read_table(io.BytesIO(k2("settings", "--parquet").raw))
    assert arrow.to_pylist() == envelope["data"] == parquet.to_pylist()
    assert k2("settings").out == k2("settings", "--table").out


def test_a_file_is_whole_or_as_it_was(k2: K2, tmp_path: Path) -> None:
    target = tmp_path / "x.parquet"
    assert k2("settings", "-o", str(target)).code == 0
    assert pq.read_table(target).num_rows > 3
    before = target.read_bytes()
    # Invalid UTF-8 under a string type: the first 65,536 rows can be written, the last cannot.
    fine = pa.array(["x"] * 65_536)
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    answer = Answer(pa.table({"a": pa.chunked_array([fine, broken])}), {})
    output = Output("csv", target)
    with pytest.raises(Exception, match="utf"):
        output.write(answer)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_notes_are_talk(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(pa.table({"a": [1]}), {"notes": ["2 trades left out"], "milliseconds": 3.2})
    Output("csv").write(answer)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("a\n1\n", "2 trades left out\n")
    Output("table").write(answer)
    assert capsys.readouterr().err == "2 trades left out\n1 row in 3 ms\n"


def test_sparklines_show_where_prices_went() -> None:
    assert chart.sparkline([Decimal(p) for p in (1, 8, 4)], 10) == "▁█▄"
    assert chart.sparkline([Decimal(p) for p in (1, 8, 4)], 2) == "█▁"
    assert chart.sparkline([Decimal("1.50")] * 3, 10) == "▄▄▄"
    assert chart.sparkline([], 10) == ""
    bars = pa.table(
        {"symbol": ["BHP"] * 3, "exchange": ["ASX"] * 3, "close": decimals("36.10", None, "100")}
    )
    assert list(chart.sparklines(bars, 60)) == ["BHP ASX  36.1 to 100  ▁█"]


def test_colours_of_bars() -> None:
    assert chart.colour_of_bar({"open": "1", "close": "2"}) == "green"
    assert chart.colour_of_bar({"open": "2.5", "close": "2"}) == "red"
    assert chart.colour_of_bar({"open": "2.0", "close": "2"}) is None
    assert chart.colour_of_bar({"open": None, "close": None}) is None
