"""Broken messages of any kind never stop a parser, and never take a neighbour with them."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.feeds.binance import Binance
from k2.feeds.coinbase import Coinbase
from k2.feeds.kraken import Kraken
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import Venue
from tests.feeds import test_binance, test_coinbase, test_kraken
from tests.feeds.live import read_frames, rows

BINANCE = [
    json.dumps({"stream": "btcusdt@trade", "data": test_binance.TRADE}),
    json.dumps({"stream": "btcusdt@bookTicker", "data": test_binance.QUOTE}),
]
COINBASE = [
    json.dumps(test_coinbase.traded(1, test_coinbase.trade(5), test_coinbase.trade(4))),
    json.dumps(test_coinbase.book(1, ("bid", "1", "1"), ("offer", "2", "1"), kind="snapshot")),
    json.dumps(test_coinbase.book(2, ("bid", "1", "0"))),
]
KRAKEN = [
    test_kraken.trades(test_kraken.trade(1), test_kraken.trade(2)),
    test_kraken.book("45283.5:0.1", "45285.2:0.001", "45285214528351", "snapshot"),
    '{"channel":"status","type":"update","data":[{"system":"online"}]}',
]
VENUES: list[tuple[Venue, Sequence[str], Callable[[int], str]]] = [
    (
        Binance(Asked(("BTCUSDT",))),
        BINANCE,
        lambda n: json.dumps(test_binance.TRADE | {"t": n}),
    ),
    (
        Coinbase(Asked(("BTC-USD",))),
        COINBASE,
        lambda n: json.dumps(test_coinbase.traded(n, test_coinbase.trade(n))),
    ),
    (
        Kraken(Asked(("BTC/USD",))),
        KRAKEN,
        lambda n: test_kraken.trades(test_kraken.trade(n)),
    ),
]
FIRST, LAST = 2**40, 2**40 + 1
"""Ids of the two neighbours: no fuzzed message has them."""

texts = st.text(max_size=8) | st.sampled_from(["", "1e9", "-0", "NaN", "9" * 40, "0.1", "BUY"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def broken(draw: Any, messages: Sequence[str]) -> bytes:
    """A message with something in it changed, cut, doubled or put in; or anything at all."""
    message = draw(st.sampled_from(messages))
    way = draw(st.sampled_from(["value", "key", "bytes", "cut", "anything"]))
    if way == "anything":
        return (
            draw(st.binary(max_size=60))
            if draw(st.booleans())
            else json.dumps(draw(values)).encode()
        )
    if way in ("value", "key"):
        told = json.loads(message)
        places = list(_places(told))
        holder, name = draw(st.sampled_from(places))
        if way == "key" and isinstance(holder, dict):
            holder[draw(texts)] = holder.pop(name)
        else:
            holder[name] = draw(values)
        return json.dumps(told).encode()
    data = bytearray(message.encode())
    at = draw(st.integers(0, len(data) - 1))
    if way == "cut":
        return bytes(data[:at])
    data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def _places(told: Any) -> Any:
    """Every place in a JSON value: what holds it, and by which key or number."""
    pairs = told.items() if isinstance(told, dict) else enumerate(told)
    for name, inner in list(pairs):
        yield told, name
        if isinstance(inner, dict | list):
            yield from _places(inner)


def check(which: int, data: st.DataObject) -> None:
    venue, messages, good = VENUES[which]
    parser = venue.parser(())
    fuzz = data.draw(st.lists(broken(messages), min_size=1, max_size=4))
    symbols = [symbol for plan in venue.plans() for symbol in plan.symbols]
    for message in fuzz:
        venue.answers(message)
    found = read_frames(parser, good(FIRST), *fuzz, good(LAST), known=symbols)
    ids = {int(number) for (number,) in rows(found, "trades", "trade_id")}
    assert {FIRST, LAST} <= ids
    # Nothing vanishes: what is no record, no notice and no talk is kept whole.
    rows(found, "quotes", "bid_price")
    kept = {raw for (raw,) in rows(found, "rejects", "raw")}
    assert kept <= set(fuzz)


@pytest.mark.parametrize("which", range(3))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_fuzzed_messages(which: int, data: st.DataObject) -> None:
    check(which, data)


@pytest.mark.slow
@pytest.mark.parametrize("which", range(3))
@settings(max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_fuzzed_messages(which: int, data: st.DataObject) -> None:
    check(which, data)
