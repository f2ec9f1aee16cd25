"""ITCH 5.0: messages as the specification lays them out, to trades, busts and instruments."""

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k2.errors import BadInput
from k2.feeds import file_adapter
from k2.feeds.itch import open_file
from k2.feeds.mapped.content import Bytes
from k2.feeds.nasdaq.messages import LENGTHS, read_blocks
from k2.feeds.nasdaq.orders import Orders
from tests.feeds import nasdaq as itch
from tests.feeds.nasdaq import OPEN, SECOND, Message
from tests.feeds.reading import NOON, read_all, undictionaried

Row = dict[str, Any]
MIDNIGHT = datetime(2019, 12, 30, 5, tzinfo=UTC)
"""In New York, in winter."""


def read(path: Path, **more: Any) -> dict[str, list[Row]]:
    found = read_all(open_file(path, clock=lambda: NOON, **more))
    return {kind: undictionaried(table).to_pylist() for kind, table in found.items()}


def day(folder: Path, messages: list[Message], rest: bytes = b"") -> Path:
    return itch.write(folder / "12302019.NASDAQ_ITCH50.gz", messages, rest)


STOCKS = [itch.directory(1, "AAPL"), itch.directory(2, "MSFT")]


def test_each_way_to_trade(tmp_path: Path) -> None:
    path = day(
        tmp_path,
        [
            itch.event("O", OPEN - 5),
            *STOCKS,
            itch.add(1, OPEN, 501, "B", 300, "AAPL", 2_899_000),
            itch.add(2, OPEN, 502, "S", 50, "MSFT", 1_581_234, "GSCO"),
            itch.executed(1, OPEN + 1_234_567, 501, 100, 9_001),
            itch.executed_at(2, OPEN + 2 * SECOND, 502, 20, 9_002, "Y", 1_581_000),
            itch.executed_at(2, OPEN + 2 * SECOND, 502, 10, 9_003, "N", 1_581_000),
            itch.hidden(1, OPEN + 3 * SECOND, 7, "AAPL", 2_899_500, 9_004),
            itch.cross(1, OPEN + 4 * SECOND, 120_000, "AAPL", 2_900_000, 9_005, "O"),
            itch.cross(2, OPEN + 4 * SECOND, 0, "MSFT", 0, 9_006, "O"),
            itch.canceled(1, OPEN + 5 * SECOND, 501, 50),
        ],
    )  # fmt: skip
    rows = read(path)["trades"]
    told = [
        (
            *(row["symbol"], row["trade_id"], row["price"], row["quantity"], row["side"]),
            *(row["conditions"], row["price_forming"]),
        )
        for row in rows
    ]
    assert told == [
        ("AAPL", "9001", Decimal("289.9"), Decimal(100), "SELL", None, True),
        ("MSFT", "9002", Decimal("158.1"), Decimal(20), "BUY", None, True),
        ("MSFT", "9003", Decimal("158.1"), Decimal(10), "BUY", "not printed", False),
        ("AAPL", "9004", Decimal("289.95"), Decimal(7), "UNKNOWN", "hidden", True),
        ("AAPL", "9005", Decimal(290), Decimal(120_000), "UNKNOWN", "opening cross", True),
    ]
    first = rows[0]
    assert first["timestamp"] == MIDNIGHT + timedelta(hours=9.5, microseconds=1_234)
    assert first["timestamp_nanos"] == 567
    assert (first["exchange"], first["id_space"]) == ("XNAS", "2019-12-30")
    assert (first["currency"], first["asset_class"]) == ("USD", "equities")
    assert json.loads(first["vendor_data"]) == {"message": "E", "order": "501"}
    assert json.loads(rows[4]["vendor_data"]) == {"message": "Q"}


def test_an_order_is_found_through_all_that_replaced_it(tmp_path: Path) -> None:
    messages = [*STOCKS, itch.add(1, OPEN, 10, "S", 100, "AAPL", 1_000_000)]
    messages += [itch.replaced(1, OPEN, n, n + 1, 100, 1_000_000 + n) for n in range(10, 30)]
    messages += [itch.executed(1, OPEN, 30, 1, 77)]
    # Smaller and larger blocks cut the chain at every place.
    for block in (40, 100, 1_000, 100_000):
        (row,) = read(day(tmp_path, messages), block_bytes=block)["trades"]
        assert (row["price"], row["side"]) == (Decimal("100.0029"), "BUY")


def test_a_broken_trade_is_a_bust_of_its_match(tmp_path: Path) -> None:
    path = day(
        tmp_path,
        [
            *STOCKS,
            itch.hidden(1, OPEN, 7, "AAPL", 2_899_500, 41),
            itch.broken(1, OPEN + SECOND, 41),
        ],
    )
    found = read(path)
    (bust,) = found["corrections"]
    assert (bust["symbol"], bust["action"], bust["trade_id"]) == ("AAPL", "BUST", "41")
    assert bust["id_space"] == found["trades"][0]["id_space"]
    assert bust["timestamp"] == found["trades"][0]["timestamp"] + timedelta(seconds=1)
    assert bust["occurrence"] == 0
    assert read(path, kind="corrections") == {"corrections": [bust]}


def test_the_directory_is_the_instruments(tmp_path: Path) -> None:
    rows = read(day(tmp_path, STOCKS), kind="instruments")["instruments"]
    assert [row["symbol"] for row in rows] == ["AAPL", "MSFT"]
    assert rows[0]["valid_from"].isoformat() == "2019-12-30"
    assert json.loads(rows[0]["vendor_data"])["round_lot"] == "100"


def test_what_cannot_be_is_rejected_and_its_neighbours_are_not(tmp_path: Path) -> None:
    late = 86_400 * SECOND
    good = itch.hidden(1, OPEN, 7, "AAPL", 2_899_500, 1)
    bad = [
        (itch.executed(1, OPEN, 4_711, 1, 2), "order", "never added"),
        (itch.hidden(3, OPEN, 7, "NONE", 100, 3), "symbol", "stands for no symbol"),
        (b"Z" + good[1:], None, "message Z is none"),
        (good[:-1], None, "not as long as it must be"),
        (itch.hidden(1, OPEN, 7, "AAPL", 0, 4), "price", "price"),
        (itch.hidden(1, late, 7, "AAPL", 1, 5), "timestamp", "after the day's end"),
        (itch.cross(1, OPEN, 2**63, "AAPL", 1, 6, "C"), "shares", "cannot be"),
        (itch.cross(1, OPEN, 10**10, "AAPL", 1, 7, "C"), "shares", "cannot be"),
    ]
    messages = [*STOCKS]
    for each, _, _ in bad:
        messages += [good, each]
    for block in (60, 100_000):
        found = read(day(tmp_path, messages), block_bytes=block)
        assert len(found["trades"]) == len(bad)
        assert len(found["rejects"]) == len(bad)
        rejects = sorted(found["rejects"], key=lambda row: int(row["line"]))
        for n, ((raw, column, reason), row) in enumerate(zip(bad, rejects, strict=True)):
            assert row["line"] == len(STOCKS) + 2 * n + 2
            assert row["raw"] == raw
            assert row["column"] == column
            assert reason in row["reason"]


def test_a_file_that_ends_within_a_message_gives_what_is_whole(tmp_path: Path) -> None:
    good = itch.hidden(1, OPEN, 7, "AAPL", 2_899_500, 1)
    path = day(tmp_path, [*STOCKS, good], rest=itch.framed([good])[:20])
    feed = open_file(path, clock=lambda: NOON)
    (records,) = [each for each in feed.read() if each.kind == "trades"]
    assert records.table.num_rows == 1
    with pytest.raises(BadInput, match="ends within message 4"):
        feed.read()
    feed.close()


def test_an_empty_file_and_the_end_of_a_session(tmp_path: Path) -> None:
    assert read(day(tmp_path, [])) == {}
    good = itch.hidden(1, OPEN, 7, "AAPL", 2_899_500, 1)
    assert len(read(day(tmp_path, [*STOCKS, good, b""]))["trades"]) == 1


@pytest.mark.parametrize(
    "name",
    ["12302019.NASDAQ_ITCH50.gz", "S123019-v50.itch", "2019-12-30.itch", "tv_20191230.itch50"],
)
def test_the_day_stands_in_the_name(tmp_path: Path, name: str) -> None:
    path = itch.write(tmp_path / name, [*STOCKS, itch.hidden(1, 0, 7, "AAPL", 1, 1)])
    assert file_adapter(path).__module__ == "k2.feeds.itch"
    assert read(path)["trades"][0]["timestamp"] == MIDNIGHT


def test_a_day_that_nobody_tells(tmp_path: Path) -> None:
    path = itch.write(tmp_path / "x.itch", STOCKS)
    with pytest.raises(BadInput, match="file's name"):
        read(path)
    with pytest.raises(BadInput, match="no day"):
        read(path, day="yesterday")
    with pytest.raises(BadInput, match="no quotes"):
        read(path, day="2019-12-30", kind="quotes")
    with pytest.raises(BadInput, match="its symbols itself"):
        read(path, day="2019-12-30", symbol="AAPL")
    assert read(path, day="2019-06-03", kind="instruments")["instruments"]


def test_framing_finds_every_message_at_any_size_of_block(tmp_path: Path) -> None:
    chance = random.Random(3)
    kinds = list(LENGTHS.items())
    messages = [b""] * 2
    while len(messages) < 4_000:
        kind, length = chance.choice(kinds)
        messages.append(kind.encode() + chance.randbytes(length - 1))
    path = itch.write(tmp_path / "x.itch", messages)
    for block_bytes in (4_096, 70_000, 10**6):
        content = Bytes(path)
        found = [
            raw
            for block in read_blocks(content, "x", block_bytes)
            for raw in block.raw(np.arange(len(block)))
        ]
        content.close()
        assert found == messages


def test_orders_are_what_a_dictionary_says() -> None:
    chance = random.Random(11)
    orders, expected = Orders(), dict[int, tuple[int, bytes]]()
    number = 0
    for _ in range(60):
        fresh = [chance.choice((b"B", b"S")) for _ in range(chance.randrange(8_000))]
        ids = list(range(number, number + len(fresh)))
        chance.shuffle(ids)
        number += len(fresh)
        prices = [chance.randrange(10**6) for _ in ids]
        orders.add(np.array(ids, "u8"), np.array(prices, "i8"), np.array(fresh, "S1"))
        expected.update(zip(ids, zip(prices, fresh, strict=True), strict=True))
        old = chance.sample(sorted(expected), min(len(expected), 200))
        new = list(range(number, number + len(old)))
        number += len(old)
        orders.replace(np.array(old, "u8"), np.array(new, "u8"), np.array(new, "i8"))
        for before, after in zip(old, new, strict=True):
            expected[after] = (after, expected.pop(before)[1])
        wanted = chance.sample(sorted(expected), min(len(expected), 500))
        known, found, sides = orders.find(np.array(wanted, "u8"))
        assert known.all()
        assert list(zip(found.tolist(), sides.tolist(), strict=True)) == [
            expected[each] for each in wanted
        ]
        gone = chance.sample(wanted, len(wanted) // 2)
        orders.delete(np.array(gone, "u8"))
        for each in gone:
            del expected[each]
    known, _, _ = orders.find(np.array([number + 5], "u8"))
    assert not known.any()
