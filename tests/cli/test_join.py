"""`k2 join` and what is measured on it: late quotes are not taken, every format has the same."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.cli.conftest import K2

MAPPING = """\
name = "venue"
[exchange]
name = "LSE"
asset_class = "equities"
zone = "Europe/London"
[trades.fields]
symbol = "symbol"
timestamp = { column = "time", format = "%Y-%m-%dT%H:%M:%S.%fZ" }
price = "price"
quantity = "quantity"
[quotes.fields]
symbol = "symbol"
timestamp = { column = "time", format = "%Y-%m-%dT%H:%M:%S.%fZ" }
source_received_timestamp = { column = "received", format = "%Y-%m-%dT%H:%M:%S.%fZ" }
bid_price = "bid"
bid_quantity = "bid_quantity"
ask_price = "ask"
ask_quantity = "ask_quantity"
"""
TRADES = """\
symbol,time,price,quantity
VOD,2026-03-02T10:00:01.000Z,72.51,100
VOD,2026-03-02T10:00:03.000Z,72.61,50
VOD,2026-03-02T10:00:09.000Z,72.71,70
BARC,2026-03-02T10:00:09.000Z,210,5
"""
QUOTES = """\
symbol,time,received,bid,bid_quantity,ask,ask_quantity
VOD,2026-03-02T10:00:00.500Z,2026-03-02T10:00:00.600Z,72.5,900,72.52,400
VOD,2026-03-02T10:00:02.900Z,2026-03-02T10:00:04.000Z,72.6,300,72.62,200
"""


@pytest.fixture
def home(k2: K2, tmp_path: Path) -> None:
    (tmp_path / "venue.toml").write_text(MAPPING)
    for kind, text in (("trades", TRADES), ("quotes", QUOTES)):
        (tmp_path / f"{kind}.csv").write_text(text)
        ended = k2("load", f"{kind}.csv", "--kind", kind, "--mapping", "venue.toml")
        assert ended.code == 0, ended.talk


def bids(k2: K2, *asked: str) -> list[str]:
    ended = k2("join", "trades", "quotes", "VOD", *asked, "--csv", "--fields", "price,bid_price")
    assert ended.code == 0, ended.talk
    return [row["bid_price"] for row in csv.DictReader(io.StringIO(ended.out))]


@pytest.mark.usefixtures("home")
def test_a_late_quote_is_taken_only_with_look_ahead(k2: K2) -> None:
    assert bids(k2) == ["72.5", "72.5", "72.6"]
    assert bids(k2, "--look-ahead") == ["72.5", "72.6", "72.6"]
    assert bids(k2, "--max-age", "500ms") == ["72.5", "", ""]
    assert bids(k2, "--max-age", "3s") == ["72.5", "72.5", ""]
    assert bids(k2, "--last", "1") == ["72.6"]
    assert bids(k2, "--where", "price=72.61") == ["72.5"]
    assert bids(k2, "--as-known-at", "2026-03-02T10:00:03.5Z") == ["72.5", "72.5"]
    ended = k2("join", "trades", "quotes", "--look-ahead")
    assert "looks ahead" in ended.talk
    assert "none of quotes stood beside 1 trade" in ended.talk
    header, *rows = ended.out.splitlines()
    assert header.split() == [
        *("symbol", "exchange", "timestamp", "price", "quantity", "side", "quote_timestamp"),
        *("bid_price", "bid_quantity", "ask_price", "ask_quantity"),
    ]
    assert len(rows) == 4


@pytest.mark.usefixtures("home")
def test_pages_and_both_directions(k2: K2) -> None:
    first = json.loads(k2("join", "trades", "quotes", "--limit", "3", "--json").out)
    after = first["pagination"]["next"]
    rest = json.loads(
        k2("join", "trades", "quotes", "--limit", "9", "--after", after, "--json").out
    )
    whole = json.loads(k2("join", "trades", "quotes", "--json").out)["data"]
    assert first["data"] + rest["data"] == whole
    other = json.loads(k2("join", "quotes", "trades", "--json").out)["data"]
    assert [row["price"] for row in other] == [None, "72.51"]


def test_every_format_has_the_same_rows(k2: K2, market: Path) -> None:
    ask = ("join", "trades", "quotes", "BTCUSDT", "--home", str(market))
    rows = json.loads(k2(*ask, "--json").out)["data"]
    assert len(rows) > 100
    assert sum(row["bid_price"] is not None for row in rows) > 100
    lines = list(csv.DictReader(io.StringIO(k2(*ask, "--csv").out)))
    assert [line["bid_price"] for line in lines] == [row["bid_price"] or "" for row in rows]
    table = pa.ipc.open_stream(k2(*ask, "--arrow").raw).read_all()
    assert table.schema.field("ask_price").type == pa.decimal128(18, 8)
    assert table.column_names == list(rows[0])
    ended = k2(*ask)
    assert len(ended.out.splitlines()) == 51
    assert "there are more" in ended.talk


@pytest.mark.parametrize(
    "asked",
    [
        ("trades", "bars"),
        ("trades", "quotes", "--max-age", "5"),
        ("trades", "quotes", "--max-age", "5 parsecs"),
        ("trades", "quotes", "--last", "5", "--limit", "5"),
        ("trades", "quotes", "--fields", "quote_bid_price"),
        ("trades", "quotes", "--where", "bid_price>1"),
        ("trades", "quotes", "--after", "x"),
        ("trades",),
    ],
)
def test_what_cannot_be_asked_is_2(k2: K2, market: Path, asked: tuple[str, ...]) -> None:
    ended = k2("join", *asked, "--home", str(market))
    assert (ended.code, ended.out) == (2, "")
    assert ended.talk.startswith("k2: ")


@pytest.mark.usefixtures("home")
def test_spreads_of_an_interval(k2: K2) -> None:
    ended = k2("spreads", "VOD", "--horizon", "2s", "--json")
    assert ended.code == 0, ended.talk
    (row,) = json.loads(ended.out)["data"]
    # From 10:00:00.5 to the newest record at 10:00:09, the ask is 0.02 above the bid.
    assert (row["quoted_spread"], row["quoted_seconds"]) == ("0.02", "8.5")
    # 72.51 and 72.61 against 72.51, 72.71 against 72.61, for 100, 50 and 70.
    assert row["effective_spread"] == "0.10909091"
    assert (row["volume"], row["trade_count"]) == ("220", 3)
    assert row["realised_spread"] is None
    assert "only trades that form prices" in ended.talk
    ahead = k2("spreads", "VOD", "--look-ahead", "--csv")
    assert "whenever it was known" in ahead.talk
    (row,) = csv.DictReader(io.StringIO(ahead.out))
    assert row["effective_spread"] == "0.06363636"


@pytest.mark.usefixtures("home")
def test_markouts_need_to_know_who_bought(k2: K2, market: Path) -> None:
    ended = k2("markouts", "VOD", "--json")
    assert json.loads(ended.out)["data"] == []
    assert "3 trades left out: nobody knows who bought" in ended.talk
    ended = k2("markouts", "BTCUSDT", "--horizons", "5s,1s", "--json", "--home", str(market))
    rows = json.loads(ended.out)["data"]
    assert [(row["side"], row["horizon"]) for row in rows] == [
        *(("BUY", "5s"), ("BUY", "1s")),
        *(("SELL", "5s"), ("SELL", "1s")),
    ]
    assert k2("markouts", "NOSUCH", "--home", str(market)).talk.startswith("there is no symbol")


@pytest.mark.parametrize(
    "asked",
    [
        ("spreads",),
        ("spreads", "BTCUSDT", "--interval", "7x"),
        ("spreads", "BTCUSDT", "--horizon", "soon"),
        ("markouts", "BTCUSDT", "--horizons", "1s,"),
        ("markouts", "BTCUSDT", "--horizons", ",".join(f"{n}s" for n in range(21))),
    ],
)
def test_what_cannot_be_measured_is_2(k2: K2, market: Path, asked: tuple[str, ...]) -> None:
    ended = k2(*asked, "--home", str(market))
    assert (ended.code, ended.out) == (2, "")
    assert ended.talk.startswith("k2: ")
