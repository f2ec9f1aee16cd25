import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.feeds import EndOfFeed
from k2.feeds.faults import injected
from k2.feeds.market import BLOCK, KNOWN, MOST_RECORDS, Market, Parameters, zipf_quotas
from k2.feeds.simulator import SimulatorFeed, open_feed, parse
from k2.model import latest

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

# Of the first 70,000 records (which reach into a second block) as CSV without ingestion_timestamp.
# They were made on one machine: another one that makes other records would fail here.
GOLDEN = {
    "?rate=max&seed=7&symbols=50": {
        "trades": "0e21d20fe78f9bac",
        "quotes": "e0e521c5219241e4",
    },
    "?rate=max&kinds=trades&symbols=300&nominal=1": {
        "trades": "e4c5c678040c5cd9",
    },
    "?rate=max&seed=9&symbols=3&gaps=0.01&duplicates=0.02&late=0.01&malformed=0.03": {
        "trades": "fae0fd7aa98ef1da",
        "quotes": "80560424046bee27",
    },
}


def at_noon() -> datetime:
    return NOON


def drain(feed: SimulatorFeed, most: int = 2**62) -> dict[str, Any]:
    """All that a feed has, or at least `most` records: one table a kind, in one chunk."""
    found: dict[str, list[pa.Table]] = {}
    rows = 0
    while rows < most:
        try:
            for records in feed.read():
                found.setdefault(records.kind, []).append(records.table)
                rows += records.table.num_rows
        except EndOfFeed:
            break
    return {kind: pa.concat_tables(tables).combine_chunks() for kind, tables in found.items()}


def records_of(rest: str, position: str | None = None) -> dict[str, Any]:
    return drain(open_feed(rest, position, at_noon))


def by_symbol(table: Any, column: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    pairs = zip(table["symbol"].to_pylist(), table[column].to_pylist(), strict=True)
    for symbol, value in pairs:
        found.setdefault(symbol, []).append(int(value))
    return found


def ticks(column: Any) -> Any:
    """Decimals with eight places as integers in 1e-8."""
    return np.array([int(value.scaleb(8)) for value in column.to_pylist()], dtype=np.int64)


def checksum(table: Any) -> str:
    """Of all columns but ingestion_timestamp, as text: no library's bytes come in."""
    found = hashlib.sha256()
    for name in table.schema.names:
        if name != "ingestion_timestamp":
            column = table[name]
            column = column.cast(pa.int64()) if name == "timestamp" else column
            values = column.cast(pa.string()).to_pylist()
            found.update("\n".join(v or "" for v in [name, *values]).encode())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("rest", GOLDEN)
def test_records_are_the_same_on_any_machine(rest: str) -> None:
    found = records_of(f"{rest}&count=70000")
    assert {kind: checksum(table) for kind, table in found.items()} == GOLDEN[rest]


def test_another_seed_makes_other_records() -> None:
    one, other = (records_of(f"?rate=max&count=1000&seed={seed}") for seed in (1, 2))
    assert checksum(one["trades"]) != checksum(other["trades"])


FAULTY = "?rate=max&seed=3&symbols=7&count=80000&gaps=.01&duplicates=.01&late=.01&malformed=.01"
WHOLE = records_of(FAULTY)


@settings(max_examples=15, deadline=None)
@given(chunk=st.integers(1_000, BLOCK), cut=st.integers(0, 80_000))
def test_chunks_and_resuming_change_nothing(chunk: int, cut: int) -> None:
    first = open_feed(f"{FAULTY}&chunk={chunk}", None, at_noon)
    parts = [drain(first, cut)] if cut else []
    parts.append(records_of(FAULTY, first.position()))
    for kind in ("trades", "quotes"):
        whole = pa.concat_tables([part[kind] for part in parts if kind in part])
        assert whole.combine_chunks().equals(WHOLE[kind])


@given(number=st.integers(0, MOST_RECORDS // BLOCK - 2))
@settings(max_examples=15, deadline=None)
def test_any_block_follows_from_its_number(number: int) -> None:
    market = Market(Parameters(symbols=5, pace=1_000_000))
    block, following = market.block(number), market.block(number + 1)
    assert (np.diff(block.times) >= 0).all()
    assert number * BLOCK <= block.times[0]
    assert block.times[-1] <= (number + 1) * BLOCK <= following.times[0]
    for n, (_, base) in enumerate(KNOWN[:5]):
        mine, its = (np.flatnonzero((b.symbols == n) & b.is_quote) for b in (block, following))
        assert block.sequences[mine[0]] == number * len(mine) + 1
        assert block.sequences[mine[-1]] + 1 == following.sequences[its[0]]
        last, first = block.prices[0][mine[-1]], following.prices[0][its[0]]
        assert first / last == pytest.approx(1, rel=0.001)
        assert 0.5 < first / (float(base) * 1e8) < 1.5


def test_tables_have_the_model_s_columns() -> None:
    for kind, table in WHOLE.items():
        assert table.schema.equals(latest(kind).arrow)
        table.validate(full=True)
        for field in latest(kind).arrow:
            assert field.nullable or table[field.name].null_count == 0
        constant = {"exchange", "source", "currency", "asset_class", "vendor_data", "occurrence"}
        values = {name: set(pc.unique(table[name]).to_pylist()) for name in constant}
        assert values == {
            "exchange": {"simulated"},
            "source": {"simulator"},
            "currency": {"USDT"},
            "asset_class": {"crypto"},
            "vendor_data": {None},
            "occurrence": {None},
        }


def test_numbers_count_up_by_one_in_each_symbol() -> None:
    found = records_of("?rate=max&symbols=30&count=70000")
    for kind, column in (("trades", "trade_id"), ("quotes", "source_sequence")):
        for numbers in by_symbol(found[kind], column).values():
            assert numbers == list(range(1, len(numbers) + 1))
    assert found["trades"]["source_sequence"].null_count == found["trades"].num_rows


def test_volumes_follow_zipf() -> None:
    found = records_of(f"?rate=max&kinds=trades&symbols=50&count={BLOCK}")
    counts = Counter(found["trades"]["symbol"].to_pylist())
    names = Market(Parameters(symbols=50)).names
    assert names[:3] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    for n, name in enumerate(names):
        assert counts[name] * (n + 1) / counts["BTCUSDT"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("total", "count"), [(65_536, 1), (32_768, 5_000), (65_536, 5_000)])
def test_every_symbol_trades(total: int, count: int) -> None:
    quotas = zipf_quotas(total, count)
    assert quotas.sum() == total
    assert quotas.min() >= 1
    assert (np.diff(quotas) <= 0).all()


def test_names_are_all_different() -> None:
    names = Market(Parameters(symbols=5_000)).names
    assert len(set(names)) == 5_000
    assert all(name.isascii() and name.endswith("USDT") for name in names)


def test_prices_lie_on_a_tick_grid_and_quotes_have_a_spread() -> None:
    found = records_of("?rate=max&symbols=40&count=20000")
    market = Market(Parameters(symbols=40))
    grid = dict(zip(market.names, zip(market.ticks, market.lots, strict=True), strict=True))
    for kind, columns in (
        ("trades", ("price", "quantity")),
        ("quotes", ("bid_price", "bid_quantity")),
        ("quotes", ("ask_price", "ask_quantity")),
    ):
        steps = np.array([grid[name] for name in found[kind]["symbol"].to_pylist()])
        for column, step in zip(columns, steps.T, strict=True):
            values = ticks(found[kind][column])
            assert (values > 0).all()
            assert (values % step == 0).all()
    assert (ticks(found["quotes"]["ask_price"]) > ticks(found["quotes"]["bid_price"])).all()


def test_trades_print_about_the_quotes_around_them() -> None:
    found = records_of("?rate=max&symbols=5&count=60000")
    quotes, trades = (
        table.filter(pc.equal(pc.cast(table["symbol"], pa.string()), "BTCUSDT"))
        for table in (found["quotes"], found["trades"])
    )
    seen, printed = (t["timestamp"].cast(pa.int64()).to_numpy() for t in (quotes, trades))
    at = np.searchsorted(seen, printed, side="right") - 1
    known = at >= 0
    bids, asks = (ticks(quotes[name])[at[known]] for name in ("bid_price", "ask_price"))
    prices = ticks(trades["price"])[known]
    is_buy = np.array(trades["side"].to_pylist())[known] == "BUY"
    assert set(trades["side"].to_pylist()) == {"BUY", "SELL"}
    assert np.abs(prices / ((bids + asks) / 2) - 1).max() < 0.0005
    assert (prices[is_buy] >= asks[is_buy]).mean() > 0.5
    assert (prices[~is_buy] <= bids[~is_buy]).mean() > 0.5


def test_symbols_move_together_and_by_themselves() -> None:
    market = Market(Parameters(symbols=12, pace=20_000))
    levels = np.empty((80, 12))
    for n in range(len(levels)):
        block = market.block(n)
        levels[n, block.symbols] = block.prices[0]  # of those of one symbol, the last stays
    moves = np.diff(np.log(levels), axis=0)
    correlations = np.corrcoef(moves.T)[np.triu_indices(12, 1)]
    assert 0.3 < correlations.mean() < 0.9
    # 1.5 basis points a second make 2.7 for the 3.3 seconds of a block, less or more by symbol.
    assert 0.0001 < moves.std(axis=0).min() < moves.std(axis=0).max() < 0.0005


def test_records_come_in_bursts() -> None:
    times = Market(Parameters(pace=20_000)).block(0).times
    per_slice = np.bincount(times // 20_000)
    assert per_slice.max() > 4 * np.median(per_slice)


def test_as_fast_as_it_goes_time_runs_from_the_start_at_the_nominal_rate() -> None:
    found = records_of(f"?rate=max&kinds=trades&start=2025-12-31T23:00:00%2B01:00&nominal={BLOCK}"
                       f"&count={3 * BLOCK}")["trades"]  # fmt: skip
    times = found["timestamp"]
    assert times[0].as_py() == pytest.approx(
        datetime(2025, 12, 31, 22, tzinfo=UTC), abs=timedelta(milliseconds=50)
    )
    assert times[BLOCK].as_py() - times[0].as_py() == pytest.approx(
        timedelta(seconds=1), abs=timedelta(milliseconds=50)
    )
    assert pc.unique(found["ingestion_timestamp"]).to_pylist() == [NOON]


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def test_a_live_market_follows_the_clock() -> None:
    clock = Clock()
    feed = open_feed("?rate=5000&kinds=trades&symbols=5&seed=4", None, clock)
    tables = []
    for _ in range(100):
        tables += [records.table for records in feed.read()]
        if tables and tables[-1].num_rows:
            newest = tables[-1]["timestamp"][-1].as_py()
            assert clock.now - timedelta(seconds=1) < newest <= clock.now
        clock.now += timedelta(milliseconds=50)
    live = pa.concat_tables(tables)
    # 5 seconds at 5,000 a second; bursts come and go.
    assert live.num_rows == pytest.approx(25_000, rel=0.15)
    other = records_of(
        f"?rate=max&nominal=5000&kinds=trades&symbols=5&seed=4&count={live.num_rows}"
    )
    times = ["timestamp", "ingestion_timestamp"]
    assert live.combine_chunks().drop_columns(times).equals(other["trades"].drop_columns(times))
    shift = pc.subtract(
        live["timestamp"].cast(pa.int64()), other["trades"]["timestamp"].cast(pa.int64())
    )
    assert len(set(shift.to_pylist())) == 1


def test_a_live_market_waits_for_a_reader_and_follows_a_clock_set_back() -> None:
    clock = Clock()
    feed = open_feed("?rate=1000&kinds=trades", None, clock)
    assert sum(r.table.num_rows for r in feed.read()) >= 1
    clock.now += timedelta(hours=1)
    (records,) = feed.read()
    assert records.table["timestamp"][0].as_py() == clock.now
    assert records.table.num_rows < 10
    clock.now -= timedelta(hours=3)
    (records,) = feed.read()
    assert records.table["timestamp"][0].as_py() == clock.now
    assert list(feed.read()) == []


def test_a_resumed_live_market_goes_on_now() -> None:
    feed = open_feed("?rate=1000&kinds=trades&symbols=1", "123456", at_noon)
    (records,) = feed.read()
    assert records.table["trade_id"][0].as_py() == "123457"
    assert records.table["timestamp"][0].as_py() == NOON


def test_injected_faults_are_found_in_the_records() -> None:
    faults = injected(parse(FAULTY).market, 0, 80_000)
    counts = Counter(faults["fault"].to_pylist())
    assert all(650 < counts[fault] < 950 for fault in ("gap", "duplicate", "late", "malformed"))
    told = {
        (r["kind"], r["symbol"], r["sequence"]): (r["fault"], r["detail"])
        for r in faults.to_pylist()
    }
    seen: Counter[tuple[str, str, int]] = Counter()
    late: set[tuple[str, str, int]] = set()
    bad: dict[tuple[str, str, int], str] = {}
    for kind, column in (("trades", "trade_id"), ("quotes", "source_sequence")):
        side = "" if kind == "trades" else "bid_"
        newest: dict[str, int] = {}
        columns = ("symbol", column, f"{side}quantity", f"{side}price")
        values = [WHOLE[kind][name].to_pylist() for name in columns]
        years = pc.year(WHOLE[kind]["timestamp"]).to_pylist()
        for symbol, number, quantity, price, year in zip(*values, years, strict=True):
            key = (kind, symbol, int(number))
            seen[key] += 1
            if seen[key] == 1 and key[2] < newest.get(symbol, 0):
                late.add(key)
            newest[symbol] = max(newest.get(symbol, 0), key[2])
            if quantity < 0:
                bad[key] = "negative quantity"
            if price == 0:
                bad[key] = "price of zero"
            if year > 2030:
                bad[key] = "timestamp ten years ahead"
    assert {k for k, n in seen.items() if n > 1} == {
        k for k, f in told.items() if f[0] == "duplicate"
    }
    assert max(seen.values()) == 2
    assert bad == {k: f[1] for k, f in told.items() if f[0] == "malformed"}
    assert late == {k for k, f in told.items() if f[0] == "late"}
    gaps = {k for k, f in told.items() if f[0] == "gap"}
    assert not gaps & set(seen)
    assert len(seen) + len(gaps) == 80_000
    assert sum(table.num_rows for table in WHOLE.values()) == (
        80_000 - counts["gap"] + counts["duplicate"]
    )


def test_injected_tells_a_part_and_stops_at_the_count() -> None:
    whole = injected(parse(FAULTY).market, 0, 10**9)
    numbers = whole["number"].to_numpy()
    assert numbers.max() < 80_000
    part = injected(parse(FAULTY).market, 60_000, 70_000)
    assert part.equals(whole.filter(pa.array((numbers >= 60_000) & (numbers < 70_000))))
    assert injected(Parameters(), 0, 10**6).num_rows == 0


def test_a_market_has_its_own_name_and_space_of_ids() -> None:
    urls = ["?seed=1", "?seed=2", "?symbols=5", "?kinds=trades", "?rate=7", "?gaps=0.1"]
    feeds = [open_feed(url, None, at_noon) for url in urls]
    assert len({feed.name for feed in feeds}) == len(urls)
    assert open_feed("?seed=1&count=5", None, at_noon).name == feeds[0].name
    assert open_feed("?seed=1&exchange=other", None, at_noon).exchanges[0].name == "other"
    spaces = records_of("?seed=1&count=100&rate=max")["trades"]["id_space"].to_pylist()
    assert len(set(spaces)) == 1
    assert spaces[0]


def test_the_end_comes_after_count_records() -> None:
    feed = open_feed("?rate=max&count=10", None, at_noon)
    assert sum(table.num_rows for table in drain(feed).values()) == 10
    assert feed.position() == "10"
    with pytest.raises(EndOfFeed):
        feed.read()
    with pytest.raises(EndOfFeed):
        open_feed("?rate=max&count=10", "10", at_noon).read()


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        ("?symbol=5", "symbol"),
        ("?symbols=0", "symbols"),
        ("?symbols=5001", "symbols"),
        ("?symbols=five", "symbols"),
        ("?symbols=²", "symbols"),
        ("?rate=fast", "rate"),
        ("?rate=1.5", "rate"),
        ("?seed=-1", "seed"),
        ("?seed=4294967296", "seed"),
        ("?kinds=trades,bars", "kind"),
        ("?kinds=", "kind"),
        ("?exchange=a/b", "exchange"),
        ("?gaps=2", "gaps"),
        ("?gaps=NaN", "gaps"),
        ("?gaps=0.6&late=0.6", "faults"),
        ("?start=2026-01-05", "start"),
        ("?start=yesterday", "start"),
        ("?seed=1&seed=2", "twice"),
        ("?seed", "parameters"),
        ("BTCUSDT", "parameters"),
    ],
)
def test_parameters_that_cannot_be_are_named(rest: str, names: str) -> None:
    with pytest.raises(BadInput, match=names):
        open_feed(rest, None, at_noon)


@pytest.mark.parametrize("position", ["", "-1", "1.5", "x", "²", "9" * 18])
def test_positions_that_cannot_be_are_refused(position: str) -> None:
    with pytest.raises(BadInput):
        open_feed("", position, at_noon)
