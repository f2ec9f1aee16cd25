"""ITCH files as the contract of feeds opens them: invented events, some of them broken."""

from pathlib import Path

from k2.feeds import Feed
from k2.feeds.itch import open_file
from tests.contracts.test_feeds import Clock
from tests.feeds import nasdaq as itch
from tests.feeds.nasdaq import OPEN, SECOND, Message


def open_finite(folder: Path, position: str | None, clock: Clock) -> Feed:
    """A feed that ends, of at least a few reads."""
    path = folder / "2026-03-02.itch.gz"
    if not path.exists():
        stocks = [itch.directory(1, "AAPL", 0), itch.directory(2, "MSFT", 0)]
        itch.write(path, [*stocks, *(each for n in range(150) for each in _events(n))])
    return open_file(path, clock=clock, position=position, block_bytes=4_096)


def _events(n: int) -> list[Message]:
    stock, time = 1 + n % 2, OPEN - 4 * 3600 * SECOND + n * 10**6
    name = ("AAPL", "MSFT")[n % 2]
    return [
        itch.add(stock, time, 1_000 + n, "BS"[n % 2], 100, name, 1_000_000 + n),
        itch.executed(stock, time, 1_000 + n - (n % 3 == 0), 10, n),
        itch.hidden(stock if n % 20 else 9, time, 7, name, 1_000_000, 10_000 + n),
        itch.deleted(stock, time, 1_000 + n - 5),
        *([itch.broken(stock, time, n)] if n % 25 == 3 else []),
    ]
