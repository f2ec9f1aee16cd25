"""The simulator as the contract of feeds opens it."""

from pathlib import Path

from k2.feeds import Feed, open_feed
from tests.contracts.test_feeds import Clock

URL = "simulator:?rate=max&symbols=6&seed=2&chunk=300&count=1500&late=0.01&duplicates=0.01"


def open_finite(folder: Path, position: str | None, clock: Clock) -> Feed:
    """A feed that ends, of at least a few reads."""
    return open_feed(URL, position, clock)
