"""`k2 shed`: what was left in the log, who is told of it, and bringing it in."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from k2.ingest import Level, WriterOptions
from k2.ingest.line import Line
from k2.ingest.shed import Shedding
from k2.ingest.tiers import TierFile
from tests.cli.conftest import K2
from tests.journeys.home import SKEW, now, open_home


def shed(folder: Path) -> int:
    """Work off a home's log as under overload; how many records were left in it."""
    under = Shedding("one", Level.AGGRESSIVE, TierFile(None).tiers(), now())
    with open_home(folder) as home:
        options = WriterOptions(skew=SKEW)
        line = Line("trades", home.log, home.registry, home.lake, options, lambda step: None)
        with closing(line):
            while line.step(None, at_once=True, shedding=under):
                pass
            line.finish()
        return sum(each.records for each in home.lake.table("trades").snapshot().shed)


def test_what_was_shed_is_told_and_brought_in(k2: K2, tmp_path: Path) -> None:
    k2("feed", "simulator:?rate=max&kinds=trades&count=3000&symbols=8")
    left = shed(tmp_path / "home")
    assert 0 < left < 3000

    (part,) = json.loads(k2("audit", "--json").out)["partitions"]
    assert (part["committed"], part["shed"], part["in_flight"]) == (3000 - left, left, 0)
    asked = k2("stats")
    assert asked.code == 0
    told = k2("trades", "SOLUSDT", "--last", "5")
    assert f"{left:,} trades were left in the log under overload" in told.talk
    (entry,) = json.loads(k2("shed", "--json").out)["data"]
    assert (entry["event"], entry["level"], entry["tiers"]) == ("shed", 3, "3")
    assert (entry["records"], "SOLUSDT" in entry["symbols"].split()) == (left, True)

    ended = k2("shed", "backfill", "--json")
    assert ended.code == 0
    assert json.loads(ended.out) == {
        "kinds": [{"kind": "trades", "brought_in": left, "waiting": 0}]
    }
    again = k2("shed", "backfill")
    assert again.code == 0
    assert "nothing that was shed waits" in again.talk
    assert "overload" not in k2("trades", "SOLUSDT", "--last", "5").talk
    (part,) = json.loads(k2("audit", "--json").out)["partitions"]
    assert (part["committed"], part["shed"]) == (3000, 0)
    events = [row["event"] for row in json.loads(k2("shed", "--json").out)["data"]]
    assert sorted(events) == ["filled", "shed"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("K2_OVERLOAD_LAG", "1 2 3"),
        ("K2_OVERLOAD_LAG", "4 3 2 1"),
        ("K2_OVERLOAD_MEMORY", "70 80 90 101"),
        ("K2_OVERLOAD_DOWN_LAG", "0"),
    ],
)
def test_settings_that_cannot_be(
    k2: K2, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    ended = k2("settings")
    assert ended.code == 2
    assert value in ended.talk
