"""`k2 maintain` with a file of retention, `k2 retired`, and what other commands say of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import K2

RULES = """
[trades]
tier_3 = 30

[trades.nowhere]
tier_1 = 1
"""


@pytest.fixture
def home(k2: K2, tmp_path: Path) -> Path:
    """Trades of one day that is long over: of BTCUSDT (tier 1) and two others (tier 3)."""
    k2("feed", "simulator:?rate=max&kinds=trades&symbols=3&seed=7&nominal=100&count=600")
    k2("ingest", "--until-caught-up")
    (tmp_path / "home/tiers.toml").write_text('["*"]\ntier_1 = ["BTCUSDT"]\n')
    return tmp_path / "home"


def counts(k2: K2) -> dict[str, int]:
    rows = json.loads(k2("symbols", "--json").out)["data"]
    return {row["symbol"]: row["trades"] for row in rows}


def retired(k2: K2, *options: str) -> dict[str, Any]:
    ended = k2("maintain", "trades", "--json", *options)
    assert ended.code == 0, ended.talk
    (row,) = json.loads(ended.out)["tables"]
    found: dict[str, Any] = row["retired"]
    return found


def test_what_the_file_does_not_keep_goes(k2: K2, home: Path) -> None:
    before = counts(k2)
    kept = before["BTCUSDT"]
    assert retired(k2)["rows"] == 0
    (home / "retention.toml").write_text(RULES)

    dry = retired(k2, "--dry-run")
    assert dry["rows"] == 600 - kept
    assert counts(k2) == before
    shown = k2("maintain", "trades", "--dry-run")
    assert "would be retired, by [trades] tier_3 = 30" in shown.talk
    assert "no table has records of the exchange nowhere" in shown.talk

    assert k2("pin", "create", "held", "BTCUSDT", *list(before)[1:2]).code == 0
    done = retired(k2)
    (lot,), (held,) = done["lots"], done["held"]
    assert (lot["tier"], lot["exchange"], lot["symbols"], lot["pins"]) == (3, "simulated", 1, [])
    assert (held["symbols"], held["pins"]) == (1, ["held"])
    assert lot["rows"] + held["rows"] == dry["rows"] == done["rows"] + held["rows"]
    assert dry["bytes"] > 0
    assert counts(k2)["BTCUSDT"] == kept
    assert k2("pin", "verify", "held").code == 0

    audit = json.loads(k2("audit", "--json").out)
    assert audit["ok"]
    assert sum(each["retired"] for each in audit["partitions"]) == lot["rows"]
    assert "retired" in k2("audit").out
    (entry, *_) = json.loads(k2("retired", "--json").out)["data"]
    assert (entry["event"], entry["tier"]) == ("retired", 3)
    answer = json.loads(k2("trades", "--json").out)
    assert any("were retired and are not in this answer" in n for n in answer["meta"]["notes"])
    first = json.loads(k2("snapshots", "--json").out)["data"][-1]
    refused = k2("trades", "--as-of", first["snapshot_id"])
    assert refused.code == 1
    assert "were retired since" in refused.talk

    k2("pin", "remove", "held")
    assert retired(k2)["rows"] == held["rows"]
    assert counts(k2) == {"BTCUSDT": kept}


def test_a_file_that_cannot_be_meant_stops_it_with_its_line(k2: K2, home: Path) -> None:
    (home / "retention.toml").write_text("[trades]\ntier_3 = 0\n")
    ended = k2("maintain")
    assert ended.code == 2
    assert "retention.toml line 2: [trades] tier_3: so many days cannot be kept" in ended.talk


def test_a_file_that_is_loaded_again_does_not_bring_it_back(k2: K2, tmp_path: Path) -> None:
    (tmp_path / "trades.csv").write_text(
        "03/11/2014,10:00:00.125,35.95,1000,0,,\n03/12/2014,10:00:31.000,36.10,250,0,,\n"
    )
    load = ("load", "trades.csv", "--kind", "trades", "--mapping", "asx", "--symbol", "BHP")
    assert k2(*load).code == 0
    (tmp_path / "home/retention.toml").write_text("[trades]\ntier_3 = 100\n")
    assert retired(k2)["rows"] == 2
    ended = k2(*load, "--json")
    told = json.loads(ended.out)
    assert (told["committed"], told["duplicate"], told["retired"]) == (0, 0, 2)
    assert "2 are of days that are not kept any more" in ended.talk
    assert k2("audit").code == 0
