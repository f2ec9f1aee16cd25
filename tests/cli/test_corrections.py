"""A bust of yesterday's trade: what `k2` shows now, as of before, as known before, and in all."""

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import K2
from tests.feeds import nasdaq as itch

TIME = 'format = "%Y-%m-%dT%H:%M:%SZ"'
MAPPING = f"""\
name = "venue"
[exchange]
name = "LSE"
asset_class = "equities"
zone = "Europe/London"
[trades]
id_space = "exchange_date"
[trades.fields]
symbol = "symbol"
timestamp = {{ column = "time", {TIME} }}
trade_id = "id"
price = "price"
quantity = "quantity"
[corrections]
id_space = "exchange_date"
identity = "source_sequence"
[corrections.fields]
symbol = "symbol"
timestamp = {{ column = "time", {TIME} }}
source_sequence = "number"
action = "action"
trade_id = "id"
target_timestamp = {{ column = "traded", {TIME} }}
price = {{ column = "price", optional = true }}
"""
TRADES = """\
symbol,time,id,price,quantity
VOD,2026-03-02T10:00:00Z,1,72.5,100
VOD,2026-03-02T10:00:01Z,2,99.9,1
VOD,2026-03-03T10:00:01Z,2,73,5
"""
CORRECTIONS = """\
symbol,time,number,action,id,traded,price
VOD,2026-03-03T08:00:00Z,1,bust,2,2026-03-02T10:00:01Z,
VOD,2026-03-03T08:00:00Z,2,Cancel,9,2026-03-02T10:00:01Z,
VOD,2026-03-03T08:00:00Z,3,delete,2,2026-03-02T10:00:01Z,
"""


def load(k2: K2, folder: Path, kind: str, text: str) -> dict[str, Any]:
    (folder / "venue.toml").write_text(MAPPING)
    (folder / "file.csv").write_text(text)
    ended = k2("load", "file.csv", "--kind", kind, "--mapping", "venue.toml", "--json")
    counts: dict[str, Any] = json.loads(ended.out)
    return counts


def counts(k2: K2, *asked: str) -> list[int]:
    answer = json.loads(k2("bars", "VOD", "--interval", "1d", "--json", *asked).out)
    return [row["trade_count"] for row in answer["data"]]


def test_a_bust_of_yesterdays_trade(k2: K2, tmp_path: Path) -> None:
    load(k2, tmp_path, "trades", TRADES)
    pinned = json.loads(k2("snapshots", "--json").out)["data"][0]["snapshot_id"]
    done = load(k2, tmp_path, "corrections", CORRECTIONS)
    assert (done["committed"], done["rejected"]) == (2, 1)
    again = load(k2, tmp_path, "corrections", CORRECTIONS)
    # The line that was rejected is known as well.
    assert (again["committed"], again["duplicate"]) == (0, 3)
    # The trade of the next day has the same id, and is another.
    assert counts(k2) == [1, 1]
    assert counts(k2, "--as-of", pinned) == [2, 1]
    assert counts(k2, "--as-known-at", "2026-03-02T23:00:00Z") == [2]
    assert counts(k2, "--as-known-at", "2026-03-03T09:00:00Z") == [1]
    header, *rows = k2("trades", "--history").out.splitlines()
    assert header.split()[-4:] == [
        "correction",
        "corrected_at",
        "corrected_price",
        "corrected_quantity",
    ]
    assert ["BUST" in row for row in rows] == [False, True, False]
    header, *rows = k2("corrections", "VOD").out.splitlines()
    assert header.split()[-1] == "has_target"
    assert [row.split()[-1] for row in rows] == ["true", "false"]
    assert "delete" in k2("rejected").out
    assert k2("audit").code == 0
    assert k2("quotes", "--history").code == 2


def test_a_trade_that_itch_calls_broken_stands_no_more(k2: K2, tmp_path: Path) -> None:
    messages = [
        itch.directory(1, "AAPL"),
        itch.hidden(1, itch.OPEN, 100, "AAPL", 2_899_000, 41),
        itch.hidden(1, itch.OPEN + itch.SECOND, 1, "AAPL", 1_000, 42),
        itch.broken(1, itch.OPEN + 60 * itch.SECOND, 42),
    ]
    path = itch.write(tmp_path / "12302019.NASDAQ_ITCH50.gz", messages)
    for fates in ((4, 0), (0, 4)):
        told = json.loads(k2("load", str(path), "--json").out)
        assert (told["committed"], told["duplicate"]) == fates
    stands = json.loads(k2("trades", "AAPL", "--json").out)["data"]
    assert [row["trade_id"] for row in stands] == ["41"]
    every = json.loads(k2("trades", "AAPL", "--history", "--json").out)["data"]
    assert [(row["trade_id"], row["correction"]) for row in every] == [("41", None), ("42", "BUST")]
    (bar,) = json.loads(k2("bars", "AAPL", "--interval", "1m", "--json").out)["data"]
    assert (bar["low"], bar["volume"]) == ("289.9", "100")
    assert k2("audit").code == 0
