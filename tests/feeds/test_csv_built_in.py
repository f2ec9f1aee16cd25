"""The built-in mappings of public archives, over invented lines in their published formats.

Formats: Binance public data 2025, Tardis CSV 2026, Databento CSV as written by databento_dbn 0.72.
"""

import gzip
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from k2.errors import BadInput
from k2.feeds.csv import open_file
from k2.feeds.mapping import built_in, load_mapping
from tests.feeds.reading import NOON, Whole, read_file


def archive(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.csv", text)
    return path


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_every_built_in_mapping_loads() -> None:
    assert "asx" in built_in()
    for name in built_in():
        assert load_mapping(name).name == name


def test_binance_spot_trades(tmp_path: Path) -> None:
    text = (
        "5100000001,91250.10000000,0.00420000,383.25042000,1767600000121,True,True\n"
        "5100000002,91250.20000000,1.00000000,91250.20000000,1767600000121455,False,True\n"
        "5100000003,91250.20000000,1.00000000,91250.20000000,17676000001214,False,True\n"
    )
    path = archive(tmp_path, "BTCUSDT-trades-2026-01-05", text)
    found = read_file(path, "binance", "trades")
    assert found.column("symbol") == ["BTCUSDT"] * 2
    assert found.column("trade_id") == ["5100000001", "5100000002"]
    assert found.column("side") == ["SELL", "BUY"]
    assert found.column("price") == [Decimal("91250.1"), Decimal("91250.2")]
    assert found.column("quantity") == [Decimal("0.0042"), Decimal(1)]
    times = ["2026-01-05T08:00:00.121", "2026-01-05T08:00:00.121455"]
    assert found.column("timestamp") == [at(text) for text in times]
    assert found.column("occurrence") == [None, None]
    assert found.distinct("id_space") == {""}
    assert (found.distinct("exchange"), found.distinct("asset_class")) == ({"binance"}, {"crypto"})
    assert found.refused() == [(3, "time", 'time "17676000001214" is no time')]


def test_binance_futures_trades_with_and_without_a_header(tmp_path: Path) -> None:
    header = "id,price,qty,quote_qty,time,is_buyer_maker\n"
    line = "7,91250.1,0.004,365.0004,1767600000121,true\n"
    for text in (header + line, line):
        path = archive(tmp_path, "BTCUSDT-trades-2026-01-05", text)
        found = read_file(path, "binance-usdm", "trades")
        assert (found.column("trade_id"), found.column("side")) == (["7"], ["SELL"])
        assert found.distinct("exchange") == {"binance-usdm"}
        assert found.refused() == []


@pytest.mark.parametrize(("name", "more"), [("binance-agg", ",True"), ("binance-usdm-agg", "")])
def test_binance_aggregated_trades(tmp_path: Path, name: str, more: str) -> None:
    line = f"33,91250.1,0.5,5100000001,5100000004,1767600000121455,False{more}\n"
    path = archive(tmp_path, "BTCUSDT-aggTrades-2026-01-05", line)
    found = read_file(path, name, "trades")
    assert (found.column("trade_id"), found.column("id_space")) == (["33"], ["agg"])
    assert found.column("vendor_data") == ['{"first_id":"5100000001","last_id":"5100000004"}']
    assert found.column("symbol") == ["BTCUSDT"]
    assert found.column("side") == ["BUY"]


TRADES = "id,price,qty,quote_qty,time,is_buyer_maker"
AGGREGATED = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("time", ["1767600000121", "1767600000121455"])
@pytest.mark.parametrize(
    ("name", "kind", "columns", "more"),
    [
        ("binance", "trades", f"{TRADES},is_best_match", ",True"),
        ("binance-usdm", "trades", TRADES, ""),
        ("binance-agg", "aggTrades", f"{AGGREGATED},is_best_match", ",True"),
        ("binance-usdm-agg", "aggTrades", AGGREGATED, ""),
    ],
)
def test_every_binance_archive(
    tmp_path: Path, name: str, kind: str, columns: str, more: str, time: str, header: bool
) -> None:
    """Spot and futures, milliseconds and microseconds, with and without a header line."""
    between = "383.25042000" if kind == "trades" else "5100000001,5100000004"
    line = f"33,91250.10000000,0.00420000,{between},{time}"
    text = f"{line},true{more}\n{line.replace('33', '34', 1)},False{more}\n"
    path = archive(tmp_path, f"BTCUSDT-{kind}-2026-01-05", f"{columns}\n{text}" if header else text)
    found = read_file(path, name, "trades")
    assert found.refused() == []
    assert found.column("trade_id") == ["33", "34"]
    assert found.column("side") == ["SELL", "BUY"]
    assert found.distinct("price") == {Decimal("91250.1")}
    assert found.distinct("quantity") == {Decimal("0.0042")}
    micros = "121455" if len(time) == 16 else "121"
    assert found.distinct("timestamp") == {at(f"2026-01-05T08:00:00.{micros}")}
    assert found.distinct("id_space") == {"" if kind == "trades" else "agg"}
    assert found.distinct("exchange") == {"binance-usdm" if "usdm" in name else "binance"}


def test_a_name_that_tells_no_symbol(tmp_path: Path) -> None:
    path = archive(tmp_path, "archive", "33,1,1,1,1767600000121,True,True\n")
    with pytest.raises(BadInput, match="which symbol"):
        read_file(path, "binance", "trades")
    assert read_file(path, "binance", "trades", symbol="X").column("symbol") == ["X"]


def tardis(folder: Path, kind: str, text: str, **more: str) -> Whole:
    path = folder / f"{kind}.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    return read_file(path, "tardis", kind, **more)


def test_tardis_trades(tmp_path: Path) -> None:
    header = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    text = (
        "deribit,BTC-PERP,1767600000121000,1767600000128733,A-1,sell,91250.1,0.0042\n"
        "deribit,ETH-PERP,1767600000121001,1767600000128734,,unknown,3000,1\n"
        "binance,BTC-PERP,1767600000121000,1767600000128733,A-1,sell,91250.1,0.0042\n"
    )
    found = tardis(tmp_path, "trades", header + text)
    assert found.column("symbol") == ["BTC-PERP", "ETH-PERP"]
    assert found.column("trade_id") == ["A-1", None]
    assert found.column("occurrence") == [None, 0]
    assert found.column("side") == ["SELL", "UNKNOWN"]
    assert found.column("timestamp")[0] == at("2026-01-05T08:00:00.121")
    assert found.column("source_received_timestamp")[0] == at("2026-01-05T08:00:00.128733")
    assert found.distinct("exchange") == {"deribit"}
    ((line, column, reason),) = found.refused()
    assert (line, column) == (4, "exchange")
    assert reason == 'exchange "binance" is not the exchange of the file\'s first record, "deribit"'
    feed = open_file(tmp_path / "trades.csv.gz", "tardis", "trades", clock=lambda: NOON)
    assert [(e.name, e.asset_class) for e in feed.exchanges] == [("deribit", "crypto")]
    feed.close()
    feed = open_file(
        tmp_path / "trades.csv.gz", "tardis", "trades", exchange="mine", clock=lambda: NOON
    )
    assert [e.name for e in feed.exchanges] == ["mine"]
    feed.close()
    assert tardis(tmp_path, "trades", header).records.num_rows == 0


def test_tardis_quotes(tmp_path: Path) -> None:
    header = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
    text = (
        "okex,BTC-USDT,1767600000121000,1767600000128733,2,91250.2,91250.1,3\n"
        "okex,BTC-USDT,1767600000121000,1767600000128733,,,91250.1,3\n"
    )
    found = tardis(tmp_path, "quotes", header + text)
    assert found.column("ask_price") == [Decimal("91250.2"), None]
    assert found.column("ask_quantity") == [2, None]
    assert found.column("bid_quantity") == [3, 3]
    assert found.column("occurrence") == [0, 0]
    assert found.refused() == []


HEAD = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags"
RAW = "1767600000000100000,1767600000000000001,0,2,7,T,B,0,101250000000,10,0,500,42"
PRETTY = (
    "2026-01-05T08:00:00.000100000Z,2026-01-05T08:00:00.000000001Z,0,2,7,T,B,0,101.250000000,"
    "10,0,500,42"
)


@pytest.mark.parametrize(("name", "line"), [("databento", PRETTY), ("databento-raw", RAW)])
def test_databento_trades(tmp_path: Path, name: str, line: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{HEAD},ts_in_delta,sequence,symbol\n{line},AAPL\n")
    found = read_file(path, name, "trades", exchange="XNAS")
    assert found.column("timestamp") == [at("2026-01-05T08:00:00")]
    assert found.column("timestamp_nanos") == [1]
    assert found.column("source_received_timestamp") == [at("2026-01-05T08:00:00.000100")]
    assert found.column("price") == [Decimal("101.25")]
    assert (found.column("quantity"), found.column("side")) == ([10], ["BUY"])
    assert (found.column("source_sequence"), found.column("symbol")) == ([42], ["AAPL"])
    assert found.column("vendor_data") == ['{"publisher_id":"2","flags":"0"}']
    with pytest.raises(BadInput, match="which exchange"):
        read_file(path, name, "trades")
    with pytest.raises(BadInput, match="names its symbols itself"):
        read_file(path, name, "trades", exchange="XNAS", symbol="AAPL")
    path.write_text(f"{HEAD},ts_in_delta,sequence\n{line}\n")
    found = read_file(path, name, "trades", exchange="XNAS", symbol="MSFT")
    assert found.column("symbol") == ["MSFT"]
    with pytest.raises(BadInput, match="no column 'symbol'"):
        read_file(path, name, "trades", exchange="XNAS")


@pytest.mark.parametrize(
    ("name", "line", "bid", "none"),
    [
        ("databento", PRETTY, "101.240000000", ""),
        ("databento-raw", RAW, "101240000000", "9223372036854775807"),
    ],
)
def test_databento_quotes(tmp_path: Path, name: str, line: str, bid: str, none: str) -> None:
    path = tmp_path / "x.csv"
    levels = "bid_px_00,ask_px_00,bid_sz_00,ask_sz_00,bid_ct_00,ask_ct_00"
    path.write_text(
        f"{HEAD},ts_in_delta,sequence,{levels},symbol\n{line},{bid},{none},5,0,1,0,AAPL\n"
    )
    found = read_file(path, name, "quotes", exchange="XNAS")
    assert found.column("bid_price") == [Decimal("101.24")]
    assert found.column("bid_quantity") == [5]
    assert found.column("ask_price") == [None]
    assert found.column("ask_quantity") == [None]
    assert found.refused() == []
