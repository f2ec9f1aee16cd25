"""DBN files as databento_dbn itself writes them, back to the same fields; and broken ones."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.feeds import open_feed
from k2.feeds.dbn import open_file
from tests.feeds.databento import (
    DAY_NANOS,
    NOON_NANOS,
    Days,
    Mapped,
    dbn,
    definition,
    head,
    mapped,
    quote,
    told,
    trade,
    write,
)
from tests.feeds.reading import NOON, read_all, undictionaried

ABC = mapped("ABC", 7)
NOW_NANOS = int(NOON.timestamp()) * 10**9
TRADES = dbn.Schema.TRADES
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


def read(path: Path, **more: Any) -> dict[str, list[Row]]:
    """The rows of each kind in a file."""
    found = read_all(open_file(path, clock=lambda: NOON, **more))
    return {kind: undictionaried(table).to_pylist() for kind, table in found.items()}


def refused(found: dict[str, list[Row]]) -> list[tuple[int, str | None, str]]:
    """Record, column and reason of each reject."""
    return [(row["line"], row["column"], row["reason"]) for row in found.get("rejects", [])]


def nanos(row: Row, name: str) -> int:
    return (row[name] - EPOCH) // timedelta(microseconds=1) * 1000


def fields_of(row: Row, vendor: dict[str, str]) -> Row:
    """The fields that a record of any event had, from its row."""
    received = row["source_received_timestamp"]
    rest = int(vendor.get("ts_recv_nanos", 0))
    return {
        "publisher_id": int(vendor["publisher_id"]),
        "instrument_id": int(vendor["instrument_id"]),
        "ts_event": nanos(row, "timestamp") + row["timestamp_nanos"],
        "ts_recv": dbn.UNDEF_TIMESTAMP
        if received is None
        else nanos(row, "source_received_timestamp") + rest,
        "flags": int(vendor.get("flags", 0)),
        "depth": int(vendor.get("depth", 0)),
        "ts_in_delta": int(vendor.get("ts_in_delta", 0)),
        "sequence": row["source_sequence"],
    }


def trade_of(row: Row) -> Row:
    side = {"BUY": dbn.Side.BID, "SELL": dbn.Side.ASK, "UNKNOWN": dbn.Side.NONE}[row["side"]]
    return fields_of(row, json.loads(row["vendor_data"])) | {
        **{"price": int(row["price"].scaleb(9)), "size": int(row["quantity"]), "side": side}
    }


def quote_of(row: Row) -> Row:
    vendor = json.loads(row["vendor_data"])
    units = {
        f"{side}_px_00": dbn.UNDEF_PRICE
        if row[f"{side}_price"] is None
        else int(row[f"{side}_price"].scaleb(9))
        for side in ("bid", "ask")
    }
    sizes = {f"{side}_sz_00": int(row[f"{side}_quantity"] or 0) for side in ("bid", "ask")}
    counts = {f"{side}_ct_00": int(vendor.get(f"{side}_count", 0)) for side in ("bid", "ask")}
    letters = {"action": vendor["action"], "side": vendor["side"]}
    return fields_of(row, vendor) | units | sizes | counts | letters


sides = st.sampled_from([dbn.Side.ASK, dbn.Side.BID, dbn.Side.NONE])
prices = st.integers(-(2**63) // 10 + 1, (2**63 - 1) // 10 - 1).map(lambda units: units * 10)
times = st.integers(0, NOW_NANOS)
shared = {
    **{"publisher_id": st.integers(0, 2**16 - 1), "instrument_id": st.integers(0, 2**32 - 1)},
    **{"ts_event": times, "ts_recv": times | st.just(dbn.UNDEF_TIMESTAMP), "side": sides},
    **{"depth": st.integers(0, 255), "flags": st.integers(0, 255), "price": prices},
    **{"ts_in_delta": st.integers(-(2**31), 2**31 - 1), "sequence": st.integers(0, 2**32 - 1)},
}
trades = st.fixed_dictionaries(shared | {"size": st.integers(1, 2**32 - 2)})
levels = st.builds(
    dbn.BidAskPair,
    prices.filter(bool) | st.just(dbn.UNDEF_PRICE),
    prices.filter(bool),
    st.just(0),
    *[st.integers(0, 2**32 - 2)] * 3,
)
actions = st.sampled_from([dbn.Action.ADD, dbn.Action.CANCEL, dbn.Action.CLEAR, dbn.Action.TRADE])
quotes = st.fixed_dictionaries(shared | {"action": actions, "levels": levels})


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(trades, max_size=30),
    version=st.integers(1, 3),
    suffix=st.sampled_from(["dbn", "dbn.zst"]),
    ts_out=st.booleans(),
)
def test_trades_come_back_as_they_were(
    tmp_path: Path, rows: list[Row], version: int, suffix: str, ts_out: bool
) -> None:
    start = head(TRADES, dataset="GLBX.MDP3", version=version, ts_out=ts_out)
    records = [trade(**row, **({"ts_out": 1} if ts_out else {})) for row in rows]
    path = write(tmp_path / f"x.{suffix}", start, records)
    found = read(path, symbol="ESH6")
    assert refused(found) == []
    back = [trade_of(row) for row in found.get("trades", [])]
    assert back == [{name: row[name] for name in back[0]} for row in rows]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(quotes, max_size=30))
def test_quotes_come_back_as_they_were(tmp_path: Path, rows: list[Row]) -> None:
    records = [quote(**row) for row in rows]
    start = head(dbn.Schema.MBP_1, dataset="GLBX.MDP3")
    found = read(write(tmp_path / "x.dbn", start, records), symbol="ESH6", kind="quotes")
    assert refused(found) == []
    back = [quote_of(row) for row in found.get("quotes", [])]
    letters = ("action", "side")
    assert back == [
        {
            name: getattr(record, name).value if name in letters else getattr(record, name)
            for name in back[0]
        }
        for record in records
    ]


def test_what_a_trade_is(tmp_path: Path) -> None:
    records = [
        trade(1, ts_event=NOON_NANOS + 1_789, flags=8 | 4, sequence=42),
        trade(2, side=dbn.Side.ASK, ts_recv=dbn.UNDEF_TIMESTAMP, ts_in_delta=0),
        trade(3, side=dbn.Side.NONE),
    ]
    found = read(write(tmp_path / "x.dbn.zst", head(TRADES, ABC), records))
    first, second, third = found["trades"]
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    assert first == {
        **{"symbol": "ABC", "exchange": "XNAS", "asset_class": "equities", "source": "dbn"},
        **{"timestamp": noon + timedelta(microseconds=1), "timestamp_nanos": 789},
        **{"source_received_timestamp": noon + timedelta(microseconds=1), "source_sequence": 42},
        **{"price": Decimal("101.25"), "quantity": 10, "side": "BUY", "price_forming": True},
        **{"conditions": "maybe_bad_book,bad_ts_recv", "currency": None, "trade_id": None},
        **{"id_space": "", "occurrence": 0, "ingestion_timestamp": NOON},
        "vendor_data": '{"publisher_id":"2","instrument_id":"7","flags":"12",'
        '"ts_recv_nanos":"100","ts_in_delta":"500"}',
    }
    # The side of a trade is the aggressor's: an ask is one who sells into the bids.
    assert (second["side"], third["side"]) == ("SELL", "UNKNOWN")
    assert second["source_received_timestamp"] is None
    assert second["vendor_data"] == '{"publisher_id":"2","instrument_id":"7"}'


def test_trades_and_quotes_of_events(tmp_path: Path) -> None:
    empty = dbn.BidAskPair()
    records = [
        quote(1),
        quote(2, action=dbn.Action.TRADE),
        quote(3, empty, action=dbn.Action.CLEAR),
    ]
    path = write(tmp_path / "x.dbn", head(dbn.Schema.MBP_1, ABC), records)
    found = read(path)
    (traded,) = found["trades"]
    assert (traded["price"], traded["source_sequence"]) == (Decimal("101.25"), 2)
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    assert [tuple(row[name] for name in names) for row in found["quotes"]] == [
        *[(Decimal("101.24"), 5, Decimal("101.26"), 6)] * 2,
        (None, None, None, None),
    ]
    assert read(path, kind="trades").keys() == {"trades"}
    with pytest.raises(BadInput, match="has no instruments"):
        read(path, kind="instruments")


def test_equal_records_are_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dbn", head(TRADES, ABC), [trade(1), trade(1), trade(2), trade(1)])
    assert [row["occurrence"] for row in read(path)["trades"]] == [0, 1, 0, 2]


def test_symbols_go_by_the_day_of_receipt(tmp_path: Path) -> None:
    old, new = mapped("OLD", 7, 4, 6), mapped("NEW", 7, 6, 7)
    late = {"ts_recv": NOON_NANOS + DAY_NANOS}
    records = [
        trade(1),
        trade(2, **late),
        trade(3, ts_recv=NOON_NANOS + 2 * DAY_NANOS),
        trade(4, ts_recv=dbn.UNDEF_TIMESTAMP),
        trade(5, instrument_id=8),
    ]
    found = read(write(tmp_path / "x.dbn", head(TRADES, old, new), records))
    assert [row["symbol"] for row in found["trades"]] == ["OLD", "NEW", "OLD"]
    assert refused(found) == [
        (3, "instrument_id", "instrument 7 stands for no symbol on that day"),
        (5, "instrument_id", "instrument 8 stands for no symbol on that day"),
    ]
    assert [row["raw"] for row in found["rejects"]] == [bytes(records[2]), bytes(records[4])]
    by_id = Mapped("7", [Days(date(2026, 1, 5), date(2026, 1, 6), "ABC")])
    asked = {"stype_in": dbn.SType.INSTRUMENT_ID, "stype_out": dbn.SType.RAW_SYMBOL}
    found = read(write(tmp_path / "y.dbn", head(TRADES, by_id, **asked), records[:1]))
    assert [row["symbol"] for row in found["trades"]] == ["ABC"]


@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_a_file_of_several_schemas(tmp_path: Path, block_bytes: int) -> None:
    fine = 5
    records = [
        *[told("ESH6", 7), trade(1), trade(2, instrument_id=8), quote(3)],
        *[told("NQH6", 8), trade(4, instrument_id=8), definition("ESH6", 7, 250_000_000)],
        *[told("ESM6", 7), trade(5), definition("6JH6", 9, fine), told("6JH6", 9)],
        *[trade(6, instrument_id=9), trade(7)],
    ]
    path = write(tmp_path / "x.dbn", head(None, dataset="GLBX.MDP3"), records)
    found = read(path, block_bytes=block_bytes)
    traded = [(row["symbol"], row["source_sequence"]) for row in found["trades"]]
    assert traded == [("ESH6", 1), ("NQH6", 4), ("ESM6", 5), ("ESM6", 7)]
    assert [row["symbol"] for row in found["quotes"]] == ["ESH6"]
    (row,) = found["instruments"]
    assert (row["symbol"], row["currency"], row["tick_size"]) == ("ESH6", "USD", Decimal("0.25"))
    assert (row["listed_to"], row["valid_from"]) == (None, date(2026, 1, 5))
    assert json.loads(row["vendor_data"])["security_type"] == "FUT"
    why = "the instrument cannot be kept: min_price_increment 0.000000005 in record 10 is no"
    assert sorted(refused(found)) == [
        (3, "instrument_id", "instrument 8 stands for no symbol: no message before it says which"),
        (10, "min_price_increment", f"{why} multiple of 0.00000001"),
        (12, "min_price_increment", f"{why} multiple of 0.00000001"),
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_definitions_of_older_versions(tmp_path: Path, version: int) -> None:
    kind = (dbn.v1, dbn.v2)[version - 1].InstrumentDefMsg
    import numpy as np

    one = np.zeros(1, np.dtype(kind._dtypes))
    one["length"], one["rtype"], one["instrument_id"] = one.itemsize // 4, 19, 7
    one["raw_symbol"], one["min_price_increment"], one["strike_price"] = b"ESH6", 10**7, 10**9
    one["ts_event"] = one["expiration"] = NOON_NANOS
    one["activation"] = dbn.UNDEF_TIMESTAMP
    start = head(dbn.Schema.DEFINITION, dataset="GLBX.MDP3", version=version)
    (row,) = read(write(tmp_path / "x.dbn", start, [one.tobytes()]))["instruments"]
    assert (row["symbol"], row["tick_size"]) == ("ESH6", Decimal("0.01"))
    assert (row["listed_from"], row["listed_to"]) == (None, date(2026, 1, 5))
    assert json.loads(row["vendor_data"])["strike_price"] == "1.000000000"


def test_an_instrument_with_finer_prices_is_refused_from_there_on(tmp_path: Path) -> None:
    records = [trade(1), trade(2, price=101_250_000_001), trade(3), trade(4, instrument_id=8)]
    path = write(tmp_path / "x.dbn", head(TRADES, ABC, mapped("XYZ", 8)), records)
    found = read(path, block_bytes=1)
    assert [row["source_sequence"] for row in found["trades"]] == [1, 4]
    why = "the instrument cannot be kept: price 101.250000001 in record 2 is no multiple of"
    assert refused(found) == [(n, "price", f"{why} 0.00000001") for n in (2, 3)]


def test_what_cannot_be_a_record_is_kept_whole(tmp_path: Path) -> None:
    records = [
        trade(1, price=dbn.UNDEF_PRICE),
        trade(2, action=dbn.Action.CANCEL),
        trade(3, size=2**32 - 1),
        trade(4, ts_event=dbn.UNDEF_TIMESTAMP),
        trade(5, size=0),
        trade(6, price=-(10**9)),
        trade(7, ts_event=NOW_NANOS + 10**12),
        trade(8),
    ]
    found = read(write(tmp_path / "x.dbn", head(TRADES, ABC), records))
    assert [row["source_sequence"] for row in found["trades"]] == [8]
    reasons = [reason for _, _, reason in refused(found)]
    assert reasons[:6] == [
        "the price is undefined",
        "action 'C' is no trade",
        "the size is undefined",
        "the time is undefined",
        'quantity "0" is not above zero',
        'price "-1" is not above zero',
    ]
    assert "after it was first seen" in reasons[6]
    assert [row["raw"] for row in found["rejects"]] == [bytes(record) for record in records[:7]]


def broken(path: Path, *more: bytes) -> str:
    """What is said of a file of these bytes."""
    path.write_bytes(b"".join(more))
    with pytest.raises(BadInput) as caught:
        read(path)
    return str(caught.value)


def test_a_file_that_is_cut_or_broken_is_told_of_with_its_byte(tmp_path: Path) -> None:
    path, start, one = tmp_path / "x.dbn", head(TRADES, ABC), bytes(trade(1))
    n = len(start)
    assert "byte 0: this is no DBN file" in broken(path, b"ts_event,price\n1,2\n")
    assert "byte 0: this is no DBN file" in broken(path, one)
    assert "byte 3: DBN version 9 is unknown" in broken(path, b"DBN\x09", start[4:])
    assert "byte 5: the file ends within its metadata" in broken(path, start[:5])
    assert f"byte {n - 1}: the file ends within its metadata" in broken(path, start[:-1])
    assert "metadata cannot be read" in broken(path, start[:8], b"\xff" * (n - 8), one)
    assert "cannot be" in broken(path, start[:4], b"\xff" * 4, start[8:])
    cut = f"byte {n + 2 * 48 - 1}: the file ends within record 2"
    assert cut in broken(path, start, one, one[:-1])
    assert f"byte {n + 49}: the file ends within record 2" in broken(path, start, one, b"\x0c")
    assert f"byte {n + 48}: the file is broken: a record of 0" in broken(
        path, start, one, bytes(48)
    )
    longer = b"\x0d" + one[1:] + bytes(4)
    assert f"byte {n}: the file is broken: a record of type 0" in broken(path, start, longer)
    unknown = one[:1] + b"\x63" + one[2:]
    assert f"byte {n + 48}: the file is broken: a record of" in broken(path, start, one, unknown)
    whole = write(tmp_path / "y.dbn.zst", start, [trade(i) for i in range(999)]).read_bytes()
    assert "broken" in broken(tmp_path / "z.dbn.zst", whole[:-9])


def test_what_is_whole_is_read_before_the_error(tmp_path: Path) -> None:
    path = tmp_path / "x.dbn"
    path.write_bytes(head(TRADES, ABC) + bytes(trade(1)) * 3 + b"\x0c")
    feed = open_file(path, clock=lambda: NOON)
    assert [records.table.num_rows for records in feed.read()] == [3]
    with pytest.raises(BadInput, match="within record 4"):
        feed.read()
    feed.close()


def test_an_empty_file_and_one_without_records(tmp_path: Path) -> None:
    (tmp_path / "x.dbn").touch()
    assert read(tmp_path / "x.dbn") == {}
    assert read(write(tmp_path / "y.dbn", head(TRADES, ABC), [])) == {}


def test_which_exchange_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dbn", head(TRADES, ABC, dataset="XABC.FEED"), [trade(1)])
    with pytest.raises(BadInput, match=r"the dataset 'XABC.FEED' is not known"):
        read(path)
    feed = open_file(path, "databento", clock=lambda: NOON)
    assert [(e.name, e.asset_class) for e in feed.exchanges] == [("XABC", "equities")]
    feed.close()
    path = write(tmp_path / "y.dbn", head(TRADES, ABC, dataset="GLBX.MDP3"), [trade(1)])
    feed = open_feed(f"dbn:{path}?exchange=CME&kind=trades", None, lambda: NOON)
    (exchange,) = feed.exchanges
    assert (exchange.name, exchange.asset_class) == ("CME", "futures")
    assert exchange.day_roll == timedelta(hours=7)
    feed.close()


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"symbol": "XYZ"}, "names its symbols itself"),
        ({"instruments": "x.csv"}, "tells its symbols itself"),
        ({"kind": "quotes"}, "has no quotes"),
        ({"position": "line 3 of 5-6"}, "no position"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, asked: dict[str, str], wrong: str) -> None:
    path = write(tmp_path / "x.dbn", head(TRADES, ABC), [trade(1)])
    with pytest.raises(BadInput, match=wrong):
        read(path, **asked)
    path = write(tmp_path / "y.dbn", head(dbn.Schema.MBO), [])
    with pytest.raises(BadInput, match="K2 reads no mbo"):
        read(path)
    with pytest.raises(BadInput, match="no option 'kinds'"):
        open_feed(f"dbn:{path}?kinds=trades", None, lambda: NOON)


def test_without_the_library_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.dbn", head(TRADES, ABC), [trade(1)])
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "databento_dbn")
    sys.path_importer_cache.clear()
    with pytest.raises(BadInput) as caught:
        read(path)
    assert caught.value.hint == "pip install 'k2-lakehouse[dbn]'"


def test_times_that_go_back_are_numbered_by_a_second_reading(tmp_path: Path) -> None:
    records: Sequence[Any] = [*[trade(n) for n in range(300)], trade(5), trade(299)]
    path = write(tmp_path / "x.dbn", head(TRADES, ABC), records)
    feed = open_file(path, clock=lambda: NOON, block_bytes=4_096)
    feed._occurrences["trades"]._window = 100  # type: ignore[attr-defined]
    found = undictionaried(read_all(feed)["trades"])
    assert found["occurrence"].to_pylist() == [0] * 300 + [1, 1]
