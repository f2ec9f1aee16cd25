from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.query.duckdb import DuckDB
from k2.query.page import from_token, to_token
from k2.query.port import Pin
from k2.query.records import Wanted, fetch_records, question
from k2.query.selection import NOW, Condition, Past, Selection
from k2.query.view import View
from tests.query.make import (
    Files,
    Row,
    order_of,
    random_trades,
    ranges_of,
    split,
    to_table,
    trade,
    view_of,
    write_file,
)

PLACE = ("log_topic", "log_partition", "log_offset")


def places(rows: Sequence[Row]) -> list[tuple[str, int, int]]:
    return [(r["log_topic"], r["log_partition"], r["log_offset"]) for r in rows]


def fetch(
    engine: DuckDB, view: View, selection: Selection | None = None, **wanted: int
) -> list[tuple[str, int, int]]:
    found, _ = fetch_records(engine, view, selection or Selection(), Wanted(**wanted, fields=PLACE))
    return places(found.to_pylist())


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    ties=st.sampled_from([1, 20]),
    last=st.integers(1, 30),
    symbols=st.sampled_from([(), ("A",), ("A", "C"), ("none",)]),
)
def test_last_is_the_end_of_all_in_total_order(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    ties: int,
    last: int,
    symbols: tuple[str, ...],
) -> None:
    rows = random_trades(seed, count, exchanges=("sim", "ASX"), ties=ties, span=timedelta(days=3))
    *commits, tail = split(rows, cuts)
    expected = places(
        sorted((r for r in rows if not symbols or r["symbol"] in symbols), key=order_of)
    )
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        selection = Selection(symbols)
        assert fetch(engine, view, selection) == expected
        assert fetch(engine, view, selection, last=last) == expected[-last:]


def test_the_newest_are_found_in_windows_of_time(engine: DuckDB, tmp_path: Path) -> None:
    """Many more rows than are wanted: the windows are used, and the answer is the same."""
    rows = random_trades(1, 12_000, ties=3, span=timedelta(days=2))
    oldest, newest = (of(row["timestamp"] for row in rows) for of in (min, max))
    old = [trade("rare", oldest, "1", offset=90_000 + n) for n in range(3)]
    new = trade("rare", newest, "2", offset=99_000)
    view = view_of(tmp_path, [rows[:5000] + old, rows[5000:9000]], [*rows[9000:], new])
    rows += [*old, new]
    ordered = sorted(rows, key=order_of)
    assert fetch(engine, view, last=5) == places(ordered)[-5:]
    rare = [row for row in ordered if row["symbol"] == "rare"]
    assert fetch(engine, view, Selection(("rare",)), last=5) == places(rare)
    assert fetch(engine, view, limit=5) == places(ordered)[:5]
    end = ordered[5000]["timestamp"]
    before = [row for row in ordered if row["timestamp"] < end]
    assert fetch(engine, view, Selection(end=end), last=7) == places(before)[-7:]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 60),
    seen=st.integers(1, 200),
    committed=st.integers(0, 200),
    cut=st.integers(0, 200),
    ties=st.sampled_from([1, 40]),
)
def test_pages_are_the_whole_though_data_arrive(
    engine: DuckDB, seed: int, size: int, seen: int, committed: int, cut: int, ties: int
) -> None:
    """The first page sees `seen` rows; then everything is committed, compacted, and more comes."""
    rows = random_trades(seed, 200, exchanges=("sim", "ASX"), ties=ties)
    committed, cut = min(committed, seen), max(min(cut, seen), min(committed, seen))
    expected = places(sorted(rows[:seen], key=order_of))
    with TemporaryDirectory() as name:
        folder = Path(name)
        view = view_of(folder, [rows[:committed]], rows[committed:seen])
        found, page = fetch_records(engine, view, Selection(), Wanted(limit=size, fields=PLACE))
        pages = [places(found.to_pylist())]
        # Part of the tail seen then is committed now, beside rows that came later.
        late = rows[committed:cut] + rows[seen : seen + 30]
        later = view_of(folder, [rows[:committed], late], rows[cut:seen] + rows[seen + 30 :])
        while page is not None:
            token = to_token(page, "q")
            page = from_token(token, "q")
            found, page = fetch_records(
                engine,
                replace(later, pin=page.pin),
                Selection(),
                Wanted(limit=size, fields=PLACE),
                after=page,
            )
            pages.append(places(found.to_pylist()))
    assert [place for page_ in pages for place in page_] == expected
    assert all(len(found) == size for found in pages[:-1])


def test_pages_survive_compaction(engine: DuckDB, tmp_path: Path) -> None:
    """A compacted file holds rows of many commits; each knows its own."""
    rows = random_trades(3, 90)
    for n, row in enumerate(rows):
        row["commit_sequence"] = n // 30 + 1
    # This index does not know which commits are in a file, so each is looked through.
    index = Files((write_file(tmp_path, rows, 4),), rough=True)
    view = replace(view_of(tmp_path, []), index=index, sequence=4)
    for commit in (1, 2, 3):
        pinned = replace(view, pin=Pin(commit))
        expected = sorted(rows[: 30 * commit], key=order_of)
        assert fetch(engine, pinned) == places(expected)
        assert fetch(engine, pinned, last=10) == places(expected)[-10:]


def test_ranges_pin_the_tail(engine: DuckDB, tmp_path: Path) -> None:
    rows = random_trades(5, 60)
    view = view_of(tmp_path, [rows[:20]], rows[20:])
    pinned = replace(view, pin=Pin(1, ranges_of(rows[20:40])))
    assert fetch(engine, pinned) == places(sorted(rows[:40], key=order_of))
    assert fetch(engine, replace(view, pin=Pin(1))) == places(sorted(rows[:20], key=order_of))


def test_times_are_half_open_and_dates_are_where_it_is_traded(
    engine: DuckDB, tmp_path: Path
) -> None:
    sydney = datetime(2024, 3, 4, 13, tzinfo=UTC)  # midnight of the 5th
    utc = datetime(2024, 3, 5, tzinfo=UTC)
    rows = [
        trade("A", moment + shift, "1", exchange=exchange, offset=n)
        for n, (exchange, moment, shift) in enumerate(
            (exchange, moment, shift)
            for exchange, moment in (("ASX", sydney), ("sim", utc))
            for shift in (-timedelta(microseconds=1), timedelta(0), timedelta(hours=23))
        )
    ]
    view = view_of(tmp_path, [rows[:2]], rows[2:])
    day = Selection(start=date(2024, 3, 5), end=date(2024, 3, 6))
    assert sorted(offset for *_, offset in fetch(engine, view, day)) == [1, 2, 4, 5]
    one = replace(day, exchanges=("ASX",))
    assert sorted(offset for *_, offset in fetch(engine, view, one)) == [1, 2]
    exact = Selection(start=sydney, end=sydney + timedelta(hours=23))
    assert sorted(offset for *_, offset in fetch(engine, view, exact)) == [1, 3, 4]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition("price", ">=", "2"), [1, 2]),
        (Condition("price", "=", "2.0"), [1]),
        (Condition("quantity", "<", "0.5"), [0]),
        (Condition("side", "=", "SELL"), [2]),
        (Condition("side", "!=", "SELL"), [0, 1]),
        (Condition("price_forming", "=", "false"), [1]),
        (Condition("exchange_date", "=", "2024-03-05"), [2]),
        (Condition("timestamp", ">", "2024-03-04T11:00:00+11:00"), [1, 2]),
        (Condition("log_offset", "<=", "1"), [0, 1]),
        (Condition("trade_id", "=", "x'; drop table trades; --"), []),
        (Condition("trade_id", "=", "it's"), [0]),
    ],
)
def test_conditions_are_parsed_by_the_columns_type(
    engine: DuckDB, tmp_path: Path, condition: Condition, expected: list[int]
) -> None:
    at = datetime(2024, 3, 4, tzinfo=UTC)
    rows = [
        trade("A", at, "1", "0.1", offset=0, trade_id="it's"),
        trade("A", at + timedelta(hours=1), "2", offset=1, price_forming=False),
        trade("A", at + timedelta(hours=25), "3", offset=2, side="SELL"),
    ]
    view = view_of(tmp_path, [rows[:1]], rows[1:])
    found = fetch(engine, view, Selection(where=(condition,)))
    assert [offset for *_, offset in found] == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Condition("prise", "=", "1"), "no column"),
        (Condition("price", "~", "1"), "no operator"),
        (Condition("price", "=", "12,5"), "no price"),
        (Condition("price", "=", "NaN"), "no price"),
        (Condition("price", "=", "1e5"), "no price"),
        (Condition("price", "=", "0.000000001"), "no price"),
        (Condition("price", "=", "12345678901"), "no price"),
        (Condition("timestamp", ">", "2024-03-04T11:00:00"), "time zone"),
        (Condition("timestamp", ">", "yesterday"), "no time"),
        (Condition("exchange_date", "=", "4.3.2024"), "no date"),
        (Condition("log_offset", "=", "9" * 19), "no whole number"),
        (Condition("log_partition", "=", str(2**31)), "no whole number"),
        (Condition("price_forming", "=", "maybe"), "neither true nor false"),
        (Condition('symbol" = 1 or "symbol', "=", "x"), "no column"),
    ],
)
def test_conditions_that_cannot_be_say_what_there_is(
    engine: DuckDB, tmp_path: Path, condition: Condition, message: str
) -> None:
    view = view_of(tmp_path, [])
    with pytest.raises(BadInput, match=message):
        fetch(engine, view, Selection(where=(condition,)))


def test_what_cannot_be_asked_is_refused(engine: DuckDB, tmp_path: Path) -> None:
    view = view_of(tmp_path, [[trade("A", datetime(2024, 3, 4, tzinfo=UTC), "1")]])
    for wanted in (Wanted(last=0), Wanted(limit=0), Wanted(last=1, limit=1), Wanted(fields=("x",))):
        with pytest.raises(BadInput):
            fetch_records(engine, view, Selection(), wanted)
    same = datetime(2024, 3, 4, tzinfo=UTC)
    with pytest.raises(BadInput, match="empty"):
        fetch_records(engine, view, Selection(start=same, end=same), Wanted())
    with pytest.raises(BadInput, match="zone"):
        fetch_records(engine, view, Selection(start=datetime(2024, 3, 4)), Wanted())  # noqa: DTZ001


@pytest.mark.parametrize("symbol", ["a/b", "a'b", 'a"b', "$p0", "{rows}", "a;b", "日本", "%", ""])
def test_any_text_may_be_a_symbol(engine: DuckDB, tmp_path: Path, symbol: str) -> None:
    at = datetime(2024, 3, 4, tzinfo=UTC)
    rows = [trade("A", at, "1"), trade(symbol, at, "2", offset=1)]
    view = view_of(tmp_path, [rows])
    assert len(fetch(engine, view, Selection((symbol,)))) == 1
    assert len(fetch(engine, view, Selection((symbol, "A")))) == 2


def test_columns_are_plain_and_those_asked_for(engine: DuckDB, tmp_path: Path) -> None:
    rows = random_trades(2, 50)
    view = view_of(tmp_path, [rows[:25]], rows[25:])
    found, _ = fetch_records(engine, view, Selection(), Wanted())
    assert found.schema.names == [
        n for n in to_table([]).schema.names if n not in ("exchange_date", "commit_sequence")
        and not n.startswith("log_")
    ]  # fmt: skip
    assert found.schema.field("symbol").type == pa.string()
    assert found.schema.field("price").type == pa.decimal128(18, 8)
    assert found.schema.field("timestamp").type == pa.timestamp("us", tz="UTC")
    found, _ = fetch_records(engine, view, Selection(), Wanted(fields=("price", "symbol")))
    assert found.schema.names == ["price", "symbol"]
    nothing, _ = fetch_records(engine, view_of(tmp_path, []), Selection(), Wanted(last=3))
    assert nothing.num_rows == 0
    assert nothing.schema.field("price").type == pa.decimal128(18, 8)


def test_files_of_an_earlier_version_get_the_defaults(engine: DuckDB, tmp_path: Path) -> None:
    """With and without a newer file or a tail beside them."""
    at = datetime(2024, 3, 4, tzinfo=UTC)
    gone = ("side", "price_forming", "id_space", "timestamp_nanos", "trade_id", "commit_sequence")
    old = write_file(tmp_path, [trade("A", at, "1")], 1, drop=gone)
    new = write_file(tmp_path, [trade("A", at + timedelta(1), "2", offset=1)], 2)
    base = replace(view_of(tmp_path, []), sequence=2)
    tail = to_table([trade("A", at + timedelta(2), "3", offset=2)])
    for index, rows, sides in (
        (Files((old,)), None, ["UNKNOWN"]),
        (Files((old, new)), None, ["UNKNOWN", "BUY"]),
        (Files((old,)), tail, ["UNKNOWN", "BUY"]),
    ):
        view = replace(base, index=index, tail=rows)
        found, _ = fetch_records(engine, view, Selection(), Wanted())
        assert found["side"].to_pylist() == sides
        assert found["price_forming"].to_pylist() == [True] * len(sides)
        assert found["timestamp_nanos"].to_pylist() == [0] * len(sides)


def test_tokens_that_were_changed_or_belong_elsewhere_are_refused(
    engine: DuckDB, tmp_path: Path
) -> None:
    rows = random_trades(4, 50)
    view = view_of(tmp_path, [rows[:25]], rows[25:])
    _, page = fetch_records(engine, view, Selection(), Wanted(limit=10))
    assert page is not None
    asked = question("trades", Selection(), Wanted(limit=10), NOW)
    token = to_token(page, asked)
    assert from_token(token, asked) == page
    assert from_token(token, question("trades", Selection(), Wanted(limit=99), NOW)) == page
    others = [
        question("quotes", Selection(), Wanted(limit=10), NOW),
        question("trades", Selection(("A",)), Wanted(limit=10), NOW),
        question("trades", Selection(), Wanted(limit=10, fields=("price",)), NOW),
        question("trades", Selection(), Wanted(limit=10), Past("2024-03-04T00:00:00Z")),
        question("trades", Selection(), Wanted(limit=10), Past(as_known_at="2024-03-04T00:00:00Z")),
        question("trades", Selection(), Wanted(limit=10), Past(history=True)),
    ]
    for other in others:
        with pytest.raises(BadInput, match="page token"):
            from_token(token, other)
    broken = [token[:-4], token + "AAAA", token.swapcase(), "", "x", "%%%", "日本", "A" * 40]
    broken += [
        token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :]
        for n in range(0, len(token), 7)
    ]
    for text in broken:
        with pytest.raises(BadInput, match="page token"):
            from_token(text, asked)


def test_prices_stay_exact(engine: DuckDB, tmp_path: Path) -> None:
    at = datetime(2024, 3, 4, tzinfo=UTC)
    rows = [trade("A", at, "9999999999.99999999"), trade("A", at, "0.00000001", offset=1)]
    found, _ = fetch_records(engine, view_of(tmp_path, [rows]), Selection(), Wanted())
    assert found["price"].to_pylist() == [Decimal("9999999999.99999999"), Decimal("0.00000001")]
