"""Encoding answers: exact digits, one shape, any length, any type that SQL can give."""

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2 import encode
from k2.errors import BadInput
from k2.query import Answer


def answer(**columns: Any) -> Answer:
    return Answer(pa.table(columns), {"rows": 1}, None)


def decimals(precision: int, *values: str | None) -> pa.Array:
    given = [None if v is None else Decimal(v) for v in values]
    return pa.array(given, pa.decimal128(precision, 8))


def from_json(found: Answer) -> Any:
    return json.loads(encode.to_json_bytes(found))


@pytest.mark.parametrize("precision", [18, 38])
def test_decimals_lose_trailing_zeros_and_nothing_else(precision: int) -> None:
    given = ["36.10000000", "0", "-0.00000001", "0.00000001", "1200", "-9999999999.99999999", None]
    data = from_json(answer(price=decimals(precision, *given)))["data"]
    expected = ["36.1", "0", "-0.00000001", "0.00000001", "1200", "-9999999999.99999999", None]
    assert [row["price"] for row in data] == expected


@given(st.lists(st.decimals(places=8, min_value=-(10**29), max_value=10**29), max_size=20))
def test_any_decimal_comes_back_equal(values: list[Decimal]) -> None:
    column = pa.array(values, pa.decimal128(38, 8))
    texts = encode.to_text(pa.table({"x": column}))["x"].to_list()
    assert [Decimal(text) for text in texts] == values
    assert not any(("." in text and text.endswith(("0", "."))) or "E" in text for text in texts)


def test_whole_numbers_of_wide_sums_keep_their_zeros() -> None:
    data = from_json(answer(n=pa.array([Decimal(1000)], pa.decimal128(38, 0))))["data"]
    assert data == [{"n": "1000"}]


def test_times_are_utc_with_microseconds() -> None:
    moment = datetime(2014, 3, 9, 23, 0, 0, 123000, tzinfo=UTC)
    data = from_json(
        answer(
            utc=pa.array([moment, None], pa.timestamp("us", "UTC")),
            there=pa.array([moment, None], pa.timestamp("us", "Australia/Sydney")),
            nanoseconds=pa.array([1, None], pa.timestamp("ns", "UTC")),
            day=pa.array([date(2014, 3, 10), None]),
        )
    )["data"]
    assert data[0] == {
        "utc": "2014-03-09T23:00:00.123000Z",
        "there": "2014-03-09T23:00:00.123000Z",
        "nanoseconds": "1970-01-01T00:00:00.000000001Z",
        "day": "2014-03-10",
    }
    assert set(data[1].values()) == {None}


def test_the_envelope() -> None:
    found = Answer(pa.table({"symbol": ["BHP"]}), {"rows": 1, "notes": ["x"]}, "abc")
    assert json.loads(encode.to_json_bytes(found, limit=10)) == {
        "success": True,
        "data": [{"symbol": "BHP"}],
        "meta": {"rows": 1, "notes": ["x"]},
        "pagination": {"limit": 10, "next": "abc"},
    }


def test_an_empty_answer_keeps_its_shape() -> None:
    empty = Answer(pa.table({"a": pa.array([], pa.int64())}), {})
    assert from_json(empty)["data"] == []
    assert encode.to_csv(empty) == b"a\n"
    assert encode.to_ndjson(empty) == b""
    assert pa.ipc.open_stream(encode.to_arrow(empty)).read_all() == empty.table
    assert pq.read_table(io.BytesIO(encode.to_parquet(empty))).num_rows == 0


def test_text_that_needs_care_survives_json_and_csv() -> None:
    texts = ['a"b', "a,b", "line\nbreak", "\u2028é", "", None, "\\", "</script>"]
    found = answer(symbol=pa.array(texts))
    assert [row["symbol"] for row in from_json(found)["data"]] == texts
    lines = [json.loads(line) for line in encode.to_ndjson(found).splitlines()]
    assert [row["symbol"] for row in lines] == texts
    rows = list(csv.reader(io.StringIO(encode.to_csv(found).decode())))
    # A line that holds one null and nothing else is empty, which this reader sees as no row at all.
    assert [row[0] if row else None for row in rows[1:]] == texts


def test_parts_join_to_the_whole() -> None:
    rows = encode.ROWS_PER_PART * 2 + 1
    found = answer(n=pa.array(range(rows)))
    assert len(list(encode.csv_parts(found))) == 3
    assert [row["n"] for row in from_json(found)["data"]] == list(range(rows))
    assert encode.to_csv(found).count(b"\n") == rows + 1
    assert pa.ipc.open_stream(encode.to_arrow(found)).read_all()["n"].to_pylist()[-1] == rows - 1


def test_bytes_are_text_or_base64() -> None:
    data = from_json(answer(raw=pa.array([b"BHP,36.1", b"\xff\x00", None])))["data"]
    assert [row["raw"] for row in data] == ["BHP,36.1", "base64:/wA=", None]


def test_nested_values_and_names_that_occur_twice() -> None:
    lists = pa.array([[Decimal("1.50")], None], pa.list_(pa.decimal128(18, 8)))
    structs = pa.array([{"at": datetime(2014, 3, 9, 23, tzinfo=UTC), "b": b"x"}, None])
    table = pa.table([lists, structs, pa.array([1, 2]), pa.array([3, 4])], ["l", "s", "x", "x"])
    found = Answer(table, {})
    assert from_json(found)["data"] == [
        {"l": ["1.5"], "s": {"at": "2014-03-09T23:00:00.000000Z", "b": "x"}, "x": 1, "x_1": 3},
        {"l": None, "s": None, "x": 2, "x_1": 4},
    ]
    assert json.loads(encode.to_ndjson(found).splitlines()[1])["x_1"] == 4
    assert encode.to_csv(found).splitlines()[1].startswith(b'"[""1.5""]",')


def test_numbers_that_json_has_no_word_for_are_null() -> None:
    data = from_json(answer(f=pa.array([float("nan"), float("inf"), 1.5])))["data"]
    assert [row["f"] for row in data] == [None, None, 1.5]


def test_arrow_and_parquet_keep_types_and_say_where_they_come_from() -> None:
    table = pa.table({"price": decimals(18, "36.1", None)})
    found = Answer(table, {"rows": 2}, "next-page")
    arrow = pa.ipc.open_stream(encode.to_arrow(found)).read_all()
    parquet = pq.read_table(io.BytesIO(encode.to_parquet(found)))
    for back in (arrow, parquet):
        assert back["price"].type == pa.decimal128(18, 8)
        assert back.equals(table)
        assert json.loads(back.schema.metadata[b"k2.meta"]) == {"rows": 2}
        assert back.schema.metadata[b"k2.next"] == b"next-page"


def test_what_parquet_cannot_hold_is_said() -> None:
    intervals = pa.array([pa.MonthDayNano([1, 2, 3])], pa.month_day_nano_interval())
    with pytest.raises(BadInput, match="Parquet cannot hold"):
        encode.to_parquet(answer(i=intervals))
