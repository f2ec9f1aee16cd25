"""As-of joins against a plain reference: over files and tails, and over a home."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput, NotFound
from k2.query import JoinWanted, Reader, Rule, Selection, beside, open_reader
from k2.query.duckdb import DuckDB
from k2.query.join import Joined, fetch_join, joined_columns
from k2.query.knowledge import KNOWN_AT, known_at
from k2.query.selection import parse_conditions
from tests.query.joined import (
    DAWN,
    MICROSECOND,
    Quoted,
    join,
    known,
    quote,
    random_records,
)
from tests.query.make import Row, split, to_table, trade
from tests.query.test_corrections import about, view_of

SECOND = timedelta(seconds=1)
KINDS = [("trades", "quotes"), ("quotes", "trades"), ("trades", "trades"), ("quotes", "quotes")]


def joined(
    engine: DuckDB,
    parts: dict[str, tuple[list[list[Row]], list[Row]]],
    wanted: JoinWanted,
    selection: Selection,
) -> Joined:
    """The join over files and a tail of each kind."""
    with TemporaryDirectory() as folder:
        views = {kind: view_of(Path(folder), kind, *part) for kind, part in parts.items()}
        left, right = views[wanted.left], views[wanted.right]
        return fetch_join(engine, left, right, selection, wanted)


def every(wanted: JoinWanted) -> JoinWanted:
    """With all columns, lineage included."""
    names = tuple(joined_columns(wanted.left, wanted.right))
    return JoinWanted(
        wanted.left, wanted.right, wanted.rule, wanted.max_age, wanted.last, wanted.limit, names
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    counts=st.tuples(st.integers(1, 60), st.integers(0, 120)),
    cuts=st.lists(st.integers(0, 10**6), max_size=3),
    kinds=st.sampled_from(KINDS),
    strict=st.booleans(),
    look_ahead=st.booleans(),
    minutes=st.sampled_from([None, 0, 3, 10, 60]),
    chosen=st.sampled_from([(), ("A",), ("A", "B")]),
    rows=st.sampled_from([15, 50, 10**6]),
)
def test_joins_equal_a_plain_reference_however_rows_are_split(
    engine: DuckDB,
    seed: int,
    counts: tuple[int, int],
    cuts: list[int],
    kinds: tuple[str, str],
    strict: bool,
    look_ahead: bool,
    minutes: int | None,
    chosen: tuple[str, ...],
    rows: int,
) -> None:
    made = {
        kind: random_records(kind, seed, count, exchanges=("sim", "ASX"))
        for kind, count in zip(("trades", "quotes"), counts, strict=True)
    }
    parts = {}
    for kind, of in made.items():
        *commits, tail = split(of, cuts)
        parts[kind] = commits, tail
    age = None if minutes is None else timedelta(minutes=minutes)
    wanted = every(JoinWanted(*kinds, Rule(strict, look_ahead), age))
    with pytest.MonkeyPatch.context() as patched:
        # Windows of few rows, so that many are needed.
        patched.setattr(beside, "_MOST_ROWS", rows)
        patched.setattr(beside, "_LEAST_ROWS", 1 + rows // 3)
        found = joined(engine, parts, wanted, Selection(chosen))
    left = [row for row in made[kinds[0]] if not chosen or row["symbol"] in chosen]
    expected = join(left, made[kinds[1]], wanted)
    assert plain(found.table) == without_commits(expected)
    places = [row[name_of(wanted, "log_offset")] for row in expected]
    assert found.missing == sum(place is None for place in places)


def plain(table: pa.Table) -> list[Row]:
    return without_commits(table.to_pylist())


def without_commits(rows: Sequence[Row]) -> list[Row]:
    """Rows without the commits that brought them, which a reference does not know."""
    return [{k: v for k, v in row.items() if not k.endswith("commit_sequence")} for row in rows]


def name_of(wanted: JoinWanted, name: str) -> str:
    """What a column of the right is called."""
    columns = joined_columns(wanted.left, wanted.right)
    return next(called for called, of in columns.items() if of.is_right and of.name == name)


def test_a_late_quote_is_not_taken_where_a_plain_join_takes_it(
    engine: DuckDB, tmp_path: Path
) -> None:
    """The newest quote by event time was not known yet when the trade printed."""
    at = [DAWN + n * SECOND for n in range(60)]
    quotes = [
        quote("A", at[0], "10.00", "10.02", offset=0),
        quote("A", at[10], "10.10", "10.12", offset=1),
        # Two that were told of half a minute later.
        quote("A", at[18], "11.00", "11.02", offset=2),
        quote("A", at[19], "12.00", "12.02", offset=3),
    ]
    for row, told in zip(quotes[2:], at[48:], strict=False):
        row["source_received_timestamp"] = told
    trades = [
        trade("A", at[5], "10.01", offset=0),
        trade("A", at[20], "10.12", offset=1),
        trade("A", at[50], "12.02", offset=2),
    ]
    views = (
        view_of(tmp_path, "trades", [trades[:2]], trades[2:]),
        view_of(tmp_path, "quotes", [quotes[:2]], quotes[2:]),
    )
    tables = {"t": to_table(trades), "q": to_table(quotes, views[1].columns)}
    naive = engine.ask(
        "select q.bid_price from t asof left join q on q.symbol = t.symbol "
        "and q.exchange = t.exchange and t.timestamp >= q.timestamp order by t.timestamp",
        tables,
    )[0]
    assert bids(naive) == ["10", "12", "12"]
    ours = fetch_join(engine, *views, Selection(), JoinWanted())
    assert bids(ours.table) == ["10", "10.1", "12"]
    assert (ours.passed, ours.missing) == (1, 0)
    ahead = fetch_join(engine, *views, Selection(), JoinWanted(rule=Rule(look_ahead=True)))
    assert bids(ahead.table) == bids(naive)
    # What is too old is not replaced by what is older still, nor by what was not known.
    aged = fetch_join(engine, *views, Selection(), JoinWanted(max_age=9 * SECOND))
    assert bids(aged.table) == ["10", None, None]


def bids(table: pa.Table) -> list[str | None]:
    found = table["bid_price"].to_pylist()
    return [None if bid is None else f"{bid.normalize():f}" for bid in found]


def test_columns_are_the_lefts_then_the_rights() -> None:
    names = [name for name, of in joined_columns("trades", "quotes").items() if of.own]
    assert names[:4] == ["symbol", "exchange", "timestamp", "price"]
    assert names.index("quote_timestamp") > names.index("vendor_data")
    assert {"bid_price", "ask_quantity", "quote_ingestion_timestamp"} <= set(names)
    assert not {"quote_symbol", "quote_exchange", "quote_bid_price"} & set(names)
    assert len(set(names)) == len(names)
    twice = joined_columns("trades", "trades")
    assert (twice["price"].is_right, twice["trade_price"].is_right) == (False, True)
    assert "trade_trade_id" in twice


def test_the_last_of_equal_times_stands_and_strict_goes_before_them(
    engine: DuckDB, tmp_path: Path
) -> None:
    quotes = [
        quote("A", DAWN, "1", "9", offset=0),
        quote("A", DAWN + SECOND, "2", "9", offset=3, partition=0),
        quote("A", DAWN + SECOND, "3", "9", offset=1, partition=1),
        quote("A", DAWN + SECOND, "4", "9", offset=2, partition=1, timestamp_nanos=7),
    ]
    trades = [
        trade("A", DAWN + SECOND, "5", offset=0, timestamp_nanos=3),
        trade("A", DAWN + SECOND, "5", offset=1, timestamp_nanos=7),
        trade("A", DAWN + SECOND, "5", offset=2),
    ]
    views = view_of(tmp_path, "trades", [], trades), view_of(tmp_path, "quotes", [], quotes)
    ours = fetch_join(engine, *views, Selection(), JoinWanted()).table
    assert list(zip(ours["timestamp_nanos"].to_pylist(), bids(ours), strict=True)) == [
        (0, "3"),
        (3, "3"),
        (7, "4"),
    ]
    strict = fetch_join(engine, *views, Selection(), JoinWanted(rule=Rule(strict=True))).table
    assert bids(strict) == ["1", "3", "3"]


def test_where_nothing_is_there(engine: DuckDB, tmp_path: Path) -> None:
    some = view_of(tmp_path, "trades", [[trade("A", DAWN, "1")]], [])
    none = view_of(tmp_path, "quotes", [], [])
    found = fetch_join(engine, some, none, Selection(), JoinWanted())
    assert found.missing == found.table.num_rows == 1
    assert found.table["bid_price"].to_pylist() == [None]
    assert found.table.schema.field("bid_price").type == pa.decimal128(18, 8)
    empty = fetch_join(engine, none, some, Selection(), JoinWanted("quotes", "trades"))
    assert (empty.table.num_rows, empty.missing) == (0, 0)
    assert empty.table.schema.field("price").type == pa.decimal128(18, 8)
    nobody = fetch_join(engine, some, none, Selection(("B",)), JoinWanted())
    assert nobody.table.num_rows == 0


def test_a_quote_of_long_ago_stands_still(engine: DuckDB, tmp_path: Path) -> None:
    """The windows go back as far as they must, over years, and no further than `max_age`."""
    old = [quote("A", DAWN - timedelta(days=900), "1", "2", offset=0)]
    many = [
        quote("B", DAWN - timedelta(days=800) + n * timedelta(hours=4), "3", "4", offset=n)
        for n in range(1, 4_000)
    ]
    trades = [trade("A", DAWN, "5", offset=0), trade("B", DAWN, "5", offset=1)]
    views = (
        view_of(tmp_path, "trades", [trades], []),
        view_of(tmp_path, "quotes", [old, many], []),
    )
    assert bids(fetch_join(engine, *views, Selection(), JoinWanted()).table) == ["1", "3"]
    for days, expected in ((900, ["1", "3"]), (899, [None, "3"])):
        aged = JoinWanted(max_age=timedelta(days=days))
        assert bids(fetch_join(engine, *views, Selection(), aged).table) == expected


def test_both_ways_of_telling_when_a_record_was_known_agree(engine: DuckDB, tmp_path: Path) -> None:
    rows = random_records("trades", 5, 400)
    table = to_table(rows)
    told = engine.ask(f"select epoch_us({KNOWN_AT}) as at from t", {"t": table})[0]["at"]
    ours = known_at(table)
    assert ours.tolist() == told.to_pylist()
    assert ours.tolist() == [(known(row) - _epoch()) // MICROSECOND for row in rows]
    unknown = table.set_column(
        table.schema.get_field_index("source_received_timestamp"),
        "source_received_timestamp",
        pa.nulls(len(rows), pa.timestamp("us", "UTC")),
    )
    bare = [{**row, "source_received_timestamp": None} for row in rows]
    assert known_at(unknown).tolist() == [(known(row) - _epoch()) // MICROSECOND for row in bare]


def _epoch() -> Any:
    return DAWN.replace(year=1970, month=1, day=1, hour=0)


def test_what_cannot_be_joined() -> None:
    for wrong in ({"left": "bars"}, {"right": "instruments"}, {"max_age": timedelta(-1)}):
        with pytest.raises(BadInput):
            JoinWanted(**wrong)
    with pytest.raises(BadInput, match="no column 'nosuch'"):
        fetch_join(None, None, None, Selection(), JoinWanted(fields=("nosuch",)))  # type: ignore[arg-type]


# Over a home, as every door asks.


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Quoted]:
    made = Quoted(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(market: Quoted) -> Iterator[Reader]:
    with open_reader(market.folder) as opened:
        yield opened


def as_logged(reader: Reader, kind: str) -> list[Row]:
    """All rows of a kind, with the places that the log gave them."""
    names = tuple(reader.records(kind, Selection(), limit=1).table.column_names)
    fields = (*names, "exchange_date", "log_topic", "log_id", "log_partition", "log_offset")
    found: list[Row] = reader.records(kind, Selection(), fields=fields).table.to_pylist()
    return found


def test_history_and_tail_are_joined_as_one(market: Quoted, reader: Reader) -> None:
    for step in range(4):
        for kind in ("quotes", "trades"):
            market.send(kind, random_records(kind, step, 80, exchanges=("sim", "ASX")))
        if step % 2 == 0:
            market.commit()
        for wanted in (JoinWanted(), JoinWanted("quotes", "trades", Rule(strict=True))):
            answer = reader.join(every(wanted), Selection())
            rights = as_logged(reader, wanted.right)
            expected = join(as_logged(reader, wanted.left), rights, wanted)
            assert plain(answer.table) == without_commits(expected)
    assert "quotes" in str(answer.meta["snapshots"])
    narrow = Selection(("A",), ("sim",), DAWN + timedelta(minutes=30), DAWN + timedelta(hours=1))
    answer = reader.join(every(JoinWanted()), narrow)
    lefts = [
        row
        for row in as_logged(reader, "trades")
        if (row["symbol"], row["exchange"]) == ("A", "sim")
        and narrow.start <= row["timestamp"] < narrow.end
    ]
    expected = join(lefts, as_logged(reader, "quotes"), JoinWanted())
    assert plain(answer.table) == without_commits(expected)
    last = reader.join(every(JoinWanted(last=3)), narrow)
    assert plain(last.table) == without_commits(expected[-3:])
    some = reader.join(
        JoinWanted(fields=("bid_price", "price")),
        Selection(where=parse_conditions(["price>=150"])),
    )
    assert some.table.column_names == ["bid_price", "price"]
    assert min(some.table["price"].to_pylist()) >= Decimal(150)


def test_pages_see_one_state_of_both_while_data_arrive(market: Quoted, reader: Reader) -> None:
    for number, kinds in enumerate(KINDS):
        for kind in ("quotes", "trades"):
            market.send(kind, random_records(kind, number, 60))
        market.commit()
        wanted = every(JoinWanted(*kinds))
        expected = plain(reader.join(wanted, Selection()).table)
        pages: list[Row] = []
        after = None
        for step in range(100):
            page = JoinWanted(*kinds, limit=23, fields=wanted.fields)
            answer = reader.join(page, Selection(), after=after)
            pages += plain(answer.table)
            after = answer.next
            if after is None:
                break
            for kind in ("quotes", "trades"):
                market.send(kind, random_records(kind, 1000 + step, 9))
            if step % 2:
                market.commit()
        assert pages == expected
    with pytest.raises(BadInput, match="page token"):
        reader.join(JoinWanted(limit=5), Selection(("A",)), after="x")


def test_any_past_can_be_joined(market: Quoted, reader: Reader) -> None:
    market.send("trades", random_records("trades", 1, 50))
    market.commit()
    alone = reader.snapshots().table["snapshot_id"][0].as_py()
    market.send("quotes", random_records("quotes", 1, 50))
    market.send("trades", random_records("trades", 2, 50))
    market.commit()
    both = datetime.now(UTC).isoformat()
    expected = plain(reader.join(every(JoinWanted()), Selection()).table)
    for kind in ("quotes", "trades"):
        market.send(kind, random_records(kind, 3, 50))
    # By then no quote had been committed.
    answer = reader.join(JoinWanted(), Selection(), as_of=alone)
    assert answer.table.num_rows == 50
    assert set(answer.table["bid_price"].to_pylist()) == {None}
    assert answer.meta["as_of"] == alone
    assert len(expected) == 100
    then = reader.join(every(JoinWanted()), Selection(), as_of=both)
    assert plain(then.table) == expected
    with pytest.raises(NotFound):
        reader.join(JoinWanted(), Selection(), as_of="no-such-tag")
    moment = DAWN + timedelta(minutes=40)
    known_then = reader.join(every(JoinWanted()), Selection(), as_known_at=moment.isoformat())
    rows = {
        kind: [row for row in as_logged(reader, kind) if known(row) <= moment]
        for kind in ("trades", "quotes")
    }
    wanted = join(rows["trades"], rows["quotes"], JoinWanted())
    assert plain(known_then.table) == without_commits(wanted)


def test_notes_say_what_was_passed_over_and_what_looks_ahead(
    market: Quoted, reader: Reader
) -> None:
    late = quote("A", DAWN + SECOND, "3", "4")
    late["source_received_timestamp"] = DAWN + timedelta(minutes=5)
    market.send("quotes", [quote("A", DAWN, "1", "2"), late])
    market.send("trades", [trade("A", DAWN + 2 * SECOND, "3"), trade("B", DAWN, "3")])
    (passed, missing) = notes(reader.join(JoinWanted(), Selection()).meta)
    assert passed.startswith("for 1 trade the newest of quotes was not known yet")
    assert missing == "none of quotes stood beside 1 trade"
    aged = notes(reader.join(JoinWanted(max_age=timedelta(0)), Selection(("A", "B"))).meta)
    assert aged[-1] == "none of quotes at most 0s old stood beside 2 trades"
    ahead = notes(reader.join(JoinWanted(rule=Rule(look_ahead=True)), Selection(("A",))).meta)
    assert [note.split(":")[0] for note in ahead] == ["looks ahead"]
    assert notes(reader.join(JoinWanted(last=1, rule=Rule()), Selection(("C",))).meta) == []


def notes(meta: dict[str, object]) -> list[str]:
    found = meta["notes"]
    assert isinstance(found, list)
    return found


def test_a_trade_that_was_busted_stands_beside_nothing(market: Quoted, reader: Reader) -> None:
    trades = [trade("A", DAWN + n * SECOND, str(n + 1), trade_id=str(n)) for n in range(3)]
    quotes = [quote("A", DAWN + timedelta(seconds=n, milliseconds=500), "1", "2") for n in range(3)]
    for n, row in enumerate(quotes):
        row["bid_quantity"] = Decimal(n + 1)
    market.send("trades", trades)
    market.send("quotes", quotes)
    wanted = JoinWanted("quotes", "trades")
    assert [int(p) for p in reader.join(wanted, Selection()).table["price"].to_pylist()] == [
        1,
        2,
        3,
    ]
    market.send("corrections", [about(trades[1], "BUST", DAWN + timedelta(hours=1))])
    answer = reader.join(wanted, Selection(start=DAWN + SECOND))
    assert [int(p) for p in answer.table["price"].to_pylist()] == [1, 3]
    assert answer.meta["corrections"] == 1
    assert any("as corrections left them" in note for note in notes(answer.meta))
    before = (DAWN + timedelta(minutes=30)).isoformat()
    answer = reader.join(wanted, Selection(), as_known_at=before)
    assert [int(p) for p in answer.table["price"].to_pylist()] == [1, 2, 3]
    both = reader.join(JoinWanted("trades", "trades", Rule(strict=True)), Selection(("A",)))
    assert [p and int(p) for p in both.table["trade_price"].to_pylist()] == [None, 1]
    assert both.meta["corrections"] == 1
