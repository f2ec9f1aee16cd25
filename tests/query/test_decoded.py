"""Decoded copies: what they hold is what their data files hold, and none is ever read in part."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.query.copies import shape_of
from k2.query.decoded import Copy, is_intact, open_copy, write_copy
from k2.query.view import View
from k2.query.zones import to_us
from tests.query.make import Files, Row, order_of, random_trades, trade, view_of, write_file

START = datetime(2024, 3, 5, tzinfo=UTC)


def copied(folder: Path, view: View) -> Copy:
    """The copy of a view's one file."""
    (file,) = view.select()
    path = write_copy(folder, file, shape_of(view), uuid4())
    assert path is not None
    assert is_intact(path)
    copy = open_copy(path)
    assert copy is not None
    return copy


def only(view: View, file: object) -> View:
    return replace(view, index=Files((file,)))  # type: ignore[arg-type]


def test_a_copy_holds_the_rows_of_its_file(tmp_path: Path) -> None:
    rows = random_trades(1, 300, exchanges=("sim", "ASX"), ties=5)
    for n, row in enumerate(rows):
        row["trade_id"] = str(n) if n % 3 else None
        row["conditions"] = ["a", None, "b,c"][n % 3]
    view = view_of(tmp_path, [rows])
    copy = copied(tmp_path, view)
    expected = pq.ParquetFile(view.select()[0].path).read()
    names = view.columns.names
    found = copy.rows(0, 300, names)
    assert found.column_names == names
    assert found.cast(expected.select(names).schema).equals(expected.select(names))
    assert copy.exchanges == {"sim", "ASX"}
    assert copy.ordered
    assert not any(pa.types.is_dictionary(field.type) for field in found.schema)


def test_a_symbols_rows_between_two_times_are_found(tmp_path: Path) -> None:
    rows = random_trades(2, 400, ties=4)
    copy = copied(tmp_path, view_of(tmp_path, [rows]))
    times = sorted({row["timestamp"] for row in rows})
    for symbol in ("A", "B", "C", "none", ""):
        for start in (None, times[0], times[3], times[-1] + timedelta(microseconds=1)):
            for end in (None, times[0], times[5], times[-1]):
                edges = [None if edge is None else to_us(edge) for edge in (start, end)]
                begin, stop = copy.span(symbol, *edges)
                found = copy.rows(begin, stop, ["log_partition", "log_offset"]).to_pylist()
                wanted = sorted(
                    (
                        row
                        for row in rows
                        if row["symbol"] == symbol
                        and (start is None or row["timestamp"] >= start)
                        and (end is None or row["timestamp"] < end)
                    ),
                    key=order_of,
                )
                assert [(f["log_partition"], f["log_offset"]) for f in found] == [
                    (row["log_partition"], row["log_offset"]) for row in wanted
                ]


def test_where_rows_do_not_stand_in_total_order_the_copy_says_so(tmp_path: Path) -> None:
    rows = [
        trade("A", START, "1", exchange=exchange, offset=n)
        for n, exchange in enumerate(("ASX", "sim"))
    ]
    view = view_of(tmp_path, [])
    # The lake's order knows no topics.
    file = write_file(tmp_path, rows, 1, order=lambda row: (row["timestamp"], row["log_offset"]))
    assert not copied(tmp_path, only(view, file)).ordered


@pytest.mark.parametrize("spoil", ["symbols", "times"])
def test_rows_that_do_not_stand_by_symbol_and_time_are_not_copied(
    tmp_path: Path, spoil: str
) -> None:
    rows = [trade("AB"[n % 2], START + timedelta(seconds=n), "1", offset=n) for n in range(4)]
    view = view_of(tmp_path, [rows])
    (file,) = view.select()
    table = pq.ParquetFile(file.path).read()
    order = [2, 3, 0, 1] if spoil == "symbols" else [1, 0, 2, 3]
    pq.write_table(table.take(pa.array(order)), file.path)
    assert write_copy(tmp_path, file, shape_of(view), uuid4()) is None
    assert not list(tmp_path.glob("*.part"))


def test_a_column_that_an_old_file_lacks_has_its_default(tmp_path: Path) -> None:
    rows = random_trades(3, 20)
    view = view_of(tmp_path, [])
    file = write_file(tmp_path, rows, 1, drop=("side", "id_space", "vendor_data"))
    copy = copied(tmp_path, only(view, file))
    found = copy.rows(0, 20, ["side", "id_space", "vendor_data"])
    assert set(found["side"].to_pylist()) == {"UNKNOWN"}
    assert set(found["id_space"].to_pylist()) == {""}
    assert set(found["vendor_data"].to_pylist()) == {None}


def test_a_value_that_a_question_may_fill_in_is_not_copied(tmp_path: Path) -> None:
    rows: list[Row] = [row | {"id_space": None} for row in random_trades(3, 20)]
    view = view_of(tmp_path, [rows])
    assert write_copy(tmp_path, view.select()[0], shape_of(view), uuid4()) is None


@pytest.mark.parametrize("damage", ["short", "long", "zeros", "flipped", "empty"])
def test_a_torn_copy_is_not_intact(tmp_path: Path, damage: str) -> None:
    view = view_of(tmp_path, [random_trades(4, 200)])
    path = write_copy(tmp_path, view.select()[0], shape_of(view), uuid4())
    assert path is not None
    content = bytearray(path.read_bytes())
    match damage:
        case "short":
            content = content[:-1]
        case "long":
            content += b"\0"
        case "zeros":
            content[4096:8192] = bytes(4096)
        case "flipped":
            content[len(content) // 2] ^= 1
        case "empty":
            content = bytearray()
    path.write_bytes(content)
    assert not is_intact(path)


def test_a_copy_of_another_file_is_not_opened(tmp_path: Path) -> None:
    view = view_of(tmp_path, [random_trades(4, 200)])
    (file,) = view.select()
    path = write_copy(tmp_path, file, shape_of(view), uuid4())
    assert path is not None
    assert open_copy(path) is not None
    with open(file.path, "ab") as more:
        more.write(b"more")
    assert open_copy(path) is None
    Path(file.path).unlink()
    assert open_copy(path) is None


def test_making_a_copy_can_be_stopped(tmp_path: Path) -> None:
    view = view_of(tmp_path, [random_trades(4, 200)])
    for asked in range(12):
        go_on = chain(repeat(True, asked), repeat(False))
        (file,) = view.select()
        path = write_copy(tmp_path, file, shape_of(view), uuid4(), go_on.__next__)
        if path is not None:
            break
        assert not [p for p in tmp_path.iterdir() if p.suffix != ".parquet"]
    else:
        raise AssertionError("it was never made")
