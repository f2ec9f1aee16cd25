"""A venue as its users start it: the command, the plugin, the truth in a file, what is refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from k2.errors import BadInput, Unavailable
from k2.venues import Fault, Trading, Venue, names, open_venue, read_script, read_truth
from k2.venues.pytest import OpenVenue
from tests.venues.client import body, following, get, wait_until


def test_the_command_speaks_tells_and_ends(tmp_path: Path) -> None:
    script = tmp_path / "faults.toml"
    script.write_text('[[fault]]\nat_message = 10\nfault = "disconnect"\n')
    truth = tmp_path / "truth.jsonl"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "k2", "venue", "binance", "--rate", "400"),
            *("--symbols", "ETHUSDT", "--script", str(script), "--truth", str(truth)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        match = re.search(r"(ws://\S+) and (http://\S+)", told)
        assert match, told
        with following(f"{match[1]}/ws/ethusdt@trade") as client:
            client.closed()
        rows = body(f"{match[2]}/api/v3/trades", symbol="ETHUSDT")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    made = {line["number"]: line for line in lines if line["what"] == "trade"}
    assert [line["detail"] for line in lines if line["what"] == "fault"]
    for row in rows:
        line = made[row["id"]]
        assert (row["price"], row["qty"]) == (line["price"], line["quantity"])
        assert row["time"] == line["time"] // 1_000
        assert row["isBuyerMaker"] is (line["side"] == "SELL")


def test_a_drawn_script_is_printed_so_that_it_can_be_used_again() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "k2", "venue", "kraken", "--faults", "20", "--seed", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert len(read_script(printed)) == 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["binanc"], "did you mean binance?"),
        (["binance", "--symbols", "BTC-USD"], "no symbols of that form"),
        (["kraken", "--symbols", "BTC/USD,BTC/USD"], "differ from each other"),
        (["kraken", "--start", "yesterday"], "ISO 8601"),
    ],
)
def test_wrong_usage_is_one_clear_line(arguments: list[str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "k2", "venue", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.slow
def test_the_plugin_gives_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["k2.venues.pytest"]\n')
    (tmp_path / "test_mine.py").write_text(
        "import urllib.request\n"
        "def test_it(venue):\n"
        "    at = venue('binance', script='[[fault]]\\nat = 9\\nfault = \"disconnect\"\\n')\n"
        "    with urllib.request.urlopen(at.rest + '/api/v3/ping') as answer:\n"
        "        assert answer.read() == b'{}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name},
    )
    assert done.returncode == 0, done.stdout


def test_truth_as_parquet_is_the_truth_as_lines(tmp_path: Path) -> None:
    start = time.time_ns() // 1_000 - 10_000_000
    trading = Trading(("BTC/USD", "ETH/USD"), rate=5_000, start=start, seconds=0.5)
    tables: list[pa.Table] = []
    paths = (tmp_path / "truth.parquet", tmp_path / "truth.jsonl")
    for path in paths:
        open_venue("kraken", trading, truth=path).close()
        tables.append(read_truth(path))
    assert tables[0].num_rows > 2_000
    assert tables[0].equals(tables[1])


def test_a_market_that_began_before_has_a_past(venue: OpenVenue) -> None:
    ten_minutes_ago = time.time_ns() // 1_000 - 600_000_000
    at = venue("binance", rate=100, start=ten_minutes_ago)
    with following(f"{at.ws}/ws/btcusdt@trade") as client:
        assert client.next()["t"] > 5_100_020_000
    (first,) = body(f"{at.rest}/api/v3/historicalTrades", symbol="BTCUSDT", fromId=0, limit=1)
    assert first["id"] == 5_100_000_001
    assert abs(first["time"] - ten_minutes_ago // 1_000) < 10_000


def trades_of(at: Venue, count: int) -> pa.Table:
    wait_until(lambda: at.truth.trades().num_rows >= count)
    return at.truth.trades().slice(0, count)


def test_equal_seeds_make_equal_markets(venue: OpenVenue) -> None:
    start = time.time_ns() // 1_000 - 10_000_000
    made = []
    for seed in (1, 1, 2):
        at = venue("coinbase", seed=seed, start=start, seconds=10)
        made.append(trades_of(at, 2_000))
    assert made[0].equals(made[1])
    assert not made[0].equals(made[2])


def test_history_is_bounded_and_says_so(venue: OpenVenue) -> None:
    start = time.time_ns() // 1_000 - 10_000_000
    at = venue("binance", symbols=["BTCUSDT"], rate=1_000, start=start, seconds=10, history=500)
    wait_until(lambda: at.oldest("BTCUSDT") > 5_100_002_000)
    (row,) = body(f"{at.rest}/api/v3/historicalTrades", symbol="BTCUSDT", fromId=0, limit=1)
    assert row["id"] == at.oldest("BTCUSDT")


def test_a_market_stands_still_and_goes_on(venue: OpenVenue) -> None:
    at = venue("binance")
    with following(f"{at.ws}/ws/btcusdt@trade") as client:
        last = client.next()["t"]
        at.stop_trading()
        time.sleep(0.3)
        quiet = at.truth.trades().num_rows
        time.sleep(0.3)
        assert at.truth.trades().num_rows == quiet
        at.go_on_trading()
        found = [client.next()["t"] for _ in range(100)]
    assert found == list(range(last + 1, last + 101))


def test_venues_are_found_by_their_files() -> None:
    assert names() == ("binance", "coinbase", "kraken")


def test_a_taken_port_and_a_strange_symbol_are_refused(venue: OpenVenue) -> None:
    at = venue("binance")
    with pytest.raises(Unavailable, match="cannot be had"):
        open_venue("kraken", address=("127.0.0.1", at.port))
    with pytest.raises(BadInput, match="none of the venue's"):
        venue("binance", [Fault("skip", at=1, lost=True, symbol="XXXUSDT")])


def test_requests_that_make_no_sense_are_answered_too(venue: OpenVenue) -> None:
    """`close` raises what failed inside a venue: nothing may fail here."""
    for name in names():
        at = venue(name)
        for path in ("", "/", "/api/v3/", "/0/public/", "/products", "/products/", "/x?&=&a"):
            assert get(at.rest + path).status_code < 500
        for query in ("symbol=BTCUSDT&limit=x", "symbol=BTCUSDT&limit=-1", "limit=99999999999999"):
            for method in ("trades", "historicalTrades", "aggTrades", "depth"):
                assert get(f"{at.rest}/api/v3/{method}?{query}").status_code < 500
        for query in (
            "pair=XBTUSD&since=x",
            "pair=XBTUSD&count=0",
            f"pair=XBTUSD&since={'9' * 20}",
        ):
            assert get(f"{at.rest}/0/public/Trades?{query}").status_code < 500
        for query in ("limit=x", "before=99999999999999999999", "after=0", "limit=0"):
            assert get(f"{at.rest}/products/BTC-USD/trades?{query}").status_code < 500
