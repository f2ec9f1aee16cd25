"""Kraken as the contract of feeds opens it: a range of trades from a small venue's history."""

import atexit
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from k2.feeds import Feed, open_feed
from tests.contracts.test_feeds import Clock
from tests.feeds.venue import Venue, opened


@cache
def _venue() -> Venue:
    """Open for all tests of the run: feeds of one source are opened again and again."""
    stack = ExitStack()
    atexit.register(stack.close)
    venue = stack.enter_context(opened())
    venue.past["BTC/USD"] = list(range(1, 3001))
    return venue


def open_finite(folder: Path, position: str | None, clock: Clock) -> Feed:
    """A feed that ends, of at least a few reads."""
    venue = _venue()
    since = "since=2026-01-05T08:00:00.099Z"
    url = f"kraken:BTC/USD?{venue.options}&first=100&last=2900&{since}"
    return open_feed(url, position, clock)
