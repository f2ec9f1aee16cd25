"""Broken messages of any kind never stop a parser, and never take a neighbour with them.

K2_TEST_FRAMES says how many frames the long test breaks, over the three venues together.
"""

import json
import os
from collections.abc import Callable
from random import Random

import pytest

from k2.feeds.binance import Binance
from k2.feeds.coinbase import Coinbase
from k2.feeds.kraken import Kraken
from k2.feeds.live.options import Asked
from k2.feeds.live.venue import Venue
from tests.feeds import test_binance, test_coinbase, test_kraken
from tests.feeds.frames import GOLDEN, broken
from tests.feeds.live import read_frames, rows

VENUES: dict[str, tuple[Venue, Callable[[int], str]]] = {
    "binance": (
        Binance(Asked(("BTCUSDT",))),
        lambda n: json.dumps(test_binance.TRADE | {"t": n}),
    ),
    "coinbase": (
        Coinbase(Asked(("BTC-USD",))),
        # Without a number of the message, which would have every other one be missing.
        lambda n: json.dumps(
            test_coinbase.told("market_trades", None, {"trades": [test_coinbase.trade(n)]})
        ),
    ),
    "kraken": (
        Kraken(Asked(("BTC/USD",))),
        lambda n: test_kraken.trades(test_kraken.trade(n)),
    ),
}
FIRST = 2**40
"""The id of the first neighbour: no golden frame has it or a later one."""
AT_ONCE = 20
FRAMES = int(os.environ.get("K2_TEST_FRAMES", "20000"))


def check(name: str, seed: int, frames: int) -> None:
    """Break frames, `AT_ONCE` a connection, with a good one before and behind each."""
    venue, good = VENUES[name]
    symbols = [symbol for plan in venue.plans() for symbol in plan.symbols]
    for at in range(0, frames, AT_ONCE):
        random = Random(f"{name} {seed} {at}")
        fuzz = [broken(random, GOLDEN[name]) for _ in range(AT_ONCE)]
        told: list[str | bytes] = [good(FIRST)]
        for number, frame in enumerate(fuzz, FIRST + 1):
            venue.answers(frame)
            told += [frame, good(number)]
        try:
            found = read_frames(venue.parser(symbols), *told, known=symbols)
            ids = {int(number) for (number,) in rows(found, "trades", "trade_id")}
            rows(found, "quotes", "bid_price")
            kept = {raw for (raw,) in rows(found, "rejects", "raw")}
        except Exception as error:
            error.add_note(f"{name}, seed {seed}, frames from {at}: {[f[:200] for f in fuzz]}")
            raise
        missing = set(range(FIRST, FIRST + AT_ONCE + 1)) - ids
        assert not missing, (name, seed, at, [fuzz[number - FIRST - 1] for number in missing])
        assert kept <= set(fuzz), (name, seed, at)


@pytest.mark.parametrize("name", VENUES)
def test_the_frames_that_are_broken_are_sound(name: str) -> None:
    venue, good = VENUES[name]
    symbols = [symbol for plan in venue.plans() for symbol in plan.symbols]
    found = read_frames(venue.parser(symbols), *GOLDEN[name], good(FIRST), known=symbols)
    assert found.trades
    assert found.quotes
    assert [reject.reason for reject in found.rejects if reject.kind != "unknown"] == []


@pytest.mark.parametrize("name", VENUES)
def test_broken_frames(name: str) -> None:
    check(name, 1, 1_000)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", VENUES)
def test_many_broken_frames(name: str) -> None:
    check(name, 2, FRAMES // len(VENUES) + 1)
