"""`k2 tiers`: symbols by what they traded, and the file that writers go by."""

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from k2.ingest.tiers import TierFile
from tests.cli.conftest import K2


@pytest.fixture
def traded(k2: K2) -> list[dict[str, Any]]:
    """Trades of today and of a year ago, some of them not committed yet."""
    past = (datetime.now(UTC) - timedelta(days=300)).isoformat().replace("+00:00", "Z")
    recent = (datetime.now(UTC) - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    url = "simulator:?rate=max&kinds=trades&nominal=10000&"
    assert k2("feed", f"{url}symbols=3&seed=1&count=2000&exchange=past&start={past}").code == 0
    assert k2("feed", f"{url}symbols=30&seed=2&count=8000&start={recent}").code == 0
    assert k2("ingest", "--until-caught-up").code == 0
    assert k2("feed", f"{url}symbols=30&seed=2&count=9000&start={recent}").code == 0
    rows: list[dict[str, Any]] = json.loads(k2("trades", "--json").out)["data"]
    assert len(rows) == 11_000
    return [row for row in rows if row["exchange"] == "simulated"]


def test_the_ranking_is_what_the_tables_hold(k2: K2, traded: list[dict[str, Any]]) -> None:
    ended = k2("tiers", "--json")
    assert ended.code == 0
    rows = json.loads(ended.out)["data"]
    values: dict[str, Decimal] = defaultdict(Decimal)
    for trade in traded:
        values[trade["symbol"]] += Decimal(trade["price"]) * Decimal(trade["quantity"])
    wanted = sorted(values, key=lambda symbol: values[symbol], reverse=True)
    assert [row["symbol"] for row in rows] == wanted, "of the last seven days alone"
    assert {row["symbol"]: Decimal(row["value"]) for row in rows} == values
    assert [row["rank"] for row in rows] == list(range(1, 31))
    first = {row["symbol"] for row in rows if row["tier"] == 1}
    assert first == {*wanted[:20], "BTCUSDT", "ETHUSDT"}
    assert {row["tier_now"] for row in rows if row["symbol"] in ("BTCUSDT", "ETHUSDT")} == {1}
    assert {row["tier_now"] for row in rows[:20]} == {1, 3}
    more = json.loads(k2("tiers", "--days", "400", "--json").out)["data"]
    assert {row["exchange"] for row in more} == {"past", "simulated"}


def test_the_file_is_written_edited_and_written_anew(
    k2: K2, traded: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "home" / "tiers.toml"
    file = TierFile(path)
    before = file.tiers()
    ended = k2("tiers", "write")
    assert (ended.code, ended.out) == (0, "")
    assert str(path) in ended.talk
    rows = json.loads(k2("tiers", "--json").out)["data"]
    assert all(row["tier"] == row["tier_now"] for row in rows), "what was written, holds"
    assert file.tiers().version != before.version, "a writer that runs goes by it"
    assert list(path.parent.glob(".tiers*")) == []

    edited = path.read_text() + '\n["ASX"]\ntier_1 = ["BHP"]\n'
    path.write_text(edited)
    refused = k2("tiers", "write")
    assert refused.code == 2
    assert "--replace" in refused.talk
    assert path.read_text() == edited
    path.write_text(edited.replace("tier_2", "tier_9"))
    assert k2("tiers", "write", "--replace").code == 2
    path.write_text(edited.replace('"BTCUSDT", ', ""))
    assert k2("tiers", "write", "--replace", "--exchange", "simulated").code == 0
    assert file.tiers().of("ASX", ["BHP"]).tolist() == [1]
    assert file.tiers().of("simulated", ["BTCUSDT"]).tolist() == [1]

    elsewhere = tmp_path / "mine.toml"
    assert k2("tiers", "write", "--days", "400", "-o", str(elsewhere)).code == 0
    assert '["past"]' in elsewhere.read_text()


def test_nothing_traded_is_told(k2: K2, traded: list[dict[str, Any]]) -> None:
    shown = k2("tiers", "--exchange", "past")
    assert shown.code == 0
    assert "nothing was traded" in shown.talk
    ended = k2("tiers", "write", "--exchange", "past")
    assert ended.code == 1
    assert "--days" in ended.talk
