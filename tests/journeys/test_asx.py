"""Real files to real answers: the ASX sample through log, writer, tables and queries."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

SYDNEY = ZoneInfo("Australia/Sydney")
COUNTS = {
    "trades": {"7078": 91_631, "7181": 232, "3153": 11},
    "quotes": {"7078": 77_849, "7181": 549, "3153": 60},
}
OFF_MARKET = {"1", "3", "9"}


@dataclass(frozen=True)
class K2:
    """The command, on one home."""

    home: Path
    environment: dict[str, str]

    def __call__(self, *words: object, expect: int = 0) -> Any:
        """The command's JSON answer."""
        done = subprocess.run(
            [sys.executable, "-m", "k2", "--home", str(self.home), *map(str, words), "--json"],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            timeout=300,
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return json.loads(done.stdout)

    def load(self, kind: str, *files: Path, **options: object) -> dict[str, int]:
        words = [w for name, value in options.items() for w in (f"--{name}", value)]
        found: dict[str, int] = self("load", *files, "--kind", kind, "--mapping", "asx", *words)
        found.pop("seconds")
        return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, asx: Path) -> K2:
    """All of the sample, loaded."""
    k2 = K2(tmp_path_factory.mktemp("asx"), {})
    companies = asx / "reference" / "company_info.csv"
    for kind, files in COUNTS.items():
        paths = [asx / kind / f"{number}.csv" for number in files]
        total = sum(files.values())
        first = k2.load(kind, *paths, instruments=companies)
        assert first == {"read": total, "committed": total, "duplicate": 0, "rejected": 0}
    return k2


@pytest.mark.slow
def test_every_record_is_there(loaded: K2) -> None:
    symbols = {row["symbol"]: row for row in loaded("symbols")["data"]}
    numbers = {"BHP": "7078", "DVN": "7181", "MWR": "3153"}
    for symbol, number in numbers.items():
        for kind in COUNTS:
            assert symbols[symbol][kind] == COUNTS[kind][number]
    assert loaded("rejected")["data"] == []
    assert loaded("audit")["ok"]


@pytest.mark.slow
def test_loading_again_adds_nothing(loaded: K2, asx: Path) -> None:
    companies = asx / "reference" / "company_info.csv"
    for kind, files in COUNTS.items():
        paths = [asx / kind / f"{number}.csv" for number in files]
        total = sum(files.values())
        again = loaded.load(kind, *paths, instruments=companies)
        assert again == {"read": total, "committed": 0, "duplicate": total, "rejected": 0}
    assert loaded("audit")["ok"]


@pytest.mark.slow
def test_a_day_of_bhp_and_of_dvn(loaded: K2) -> None:
    (bhp,) = loaded("summary", "BHP", "2014-03-11")["data"]
    wanted = {
        "open": "35.95",
        "high": "36.45",
        "low": "35.84",
        "close": "35.95",
        "volume": "6705250",
        "trade_count": 21_653,
        "vwap": "36.13216705",
    }
    assert {name: bhp[name] for name in wanted} == wanted
    day = ("--from", "2014-03-11", "--to", "2014-03-12")
    (every,) = loaded("bars", "BHP", "--interval", "1d", *day, "--all-trades")["data"]
    assert (every["high"], every["volume"], every["trade_count"]) == ("42", "8919376", 21_681)
    (dvn,) = loaded("summary", "DVN", "2014-03-10")["data"]
    prices = [dvn[name] for name in ("open", "high", "low", "close", "volume")]
    assert prices == ["0.67", "0.695", "0.67", "0.695", "115325"]
    assert dvn["trade_count"] == 19


@pytest.mark.slow
@pytest.mark.parametrize("every", [False, True], ids=["price-forming", "all"])
def test_minute_bars_equal_a_plain_reference(loaded: K2, asx: Path, every: bool) -> None:
    words = ["--all-trades"] if every else []
    found = loaded("bars", "BHP", "--interval", "1m", *words)["data"]
    columns = ("start", "open", "high", "low", "close", "volume", "trade_count", "vwap")
    got = [tuple(row[c] for c in columns) for row in found]
    assert got == reference_bars(asx / "trades" / "7078.csv", every)


def reference_bars(path: Path, every: bool) -> list[tuple[Any, ...]]:
    """One-minute bars line by line, in file order within a timestamp."""
    minutes: dict[datetime, list[tuple[datetime, Decimal, Decimal]]] = {}
    with path.open() as lines:
        for day, time, price, volume, qualifier, venue, _ in csv.reader(lines):
            if not every and (venue == "X" or qualifier in OFF_MARKET):
                continue
            month, date, year = day.split("/")
            local = datetime.fromisoformat(f"{year}-{month}-{date}T{time}")
            when = local.replace(tzinfo=SYDNEY).astimezone(UTC)
            minute = when.replace(second=0, microsecond=0)
            minutes.setdefault(minute, []).append((when, Decimal(price), Decimal(volume)))
    return [bar_of(minute, minutes[minute]) for minute in sorted(minutes)]


def bar_of(minute: datetime, trades: list[tuple[datetime, Decimal, Decimal]]) -> tuple[Any, ...]:
    trades = sorted(trades, key=lambda t: t[0])
    prices = [price for _, price, _ in trades]
    volume = sum((quantity for *_, quantity in trades), Decimal(0))
    with localcontext() as context:
        context.prec = 60
        turnover = sum((price * quantity for _, price, quantity in trades), Decimal(0))
        vwap = (turnover / volume).quantize(Decimal("1e-8"), ROUND_HALF_EVEN)
    text: Callable[[Decimal], str] = lambda d: format(d.normalize(), "f")  # noqa: E731
    return (
        minute.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        text(prices[0]),
        text(max(prices)),
        text(min(prices)),
        text(prices[-1]),
        text(volume),
        len(trades),
        text(vwap),
    )


@pytest.mark.slow
def test_broken_lines_are_named_and_the_mended_copy_adds_them(tmp_path: Path, asx: Path) -> None:
    k2 = K2(tmp_path / "home", {})
    lines = (asx / "trades" / "7078.csv").read_bytes().splitlines(keepends=True)
    broken = list(lines)
    broken[99] = broken[99].replace(b",", b";", 1)
    broken[4_181] = b",".join([*broken[4_181].split(b",")[:2], b'"12,5"', b"100,0,,\n"])
    broken[-1] = b"03/14/2014,25:00:00.000,35.7,100,0,,\n"
    copy = tmp_path / "bhp.csv"
    copy.write_bytes(b"".join(broken))
    first = k2.load("trades", copy, symbol="BHP")
    assert first == {"read": 91_631, "committed": 91_628, "duplicate": 0, "rejected": 3}
    rejected = sorted(k2("rejected")["data"], key=lambda row: row["line"])
    assert [(row["file"], row["line"]) for row in rejected] == [
        ("bhp.csv", 100),
        ("bhp.csv", 4_182),
        ("bhp.csv", 91_631),
    ]
    assert rejected[1]["column"] == "price"
    assert all(row["reason"] for row in rejected)
    assert rejected[2]["raw"] == "03/14/2014,25:00:00.000,35.7,100,0,,"
    copy.write_bytes(b"".join(lines))
    mended = k2.load("trades", copy, symbol="BHP")
    assert mended == {"read": 91_631, "committed": 3, "duplicate": 91_628, "rejected": 0}
    assert k2("audit")["ok"]


@pytest.mark.slow
def test_as_of_gives_what_was_answered_then(tmp_path: Path, asx: Path) -> None:
    # Two snapshots are kept, so that the one asked for is long expired at the end.
    k2 = K2(tmp_path / "home", {"K2_SNAPSHOTS_KEPT": "2"})
    k2.load("trades", asx / "trades" / "7078.csv", symbol="BHP")
    questions = (
        ("trades", "BHP", "--last", "500"),
        ("bars", "BHP", "--interval", "5m"),
        ("summary", "BHP", "2014-03-11"),
        ("symbols",),
    )
    then = [k2(*question)["data"] for question in questions]
    (commit,) = k2("snapshots", "--table", "trades")["data"]
    moment = commit["committed_at"]
    for number in range(6):
        extra = tmp_path / f"late{number}.csv"
        extra.write_text(f"03/11/2014,12:00:0{number}.000,99.5,{number + 1},0,,\n")
        assert k2.load("trades", extra, symbol="BHP")["committed"] == 1
    k2.load("trades", asx / "trades" / "7181.csv", symbol="DVN")
    assert [k2(*question)["data"] for question in questions] != then
    for when in (moment, commit["snapshot_id"]):
        assert [k2(*q, "--as-of", when)["data"] for q in questions] == then
