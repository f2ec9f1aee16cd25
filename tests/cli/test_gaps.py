"""`k2 gaps`: the ledger, and `k2 gaps backfill`, which asks the venue again."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import K2
from tests.feeds.venue import opened

MAPPING = """\
name = "venue"
[exchange]
name = "venue"
asset_class = "crypto"
zone = "UTC"
numbered = ["trades"]
[trades.fields]
symbol = "symbol"
timestamp = { column = "time", format = "%Y-%m-%dT%H:%M:%SZ" }
trade_id = "id"
price = "price"
quantity = "quantity"
"""


@pytest.mark.slow
def test_a_gap_is_listed_filled_and_filled_no_more(k2: K2) -> None:
    with opened() as venue:
        rest = f"http://127.0.0.1:{venue.port}"
        past = venue.past["BTCUSDT"] = [1, 2, 3, 8, 9]
        k2("feed", f"binance:BTCUSDT?{venue.options}&first=1&last=9")
        k2("ingest", "--until-caught-up")
        (gap,) = json.loads(k2("gaps", "--json").out)["data"]
        # The feed has asked for it in vain; the venue may have it by now.
        assert (gap["missing"], gap["state"], gap["refill_from"]) == (4, "given up", "venue")
        for asked, count in (
            (("--symbol", "BTCUSDT", "--state", "given up", "--cause", gap["cause"]), 1),
            (("--symbol", "ETHUSDT"), 0),
            (("--exchange", "kraken"), 0),
            (("--state", "open"), 0),
            (("--kind", "quotes"), 0),
        ):
            assert len(json.loads(k2("gaps", *asked, "--json").out)["data"]) == count
        assert k2("gaps", "--state", "shut").code == 2
        header, row = k2("gaps").out.splitlines()
        assert header.split()[:5] == ["exchange", "symbol", "kind", "first_missing", "last_missing"]
        assert row.split()[:5] == ["binance", "BTCUSDT", "trades", "4", "7"]

        past += [4, 5, 6, 7]
        assert json.loads(k2("gaps", "backfill", "--symbol", "ETHUSDT", "--json").out) == {
            "symbols": []
        }
        ended = k2("gaps", "backfill", "--exchange", "binance", "--rest", rest, "--json")
        assert ended.code == 0
        (told,) = json.loads(ended.out)["symbols"]
        assert (told["missing"], told["given"], told["lacking"]) == (4, 4, 0)

    assert len(json.loads(k2("trades", "--json").out)["data"]) == 9
    (gap,) = json.loads(k2("gaps", "--json").out)["data"]
    assert (gap["missing"], gap["state"], gap["refill_from"]) == (0, "filled", None)
    again = k2("gaps", "backfill")
    assert "no trade is missing" in again.talk
    assert k2("audit").code == 0


def test_what_a_file_lacks_is_told_when_it_is_loaded(k2: K2, tmp_path: Path) -> None:
    mapping = tmp_path / "venue.toml"
    mapping.write_text(MAPPING)
    file = tmp_path / "trades.csv"
    lines = [f"A,2026-03-02T10:00:0{n}Z,{n},1,1" for n in (1, 2, 6, 7)]
    file.write_text("\n".join(["symbol,time,id,price,quantity", *lines, ""]))
    for _ in range(2):
        assert k2("load", str(file), "--kind", "trades", "--mapping", str(mapping)).code == 0
        (gap,) = json.loads(k2("gaps", "--json").out)["data"]
        assert (gap["first_missing"], gap["last_missing"], gap["cause"]) == (3, 5, "unknown")
    assert k2("audit").code == 0


def test_what_cannot_be_asked(k2: K2) -> None:
    assert k2("gaps", "backfill").code == 2  # there is no home
    k2("feed", "simulator:?rate=max&kinds=trades&count=10")
    assert k2("gaps", "--json").code == 0
    assert k2("gaps", "backfill").code == 0
    assert k2("gaps", "backfill", "--nothing").code == 2


@pytest.mark.slow
def test_a_venue_that_is_away_is_waited_for_and_then_told(
    k2: K2, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as venue:
        venue.past["BTCUSDT"] = [1, 2, 3, 8, 9]
        k2("feed", f"binance:BTCUSDT?{venue.options}&first=1&last=9")
        k2("ingest", "--until-caught-up")
        rest = f"http://127.0.0.1:{venue.port}"
    monkeypatch.setattr("k2.feeds.live.past.PATIENCE", 0.5)
    ended = k2("gaps", "backfill", "--rest", rest)
    assert ended.code == 3
    assert "gives no answer" in ended.talk
    assert rest in ended.talk
