"""Bars by other kinds, measures and best quotes at the command line."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from k2.cli.commands import aggregate, bars
from k2.query.aggregations import METRICS
from k2.query.measured import BAR_KINDS
from tests.cli.conftest import K2
from tests.cli.test_queries import data

__all__ = ["data"]


def test_options_name_what_there_is() -> None:
    assert bars.BAR_KINDS == BAR_KINDS
    assert tuple(METRICS) == aggregate.METRICS


def test_bars_by_what_traded_hold_every_trade(data: Any) -> None:
    day = data("summary", "BTCUSDT", data("trades", "BTCUSDT")[0]["timestamp"][:10])[0]
    for kind, size in (("tick", "25"), ("volume", "1.5"), ("dollar", "50000")):
        found = data("bars", "BTCUSDT", "--kind", kind, "--interval", size)
        mine = [bar for bar in found if bar["start"][:10] == day["date"]]
        assert len(mine) > 2
        assert sum(Decimal(bar["volume"]) for bar in mine) == Decimal(day["volume"])
        assert sum(bar["trade_count"] for bar in mine) == day["trade_count"]
        assert [bar["complete"] for bar in mine[:-1]] == [True] * (len(mine) - 1)
        assert all(bar["start"] <= bar["end"] for bar in mine)
        assert (
            data("bars", "BTCUSDT", "--kind", kind, "--interval", size, "--last", "2")
            == (found[-2:])
        )
        if kind == "tick":
            assert {bar["trade_count"] for bar in mine[:-1]} == {25}


def test_measures_and_best_quotes(k2: K2, data: Any, market: Path) -> None:
    wanted = data("bars", "BTCUSDT", "--interval", "1m")
    words = [word for metric in METRICS for word in ("--metric", metric)]
    found = data("aggregate", "BTCUSDT", "--interval", "1m", *words)
    assert [{name: row[name] for name in bar} for row, bar in zip(found, wanted, strict=True)] == (
        wanted
    )
    home = ("--home", str(market))
    ended = k2("aggregate", "BTCUSDT", "--interval", "1m", "--metric", "twap", *home, "--csv")
    lines = list(csv.DictReader(io.StringIO(ended.out)))
    assert [line["twap"] for line in lines] == [row["twap"] for row in found]
    best = data("bbo", "BTCUSDT")
    assert data("bbo", "BTCUSDT", "--last", "3") == best[-3:]
    ended = k2("bbo", "BTCUSDT", *home)
    assert len(ended.out.splitlines()) == 51
    assert "only the newest 50" in ended.talk


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bars", "X", "--kind", "tick", "--interval", "1m"], "no size of tick bars"),
        (["bars", "X", "--kind", "volume", "--interval", "5", "--fill"], "take no fill"),
        (["bars", "X", "--kind", "tick", "--interval", "5", "--consolidated"], "consolidated"),
        (["bars", "X", "--interval", "500"], "no interval"),
        (["aggregate", "X", "--interval", "1m", "--metric", "vwap", "--bin-size", "1"], "bin size"),
        (["aggregate", "X", "--interval", "1m"], "no metric"),
        (["bbo"], "symbol"),
    ],
)
def test_what_cannot_be_asked(k2: K2, market: Path, words: list[str], told: str) -> None:
    ended = k2(*words, "--home", str(market), "--json")
    assert ended.code == 2, ended.talk
    assert told.lower() in ended.talk.lower()
    assert json.loads(ended.out)["success"] is False


def test_a_symbol_that_is_not_there_is_told(k2: K2, market: Path) -> None:
    for words in (
        ["bbo", "BTCUSD"],
        ["aggregate", "BTCUSD", "--interval", "1m", "--metric", "vwap"],
    ):
        assert "did you mean BTCUSDT?" in k2(*words, "--home", str(market)).talk


def test_sessions_are_declared_in_the_home(k2: K2, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "03/11/2014,09:59:59.999,36.00,300,0,,\n03/11/2014,10:00:00.000,36.10,300,0,,\n"
        "03/11/2014,16:00:00.000,36.30,900,0,,\n"
    )
    k2("load", "t.csv", "--kind", "trades", "--mapping", "asx", "--symbol", "BHP")
    words = ("bars", "BHP", "--interval", "1d", "--session", "regular", "--json")
    ended = k2(*words)
    assert ended.code == 2
    assert "sessions.toml" in ended.talk
    file = tmp_path / "home" / "sessions.toml"
    file.write_text('[ASX]\nopen = "10:00"\nclose = "16:00"\n')
    (bar,) = json.loads(k2(*words).out)["data"]
    assert (bar["open"], bar["close"], bar["trade_count"]) == ("36.1", "36.1", 1)
    measured = k2("aggregate", "BHP", "--interval", "1d", "--metric", "trade_count",
                  "--session", "regular", "--ndjson")  # fmt: skip
    assert json.loads(measured.out)["trade_count"] == 1
    week = ("--from", "2014-03-10", "--to", "2014-03-17", "--csv")
    assert len(k2("sessions", "ASX", *week).out.splitlines()) == 6
    for wrong in (
        ("sessions", "ASX", "--from", "2014-03-10", "--to", "2014-03-10"),
        ("sessions", "ASX", "--from", "1914-03-10", "--to", "2114-03-10"),
    ):
        assert "no range" in k2(*wrong).talk
    assert "no exchange called 'LSE'" in k2("sessions", "LSE").talk
