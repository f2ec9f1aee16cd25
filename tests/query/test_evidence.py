"""Certificates: an answer is found the same again, or it is said how it differs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from k2.encode import to_json_bytes
from k2.errors import BadInput, Refused
from k2.ingest import Change, Level
from k2.ingest.board import Board
from k2.lake import Commit, ShedRange
from k2.query import Answer, Reader, Selection, Wish, open_reader, parse_conditions
from tests.ingest.numbered import trades
from tests.journeys.home import open_home
from tests.query.make import random_trades
from tests.query.rewriting import compact
from tests.query.test_pins import FIRST_DAY, HOUR, _rewrite, bust, some
from tests.query.test_reader import Market

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ALL = Selection()


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    made.append(some(1))
    made.commit()
    made.append(some(2))
    made.commit()
    yield made
    made.close()


@pytest.fixture
def reader(market: Market) -> Iterator[Reader]:
    with open_reader(market.folder, clock=lambda: NOW) as opened:
        yield opened


def certificate(answer: Answer) -> dict[str, Any]:
    told = answer.meta["certificate"]
    assert isinstance(told, dict)
    return json.loads(json.dumps(told))


QUESTIONS: list[dict[str, Any]] = [
    {},
    {"last": 7},
    {"limit": 9},
    {"fields": ("price", "timestamp", "log_offset")},
    {"history": True},
    {"as_known_at": (NOW - HOUR).isoformat()},
]
SELECTIONS = [
    ALL,
    Selection(("A",), ("sim",), FIRST_DAY, FIRST_DAY + 2 * HOUR),
    Selection(start=FIRST_DAY.date(), end=FIRST_DAY.date() + timedelta(days=1), exchanges=("ASX",)),
    Selection(where=parse_conditions(["price>=0.5", "side = BUY"])),
    Selection(("NONE",)),
]


@pytest.mark.parametrize("tail", [False, True])
def test_every_answer_is_found_again(market: Market, reader: Reader, tail: bool) -> None:
    bust(market, market.appended[5], NOW - 2 * HOUR)
    market.commit()
    if tail:
        market.append(some(3))
        bust(market, market.appended[8], NOW - HOUR / 2)
    past = str(reader.snapshots().table["snapshot_id"][-1].as_py())
    answers = [
        reader.records("trades", selection, certificate=True, **question)
        for selection in SELECTIONS
        for question in [*QUESTIONS, {"as_of": past}]
    ]
    answers.append(reader.records("corrections", ALL, certificate=True))
    told = [certificate(answer) for answer in answers]
    assert {each["rows"] for each in told} >= {0, 7, 9, 80}

    def found_again() -> None:
        for answer, each in zip(answers, told, strict=True):
            verified = reader.evidence.verify(each)
            assert verified.ok, (each["question"], verified.again.problem)
            assert verified.kept is None
            assert verified.again.found.rows == answer.table.num_rows

    found_again()
    market.append(some(4))
    found_again()
    market.commit()
    found_again()
    for row in market.appended[20:24]:
        bust(market, row, NOW - HOUR / 3)
    market.commit()
    compact(market.lake.table("trades"))
    compact(market.lake.table("corrections"))
    found_again()


def test_a_page_is_found_again_behind_the_one_before(market: Market, reader: Reader) -> None:
    first = reader.records("trades", ALL, limit=40, certificate=True)
    market.append(some(3))
    second = reader.records("trades", ALL, limit=40, after=first.next, certificate=True)
    market.commit()
    assert second.table.num_rows == 40
    assert certificate(second)["question"]["after"]
    for answer in (first, second):
        assert reader.evidence.verify(certificate(answer)).ok
    hashes = {certificate(answer)["hash"] for answer in (first, second)}
    assert len(hashes) == 2


def test_a_saved_answer_holds_the_rows_of_its_certificate(market: Market, reader: Reader) -> None:
    for fields in ((), ("price", "exchange_date", "price_forming", "occurrence")):
        answer = reader.records("trades", ALL, fields=fields, certificate=True)
        saved = json.loads(to_json_bytes(answer))
        verified = reader.evidence.verify(saved)
        assert verified.ok
        assert verified.kept is not None
        assert verified.kept.found == verified.again.found or verified.kept.ok
        changed = json.loads(to_json_bytes(answer))
        changed["data"][3]["price"] = "1000"
        verified = reader.evidence.verify(changed)
        assert verified.again.ok
        assert not verified.ok
        assert verified.kept is not None
        assert "not with the same values" in str(verified.kept.problem)
        del changed["data"][3:5]
        verified = reader.evidence.verify(changed)
        assert verified.kept is not None
        assert "158 rows come back instead of 160" in str(verified.kept.problem)


def test_rows_that_cannot_be_those_of_the_certificate(reader: Reader) -> None:
    answer = reader.records("trades", ALL, limit=3, certificate=True)
    for column, value in (("price", "dear"), ("timestamp", "noon"), ("price_forming", "yes")):
        saved = json.loads(to_json_bytes(answer))
        saved["data"][1][column] = value
        with pytest.raises(BadInput) as caught:
            reader.evidence.verify(saved)
        assert caught.value.place == column


def test_tables_that_changed_are_told(market: Market, reader: Reader) -> None:
    told = certificate(reader.records("trades", ALL, certificate=True))
    _rewrite(market, lambda rows: rows.slice(2))
    verified = reader.evidence.verify(told)
    assert not verified.ok
    assert "158 rows come back instead of 160: 2 are missing" in str(verified.again.problem)


def test_it_tells_state_and_what_was_missing(market: Market, reader: Reader) -> None:
    market.append(random_trades(9, 4))
    told = certificate(reader.records("trades", Selection(("A",)), certificate=True))
    assert told["state"]["commit"] == 2
    assert told["state"]["tail"]
    assert told["commits"]["trades"]["commit"] == 2
    assert told["commits"]["trades"]["schema_id"] == 0
    assert told["question"] == {"symbols": ["A"]}
    assert ["price", "decimal(18,8)"] in told["columns"]
    assert (told["gaps"], told["shed"], told["writers"]) == ([], [], [])
    assert told["made_at"] == NOW.isoformat()
    assert sum(sum(of.values()) for of in told["offsets"].values()) == 164


def test_without_being_asked_for_there_is_none(reader: Reader) -> None:
    assert "certificate" not in reader.records("trades", ALL).meta


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "x",
        {},
        {"meta": {}, "data": []},
        {"meta": {"certificate": {}}, "data": []},
        {"meta": {"certificate": {"certificate": 1}}, "data": None},
    ],
)
def test_what_is_no_certificate(reader: Reader, document: object) -> None:
    with pytest.raises(BadInput, match="no certificate"):
        reader.evidence.verify(document)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("question", {"last": "x"}),
        ("question", {"symbols": [1]}),
        ("question", {"start": "noon"}),
        ("question", {"start": "2026-01-01T00:00:00"}),
        ("question", {"who": "me"}),
        ("question", {"after": ["x"]}),
        ("question", {"after": [10**40]}),
        ("question", {"where": [["price", ">="]]}),
        ("question", 7),
        ("state", {}),
        ("state", {"commit": "x"}),
        ("state", {"commit": 1, "tail": [["t"]]}),
        ("state", 7),
        ("columns", [["price", "float"]]),
        ("columns", 7),
        ("rows", "many"),
        ("kind", "candles"),
        ("kind", 7),
    ],
)
def test_a_certificate_that_was_broken_is_refused(reader: Reader, name: str, value: object) -> None:
    told = certificate(reader.records("trades", ALL, certificate=True))
    with pytest.raises((BadInput, Refused)):
        reader.evidence.verify({**told, name: value})


def test_a_certificate_of_a_newer_version_is_not_called_wrong(reader: Reader) -> None:
    told = certificate(reader.records("trades", ALL, certificate=True))
    for name in ("certificate", "hash_definition"):
        with pytest.raises(Refused):
            reader.evidence.verify({**told, name: 2})


def test_what_cannot_be_certified(reader: Reader) -> None:
    with pytest.raises(BadInput, match="commit_sequence"):
        reader.records("trades", ALL, fields=("commit_sequence",), certificate=True)
    where = Selection(where=parse_conditions(["commit_sequence<5"]))
    with pytest.raises(BadInput, match="commit_sequence"):
        reader.records("trades", where, certificate=True)


def test_gaps_shed_ranges_and_levels_are_told(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        trades(home, [1, 2, 5, 6])
        trades(home, [7], at=1)
        trades(home, [8], at=60)
        table = home.lake.table("trades")
        head = table.snapshot()
        (topic,) = head.offsets
        some = ShedRange("overload-1", topic, head.offsets[topic].log_id, 0, 2, 5, 3)
        table.commit(Commit((), head.offsets, head.offsets, shed=(some,)))
        Board(home.log).tell(Level.GRACEFUL, Change(Level.NORMAL, Level.GRACEFUL, "lag"))
        with open_reader(home.folder) as reader:
            told = certificate(reader.records("trades", Selection(("BTC",)), certificate=True))
            (gap,) = told["gaps"]
            assert (gap["symbol"], gap["missing"], told["gap_count"]) == ("BTC", 2, 1)
            assert told["shed"] == [
                {"topic": topic, "partition": 0, "first_offset": 2, "end_offset": 5, "records": 3}
            ]
            assert told["shed_records"] == 3
            assert [writer["level"] for writer in told["writers"]] == ["GRACEFUL"]
            elsewhere = Selection(("ETH",), ("other",))
            told = certificate(reader.records("trades", elsewhere, certificate=True))
            assert (told["gaps"], told["shed"], told["shed_records"]) == ([], [], 0)
            _, notes = reader.pins.create(Wish("all", "trades"))
            assert any("3 trades were left in the log under overload" in note for note in notes)
