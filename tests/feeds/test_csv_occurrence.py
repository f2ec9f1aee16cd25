"""Ordinals of equal records held to a plain counter: any order, any split into blocks."""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.occurrence import Occurrences, _order, content_hashes
from k2.model import PRICE_TYPE, TIMESTAMP_TYPE
from tests.feeds.reading import plain, read_file

Row = tuple[str, int, str, str | None]

ROWS = st.lists(
    st.tuples(
        st.sampled_from("AB"),
        st.integers(0, 6),
        st.sampled_from(["1", "2"]),
        st.sampled_from(["x", None]),
    ),
    max_size=40,
)


def table_of(rows: list[Row]) -> pa.Table:
    symbols, times, prices, codes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "symbol": pa.array(symbols, pa.string()).dictionary_encode(),
            "timestamp": pa.array(times, TIMESTAMP_TYPE),
            "price": pa.array(list(map(Decimal, prices)), PRICE_TYPE),
            "conditions": pa.array(codes, pa.string()).dictionary_encode(),
            "vendor_data": pa.array(codes, pa.string()),
            # What does not make a record another.
            "ingestion_timestamp": pa.array(range(len(rows)), TIMESTAMP_TYPE),
            "occurrence": pa.array(range(len(rows)), pa.int32()),
        }
    )


def split(rows: list[Row], cuts: list[int]) -> Iterator[pa.Table]:
    bounds = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    for begin, end in pairwise(bounds):
        yield table_of(rows[begin:end])


def counted(rows: list[Row]) -> list[int]:
    seen: Counter[Row] = Counter()
    found = []
    for row in rows:
        found.append(seen[row])
        seen[row] += 1
    return found


@settings(max_examples=150, deadline=None)
@given(ROWS, st.lists(st.integers(0, 99), max_size=5), st.integers(1, 50), st.sampled_from("nus"))
def test_ordinals_equal_a_plain_count(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    cuts: list[int],
    window: int,
    how: str,
) -> None:
    if how == "s":  # one symbol after the other, each ascending
        rows = sorted(rows, key=lambda row: row[:2])
    elif how == "u":  # all ascending
        rows = sorted(rows, key=lambda row: row[1])
    occurrences = Occurrences(
        lambda: split(rows, [cut + 7 for cut in cuts]), window, tmp_path_factory.getbasetemp()
    )
    found = [n for table in split(rows, cuts) for n in occurrences.number(table).tolist()]
    occurrences.close()
    assert found == counted(rows)


def test_ascending_times_need_no_second_reading_and_little_memory() -> None:
    def never() -> Iterator[pa.Table]:
        raise AssertionError

    random = Random(5)
    rows: list[Row] = [
        (random.choice("AB"), n // 30, random.choice("12"), None) for n in range(9_000)
    ]
    occurrences = Occurrences(never, window=100)
    found: list[int] = []
    for at in range(0, len(rows), 70):
        found += occurrences.number(table_of(rows[at : at + 70])).tolist()
        assert occurrences._hashes.shape[1] <= 100
    assert found == counted(rows)
    assert max(found) > 5


def test_records_that_left_the_window_are_not_forgotten() -> None:
    """Of one time, and of one symbol among others."""
    one: list[Row] = [("A", 1, "1", None), ("A", 1, "2", None), ("A", 1, "1", None)]
    other: list[Row] = [("A", 1, "1", None), ("B", 5, "1", None), ("A", 1, "1", None)]
    for rows in (one, other):
        occurrences = Occurrences(lambda rows=rows: iter([table_of(rows)]), window=1)  # type: ignore[misc]
        found = [int(occurrences.number(table_of([row]))[0]) for row in rows]
        occurrences.close()
        assert found == [0, 0, 1]


def test_temporary_files_are_removed(tmp_path: Path) -> None:
    rows: list[Row] = [("A", 9 - n, "1", None) for n in range(9)]
    occurrences = Occurrences(lambda: iter([table_of(rows)]), 1, tmp_path)
    for row in rows:
        occurrences.number(table_of([row]))
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.iterdir()] == ["ordinals"]
    occurrences.close()
    assert list(tmp_path.iterdir()) == []

    def broken() -> Iterator[pa.Table]:
        yield table_of(rows)
        raise OSError("the disk is full")

    occurrences = Occurrences(broken, 1, tmp_path)
    occurrences.number(table_of(rows[:5]))
    with pytest.raises(OSError, match="disk is full"):
        occurrences.number(table_of(rows[5:]))
    assert list(tmp_path.iterdir()) == []


def test_a_hash_hangs_on_the_record_alone() -> None:
    """Not on its neighbours, its block's dictionaries, or what else is null there."""
    rows: list[Row] = [
        *(("A", 1, "1", None), ("B", 1, "1", None), ("A", 1, "1", "x")),
        *(("A", 2, "1", None), ("A", 1, "2", None), ("B", 2, "2", "x")),
    ]
    alone = np.concatenate([content_hashes(table_of([row])) for row in rows], axis=1)
    assert alone.T.tolist() == content_hashes(table_of(rows)).T.tolist()
    backwards = content_hashes(table_of(rows[::-1]))
    assert alone.T.tolist() == backwards.T.tolist()[::-1]
    sliced = content_hashes(table_of([rows[0], *rows]).slice(1))
    assert alone.T.tolist() == sliced.T.tolist()
    assert len({tuple(pair) for pair in alone.T.tolist()}) == len(rows)


def test_hashes_that_are_half_equal_are_kept_apart() -> None:
    hashes = np.array([[7, 7, 7, 3], [1, 2, 1, 9]], np.uint64)
    order = _order(hashes)
    assert hashes[:, order].T.tolist() == [[3, 9], [7, 1], [7, 1], [7, 2]]
    assert order.tolist() == [3, 0, 2, 1]


@pytest.mark.parametrize("order", ["as it is", "backwards", "shuffled"])
def test_a_real_file_in_any_order_and_blocks(asx: Path, tmp_path: Path, order: str) -> None:
    lines = (asx / "trades" / "7078.csv").read_bytes().splitlines(keepends=True)[:12_000]
    if order == "backwards":
        lines.reverse()
    elif order == "shuffled":
        Random(3).shuffle(lines)
    path = tmp_path / "7078.csv"
    path.write_bytes(b"".join(lines))
    seen: Counter[bytes] = Counter()
    wanted = []
    for line in lines:
        wanted.append(seen[line])
        seen[line] += 1
    assert max(wanted) > 0
    for size in (Random(order).randrange(2_000, 90_000), 1 << 21):
        more: dict[str, Any] = {"symbol": "BHP", "block_bytes": size}
        assert read_file(path, "asx", "trades", **more).column("occurrence") == wanted


@pytest.mark.slow
def test_a_file_longer_than_the_window_that_goes_back_in_time(tmp_path: Path) -> None:
    lines = [
        f"2026-03-02 10:{n // 60_000:02d}:{n // 1_000 % 60:02d}.{n % 1_000:03d},{n % 2}.5,10\n"
        for n in (m // 3 for m in range(450_000))
    ]
    path = tmp_path / "x.csv"
    path.write_text("".join(lines[:-10] + lines[:10]))
    found = read_file(path, plain(), "trades").column("occurrence")
    assert found[:9] == [0, 1, 2] * 3
    assert found[-10:] == [3, 4, 5, 3, 4, 5, 3, 4, 5, 3]


def test_only_records_without_an_id_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    row = "2026-03-02 10:00:00.0,{},5,9\n"
    path.write_text("".join(row.format(name) for name in ["", "7", "", "7", ""]))
    changes = [
        ('columns = ["time", ', 'columns = ["time", "id", '),
        ('price = "price"', 'price = "price"\ntrade_id = { column = "id", optional = true }'),
    ]
    found = read_file(path, plain(*changes), "trades", block_bytes=40)
    assert found.column("occurrence") == [0, None, 1, None, 2]
    assert found.column("trade_id") == [None, "7", None, "7", None]
