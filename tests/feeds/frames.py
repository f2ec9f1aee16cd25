"""Frames of the three venues, whole and broken: golden ones of each message type, and a seeded
generator of what a broken line, proxy or venue could make of them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final

from tests.feeds import test_binance, test_coinbase, test_kraken

_COINBASE = (
    test_coinbase.traded(1, test_coinbase.trade(5), test_coinbase.trade(4)),
    test_coinbase.traded(2, test_coinbase.trade(6), kind="snapshot"),
    test_coinbase.book(3, ("bid", "1", "1"), ("offer", "2", "1"), kind="snapshot"),
    test_coinbase.book(4, ("bid", "1", "0"), ("offer", "1.5", "3")),
    test_coinbase.told("heartbeats", 5, {"current_time": "now", "heartbeat_counter": 1}),
    test_coinbase.told("subscriptions", 6, {"subscriptions": {"market_trades": ["BTC-USD"]}}),
    {"type": "error", "message": "no such channel"},
)
_BINANCE = (
    {"stream": "btcusdt@trade", "data": test_binance.TRADE},
    test_binance.TRADE,
    {"stream": "btcusdt@bookTicker", "data": test_binance.QUOTE},
    test_binance.QUOTE | {"e": "bookTicker", "E": 1767600000123, "T": 1767600000121},
    {"e": "depthUpdate", "s": "BTCUSDT", "U": 2, "u": 9, "b": [["1", "0"]], "a": []},
    {"result": None, "id": 1},
    {"error": {"code": 2, "msg": "Invalid request"}, "id": 1},
    {"e": "serverShutdown", "E": 1767600000123457},
)
GOLDEN: Final[Mapping[str, Sequence[str]]] = {
    "binance": [json.dumps(message) for message in _BINANCE],
    "coinbase": [json.dumps(message) for message in _COINBASE],
    "kraken": [
        test_kraken.trades(test_kraken.trade(1), test_kraken.trade(2)),
        test_kraken.trades(test_kraken.trade(3, "1e-7"), kind="snapshot"),
        test_kraken.book("45283.5:0.1", "45285.2:0.001", "45285214528351", "snapshot"),
        test_kraken.book("", "45285.2:0", "4528351"),
        '{"channel":"status","type":"update","data":[{"system":"online","version":"2.0"}]}',
        '{"channel":"heartbeat"}',
        '{"method":"subscribe","result":{"channel":"trade","symbol":"BTC/USD","snapshot":true},'
        '"success":true,"time_in":"2026-01-05T08:00:00.1Z","time_out":"2026-01-05T08:00:00.2Z"}',
        '{"error":"Currency pair not supported","method":"subscribe","success":false}',
    ],
}
"""One frame of each message type, by venue."""

_TOKENS: Final = (
    *("null", "true", "-1", "0", "-0", "0.1", "1e9", "1E-400", "1e400", "-1e309", "NaN"),
    *("Infinity", "-Infinity", "9" * 40, "9" * 5_000, str(2**63), str(2**64), str(-(2**63)), "01"),
    *('""', '"NaN"', '"-Infinity"', '"1e999999999"', '"1e-999999999"', '"-0"', '"0x1F"', '"1_000"'),
    *('"1,5"', '" 1"', '"１２"', '"1.000000000001"', '"99999999999.5"', '"\\ud800"', '"\\u0000"'),
    *('"\\\\\\""', '"BUY"', '"sell"', '"2026-01-05T08:00:60Z"', '"2026-13-05T08:00:00Z"'),
    *('"0000-00-00T00:00:00Z"', '"9999-12-31T23:59:59.9-99:99"', '"' + "7" * 9_000 + '"'),
    *("[]", "{}", "[[]]", '{"price":{"qty":[1.5,null]}}', "[1,[2,[3]]]", '[{"":{"":[]}}]'),
)
"""JSON, nearly JSON and beyond: what a value is replaced by."""

_MARK: Final = "\ue000"
_DEPTHS: Final = (10, 200, 500, 900, 1_000, 1_020, 1_100, 60_000)


def broken(random: Random, golden: Sequence[str]) -> bytes:
    """A frame that is one of the golden ones with something done to it, once or several times."""
    frame = random.choice(golden).encode()
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        frame = random.choice(_WAYS)(random, frame, golden)
    return frame


def _cut(random: Random, frame: bytes, golden: Sequence[str]) -> bytes:
    at = random.randint(0, len(frame))
    return frame[:at] if random.random() < 0.7 else frame[at:]


def _flip(random: Random, frame: bytes, golden: Sequence[str]) -> bytes:
    data = bytearray(frame)
    for _ in range(random.randint(1, 4)):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def _splice(random: Random, frame: bytes, golden: Sequence[str]) -> bytes:
    """A part of the frame taken away, doubled, or replaced by bytes of any kind."""
    start = random.randint(0, len(frame))
    end = min(len(frame), start + random.randint(0, 12))
    put = random.choice((b"", frame[start:end] * 2, random.randbytes(random.randint(1, 6))))
    return frame[:start] + put + frame[end:]


def _join(random: Random, frame: bytes, golden: Sequence[str]) -> bytes:
    """Two frames in one, or something around one."""
    other = random.choice(golden).encode()
    around = (b"\xef\xbb\xbf" + frame, b"[" + frame + b"]", frame + b"\n" + other, frame + other)
    return random.choice(
        (*around, b" " * 20 + frame, b"", b"\x00", frame.decode("latin-1").encode())
    )


def _value(random: Random, frame: bytes, golden: Sequence[str]) -> bytes:
    """A value replaced by another token, or by one of the frame's own values."""

    def change(told: Any, places: Sequence[tuple[Any, Any]]) -> str:
        holder, name = random.choice(places)
        if random.random() < 0.2:
            other, key = random.choice(places)
            # Through text: a value put into itself would have no end.
            holder[name] = json.loads(json.dumps(other[key]))
            return ""
        holder[name] = _MARK
        return random.choice(_TOKENS)

    return _changed(frame, change)


def _key(random: Random, frame: bytes, golden: Sequence[str]) -> bytes:
    """A key renamed, taken away, or added."""

    def change(told: Any, places: Sequence[tuple[Any, Any]]) -> str:
        holder, name = random.choice(places)
        taken = holder.pop(name)
        if isinstance(holder, dict) and random.random() < 0.6:
            holder[random.choice(("", "e", "data", "channel", "price", "u", "\x00", name * 2))] = (
                taken
            )
        return ""

    return _changed(frame, change)


def _twice(random: Random, frame: bytes, golden: Sequence[str]) -> bytes:
    """A key that stands there twice, with another value."""
    keys = list(re.finditer(rb'"[^"\\]*"\s*:', frame))
    if not keys:
        return frame
    found = random.choice(keys)
    more = found[0] + random.choice(_TOKENS).encode() + b","
    return frame[: found.start()] + more + frame[found.start() :]


def _deep(random: Random, frame: bytes, golden: Sequence[str]) -> bytes:
    """A value nested as deep as a parser may or may not follow."""
    depth = random.choice(_DEPTHS)
    ways = ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth)
    return _changed(frame, lambda told, places: _marked(random.choice(places), random.choice(ways)))


def _marked(place: tuple[Any, Any], token: str) -> str:
    holder, name = place
    holder[name] = _MARK
    return token


def _changed(frame: bytes, change: Any) -> bytes:
    """The frame with one change made by `change(told, places)`, which returns what stands for the
    mark; the frame as it is where it is no JSON of objects or lists.
    """
    try:
        told = json.loads(frame)
        places = list(_places(told))
    except (ValueError, RecursionError):
        return frame
    if not places:
        return frame
    token = change(told, places)
    try:
        written = json.dumps(told, ensure_ascii=False)
    except (ValueError, RecursionError):
        return frame
    return written.replace(f'"{_MARK}"', token).encode("utf-8", "surrogatepass")


def _places(told: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and by which key or number."""
    left = [told]
    while left:
        holder = left.pop()
        if isinstance(holder, dict | list):
            pairs = holder.items() if isinstance(holder, dict) else enumerate(holder)
            for name, inner in list(pairs):
                yield holder, name
                left.append(inner)


_WAYS: Final = (_cut, _flip, _splice, _join, _value, _value, _value, _key, _twice, _deep)
