"""The commands that ask: what they print agrees with each other, in every format."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import K2


@pytest.fixture
def data(k2: K2, market: Path) -> Any:
    """Rows of a command's `--json`."""

    def ask(*arguments: str) -> list[dict[str, Any]]:
        ended = k2(*arguments, "--home", str(market), "--json")
        assert ended.code == 0, ended.talk
        rows: list[dict[str, Any]] = json.loads(ended.out)["data"]
        return rows

    return ask


def test_history_and_tail_are_one(data: Any) -> None:
    assert len(data("trades")) + len(data("quotes")) == 4500


def test_every_format_has_the_same_rows(k2: K2, data: Any, market: Path) -> None:
    ask = ("trades", "BTCUSDT", "--limit", "50", "--home", str(market))
    rows = data("trades", "BTCUSDT", "--limit", "50")
    assert len(rows) == 50
    lines = list(csv.DictReader(io.StringIO(k2(*ask, "--csv").out)))
    assert [line["price"] for line in lines] == [row["price"] for row in rows]
    table = pa.ipc.open_stream(k2(*ask, "--arrow").raw).read_all()
    assert table["price"].type == pa.decimal128(18, 8)
    assert table["price"].to_pylist() == [Decimal(row["price"]) for row in rows]
    shown = k2(*ask).out.splitlines()
    assert len(shown) == 51
    assert rows[-1]["timestamp"] in shown[-1]


def test_a_table_shows_some_and_says_that_there_are_more(k2: K2, market: Path) -> None:
    ended = k2("trades", "--home", str(market))
    assert len(ended.out.splitlines()) == 51
    assert "there are more" in ended.talk


def test_pages_neither_repeat_nor_skip(k2: K2, data: Any, market: Path) -> None:
    everything = data("trades", "ETHUSDT")
    pages: list[dict[str, Any]] = []
    after: list[str] = []
    while True:
        ended = k2(
            *("trades", "ETHUSDT", "--limit", "300", *after, "--home", str(market), "--json")
        )
        page = json.loads(ended.out)
        assert page["pagination"]["limit"] == 300
        pages += page["data"]
        if page["pagination"]["next"] is None:
            break
        after = ["--after", page["pagination"]["next"]]
    assert pages == everything


def test_last_conditions_fields_and_ranges(data: Any) -> None:
    everything = data("trades", "BTCUSDT")
    assert data("trades", "BTCUSDT", "--last", "3") == everything[-3:]
    price = everything[10]["price"]
    found = data("trades", "BTCUSDT", "--where", f"price>={price}", "--where", "side = BUY")
    assert found == [
        row
        for row in everything
        if Decimal(row["price"]) >= Decimal(price) and row["side"] == "BUY"
    ]
    start, end = everything[5]["timestamp"], everything[20]["timestamp"]
    ranged = data("trades", "BTCUSDT", "--from", start, "--to", end, "--fields", "timestamp")
    assert ranged == [
        {"timestamp": row["timestamp"]} for row in everything if start <= row["timestamp"] < end
    ]


def test_bars_add_up_to_the_summary(data: Any) -> None:
    day = data("trades", "BTCUSDT")[0]["timestamp"][:10]
    (summary,) = data("summary", "BTCUSDT", day)
    bars = [bar for bar in data("bars", "BTCUSDT", "--interval", "1m") if bar["start"][:10] == day]
    assert sum(Decimal(bar["volume"]) for bar in bars) == Decimal(summary["volume"])
    assert sum(bar["trade_count"] for bar in bars) == summary["trade_count"]
    assert bars[0]["open"] == summary["open"]
    assert max(Decimal(bar["high"]) for bar in bars) == Decimal(summary["high"])
    assert (
        data("bars", "BTCUSDT", "--interval", "1m", "--last", "2")
        == data("bars", "BTCUSDT", "--interval", "1m")[-2:]
    )


def test_a_past_state_is_what_was_committed_then(data: Any) -> None:
    (snapshot, *_) = data("snapshots")
    then = data("trades", "--as-of", str(snapshot["snapshot_id"]))
    now = data("trades")
    assert len(then) < len(now)
    assert all(row in now for row in then[:100])


def test_symbols_stats_snapshots_and_ledgers(data: Any) -> None:
    symbols = data("symbols")
    assert [row["symbol"] for row in symbols] == sorted(row["symbol"] for row in symbols)
    assert sum(row["trades"] for row in symbols) == len(data("trades"))
    assert {"trades", "quotes"} <= {row["table"] for row in data("stats")}
    assert len(data("commits")) >= 2
    assert data("rejected") == data("duplicates") == data("gaps") == []


def test_sql(k2: K2, data: Any, market: Path) -> None:
    (row,) = data("sql", "SELECT count(*) AS n FROM trades")
    assert row["n"] == len(data("trades"))
    assert len(data("sql", "SELECT * FROM trades", "--limit", "7")) == 7
    for text in ("DELETE FROM trades", "SELECT * FROM read_csv('/etc/passwd')", "SELECT"):
        ended = k2("sql", text, "--home", str(market))
        assert ended.code in (1, 2)
        assert ended.talk.startswith("k2: ")
        assert "fault of K2" not in ended.talk


@pytest.mark.parametrize(
    "arguments",
    [
        ("summary", "NOSUCH", "2014-03-10"),
        ("trades", "--as-of", "no-such-tag"),
    ],
)
def test_what_is_not_there_is_1(k2: K2, market: Path, arguments: tuple[str, ...]) -> None:
    ended = k2(*arguments, "--home", str(market))
    assert (ended.code, ended.out) == (1, "")
    assert ended.talk.startswith("k2: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("bars", "BTCUSDT", "--interval", "7x"),
        ("trades", "--where", "price"),
        ("trades", "--where", "nosuch=1"),
        ("trades", "--fields", "nosuch"),
        ("trades", "--after", "no token"),
    ],
)
def test_what_cannot_be_asked_is_2(k2: K2, market: Path, arguments: tuple[str, ...]) -> None:
    ended = k2(*arguments, "--home", str(market))
    assert (ended.code, ended.out) == (2, "")
    assert ended.talk.startswith("k2: ")


def test_audit_and_doctor_find_nothing_wrong(k2: K2, market: Path) -> None:
    document = json.loads(k2("audit", "--home", str(market), "--json").out)
    assert document["ok"] is True
    assert sum(p["committed"] for p in document["partitions"]) == 4000
    assert sum(p["in_flight"] for p in document["partitions"]) == 500
    ended = k2("doctor", "--home", str(market), "--json")
    assert ended.code == 0
    states = {row["part"]: row["state"] for row in json.loads(ended.out)["data"]}
    assert states["log"] == states["registry"] == states["lake"] == "ok"
    assert states["writer"] == "absent"


def test_an_audit_goes_on_from_the_last_or_looks_at_one_partition(k2: K2, market: Path) -> None:
    first = json.loads(k2("audit", "--home", str(market), "--json").out)["partitions"]
    again = k2("audit", "--since", "last", "--home", str(market), "--json")
    assert again.code == 0
    for before, after in zip(first, json.loads(again.out)["partitions"], strict=True):
        assert after["start_offset"] == before["end_offset"] - before["in_flight"]
        assert (after["committed"], after["in_flight"]) == (0, before["in_flight"])
    place = f"{first[0]['topic']}[{first[0]['partition']}]"
    ended = k2("audit", "--partition", place, "--home", str(market), "--json")
    assert json.loads(ended.out)["partitions"] == first[:1]
    for wrong, code in (("market.crypto.trades.simulated[77]", 1), ("trades", 2)):
        ended = k2("audit", "--partition", wrong, "--home", str(market))
        assert ended.code == code
        assert wrong in ended.talk


def test_everything_is_the_same_in_every_format(k2: K2, data: Any, market: Path) -> None:
    rows = data("trades", "--fields", "trade_id,price")
    prices = [Decimal(row["price"]) for row in rows]
    ask = ("trades", "--fields", "trade_id,price", "--home", str(market))
    assert pa.ipc.open_stream(k2(*ask, "--arrow").raw).read_all()["price"].to_pylist() == prices
    lines = list(csv.DictReader(io.StringIO(k2(*ask, "--csv").out)))
    assert [Decimal(line["price"]) for line in lines] == prices
    assert [json.loads(line) for line in k2(*ask, "--ndjson").out.splitlines()] == rows
    file = market.parent / "all.parquet"
    assert k2(*ask, "-o", str(file)).code == 0
    assert pq.read_table(file)["price"].to_pylist() == prices


def test_what_a_question_would_read(k2: K2, data: Any, market: Path) -> None:
    (trades,) = data("trades", "--explain")
    whole = {row["table"]: row for row in data("stats")}["trades"]
    assert trades["rows"] == whole["rows"]
    assert trades["tail_rows"] == whole["tail_rows"]
    assert trades["files"] == trades["of_files"] == whole["files"]
    assert trades["bytes"] == whole["bytes"]
    (none,) = data("trades", "--from", "2031-01-01T00:00:00Z", "--explain")
    assert (none["files"], none["rows"], none["bytes"]) == (0, 0, 0)
    assert none["of_files"] == trades["files"]
    assert data("bars", "BTCUSDT", "--interval", "1m", "--explain")[0]["table"] == "trades"
    both = data("join", "trades", "quotes", "--explain")
    assert [row["table"] for row in both] == ["trades", "quotes"]
    (asked,) = data("sql", "SELECT count(*) FROM trades, gaps", "--explain")
    assert asked == trades
    assert k2("sql", "SELECT nothing from nowhere", "--explain", "--home", str(market)).code == 2
