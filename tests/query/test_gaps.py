"""Answers tell which gaps they touch."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from k2.query import Reader, Selection, open_reader
from tests.ingest.numbered import BEGAN, send, trades
from tests.journeys.home import Home, open_home

LATER = BEGAN + timedelta(microseconds=100)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with open_home(tmp_path) as opened:
        yield opened


def notes(reader: Reader, selection: Selection, last: int | None = None) -> list[str]:
    found = reader.records("trades", selection, last=last).meta["notes"]
    assert isinstance(found, list)
    return found


def test_a_gap_is_noted_until_it_is_filled(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    trades(home, [1, 2, 5, 6])
    trades(home, [200], at=1)
    trades(home, [201], at=60)
    monkeypatch.setattr("k2.query.gaps._AGAIN", 0.0)
    first = "1 gap touches this: 2 trades are missing (unknown); `gaps` lists them"
    both = "2 gaps touch this: 195 trades are missing (unknown); `gaps` lists them"
    with open_reader(home.folder) as reader:
        assert notes(reader, Selection(("BTC",))) == [both]
        early = Selection(("BTC",), end=BEGAN + timedelta(microseconds=6))
        assert notes(reader, early) == [first]
        assert notes(reader, Selection(("ETH",))) == []
        assert notes(reader, Selection(exchanges=("other",))) == []
        # Of the newest two, only what lies between them counts.
        assert notes(reader, Selection(("BTC",)), last=2) != [both]
        for answer in (
            reader.bars(early, "1s"),
            reader.summary("BTC", BEGAN.date()),
        ):
            assert any("missing" in str(note) for note in list(answer.meta["notes"]))  # type: ignore[call-overload]
        trades(home, [3, 4], at=61)
        assert notes(reader, early) == []
        assert "193 trades are missing" in notes(reader, Selection(("BTC",)))[0]


def test_a_gap_spoils_its_own_bars_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2.query.gaps._AGAIN", 0.0)
    for minute, numbers in enumerate([[1, 2, 3], [4, 5, 8], [9, 10], [11]]):
        trades(home, numbers, at=60 * minute, happened=60 * minute)
    with open_reader(home.folder) as reader:

        def complete(interval: str) -> list[bool]:
            table = reader.bars(Selection(("BTC",)), interval, fill=True).table
            return [bool(each) for each in table["complete"].to_pylist()]

        assert complete("1m") == [True, False, True, True]
        assert complete("30s") == [True, True, False, True, True, True, True]
        assert complete("1d") == [False]
        trades(home, [6, 7], at=240, happened=60)
        assert complete("1m") == [True] * 4


def test_quotes_that_never_came_have_no_number(home: Home) -> None:
    trades(home, [1])
    gap: dict[str, object] = {"exchange": "simulated", "symbol": "BTC", "kind": "quotes"}
    gap |= {"source": "feed", "cause": "disconnect", "ingestion_timestamp": BEGAN}
    send(home, "gaps", [{**gap, "from_timestamp": BEGAN, "to_timestamp": LATER}])
    quote: dict[str, object] = {"symbol": "BTC", "exchange": "simulated", "timestamp": BEGAN}
    quote |= {"ingestion_timestamp": BEGAN, "id_space": "", "asset_class": "crypto"}
    send(home, "quotes", [{**quote, "timestamp_nanos": 0, "source_sequence": 1}])
    with open_reader(home.folder) as reader:
        found = reader.records("quotes", Selection(("BTC",)))
        expected = "an unknown number of quotes are missing (disconnect)"
        assert [expected in str(note) for note in found.meta["notes"]] == [True]  # type: ignore[attr-defined]
        assert notes(reader, Selection(("BTC",))) == []
