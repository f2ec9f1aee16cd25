"""Messages of live venues to tables: messages/s of one core, per venue and kind."""

import json
import random
import time
from collections.abc import Callable

from rich.table import Table

from bench.report import console
from k2.feeds.binance import Binance
from k2.feeds.coinbase import Coinbase
from k2.feeds.kraken import Kraken, checksum
from k2.feeds.live.batch import Batch
from k2.feeds.live.book import ASK, BID, Book
from k2.feeds.live.columns import Origin
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import Frame, Parsed, Venue, parse_frames

BATCH = 1_000
"""Frames that are read at once, as a busy feed does."""
T0 = 1_767_600_000_000_000


def _when(number: int) -> str:
    return (
        f"2026-01-05T08:{number // 60_000 % 60:02}:{number // 1000 % 60:02}.{number % 1000:03}455Z"
    )


def _binance_trades(count: int) -> list[str]:
    return [
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{T0 + n * 1000 + 2},"s":"BTCUSDT",'
        f'"t":{5_100_000_000 + n},"p":"91250.{n % 100:02}000000","q":"0.00420000",'
        f'"T":{T0 + n * 1000},"m":{"true" if n % 2 else "false"},"M":true}}}}'
        for n in range(count)
    ]


def _binance_quotes(count: int) -> list[str]:
    return [
        f'{{"stream":"btcusdt@bookTicker","data":{{"u":{88_000_000_000 + n},"s":"BTCUSDT",'
        f'"b":"91250.{n % 100:02}000000","B":"1.50000000","a":"91251.10000000","A":"0.80000000"}}}}'
        for n in range(count)
    ]


def _coinbase_trades(count: int) -> list[str]:
    return [
        f'{{"channel":"market_trades","client_id":"","timestamp":"{_when(n)}","sequence_num":{n},'
        f'"events":[{{"type":"update","trades":[{{"trade_id":"{990_000_000 + n}","product_id":'
        f'"BTC-USD","price":"91250.{n % 100:02}","size":"0.0031","side":"BUY","time":"{_when(n)}"'
        "}]}]}"
        for n in range(count)
    ]


def _coinbase_quotes(count: int) -> list[str]:
    drawn = random.Random(1)
    levels = [
        {"side": side, "event_time": _when(0), "price_level": f"{price:.2f}", "new_quantity": "1.5"}
        for side, sign in (("bid", -1), ("offer", 1))
        for price in (91250 + sign * (0.01 * n + 0.01) for n in range(10_000))
    ]
    told = [_l2(0, "snapshot", levels)]
    for n in range(1, count):
        changed = [
            {
                **{"side": side, "event_time": _when(n)},
                "price_level": f"{91250 + sign * (0.01 + drawn.randrange(50) * 0.01):.2f}",
                "new_quantity": drawn.choice(("0", "0.5", "2.25")),
            }
            for side, sign in (("bid", -1), ("offer", 1))
        ]
        told.append(_l2(n, "update", changed))
    return told


def _l2(number: int, kind: str, updates: list[dict[str, str]]) -> str:
    event = {"type": kind, "product_id": "BTC-USD", "updates": updates}
    about = {"channel": "l2_data", "client_id": "", "timestamp": _when(number)}
    return json.dumps({**about, "sequence_num": number, "events": [event]}, separators=(",", ":"))


def _kraken_trades(count: int) -> list[str]:
    return [
        '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
        f'"price":91250.{n % 10},"qty":0.00420000,"ord_type":"market","trade_id":{71_000_000 + n},'
        f'"timestamp":"{_when(n)}"}}]}}'
        for n in range(count)
    ]


def _kraken_quotes(count: int) -> list[str]:
    drawn, book, told = random.Random(1), Book(), []
    for n in range(count):
        if n == 0:
            changes = [(BID, f"{91250 - i}.0", "1.50000000") for i in range(10)]
            changes += [(ASK, f"{91251 + i}.0", "1.50000000") for i in range(10)]
        else:
            side, sign, first = drawn.choice(((BID, -1, 91250), (ASK, 1, 91251)))
            quantity = f"{drawn.randrange(1, 9)}.50000000"
            changes = [(side, f"{first + sign * drawn.randrange(10)}.0", quantity)]
        sides: dict[str, list[str]] = {BID: [], ASK: []}
        for side, price, quantity in changes:
            book.set(side, price, quantity)
            sides[side].append(f'{{"price":{price},"qty":{quantity}}}')
        book.keep(10)
        told.append(
            f'{{"channel":"book","type":"{"update" if n else "snapshot"}","data":[{{"symbol":'
            f'"BTC/USD","bids":[{",".join(sides[BID])}],"asks":[{",".join(sides[ASK])}],'
            f'"checksum":{checksum(book)},"timestamp":"{_when(n)}"}}]}}'
        )
    return told


def _read(venue: Venue, messages: list[str]) -> tuple[float, int]:
    """Processor seconds, and rows, from bytes to tables."""
    frames = [Frame(1, T0 + n * 1000 + 5000, text.encode()) for n, text in enumerate(messages)]
    parser, rows = venue.parser(()), 0
    began = time.process_time()
    for at in range(0, len(frames), BATCH):
        parsed = Parsed()
        parse_frames(parser, frames[at : at + BATCH], parsed)
        batch = Batch(
            parsed.trades,
            parsed.trade_frames,
            parsed.quotes,
            parsed.quote_frames,
            rejects=parsed.rejects,
        )
        for records in batch.records(Origin("bench", "bench"), T0):
            assert records.kind in ("trades", "quotes"), records.table.to_pylist()[:1]
            rows += records.table.num_rows
    return time.process_time() - began, rows


def run(quick: bool) -> None:
    """Print messages/s; aim 50,000."""
    count = 5_000 if quick else 100_000
    cases: list[tuple[str, Venue, Callable[[int], list[str]]]] = [
        ("binance trades", Binance(Asked(("BTCUSDT",))), _binance_trades),
        ("binance quotes", Binance(Asked(("BTCUSDT",))), _binance_quotes),
        ("coinbase trades", Coinbase(Asked(("BTC-USD",))), _coinbase_trades),
        ("coinbase quotes", Coinbase(Asked(("BTC-USD",))), _coinbase_quotes),
        ("kraken trades", Kraken(Asked(("BTC/USD",))), _kraken_trades),
        ("kraken quotes", Kraken(Asked(("BTC/USD",))), _kraken_quotes),
    ]
    table = Table("messages of", "messages/s", "rows", title="Live messages to tables, one core")
    for name, venue, make in cases:
        messages = make(count)
        seconds, rows = min(_read(venue, messages) for _ in range(3))
        table.add_row(name, f"{count / seconds:,.0f}", f"{rows:,}")
    console.print(table)
