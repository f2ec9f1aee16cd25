"""DBN files as the contract of feeds opens them: invented events, some of them broken."""

from pathlib import Path
from typing import Any

from k2.feeds import Feed
from k2.feeds.dbn import open_file
from tests.contracts.test_feeds import Clock
from tests.feeds.databento import dbn, head, mapped, quote, write


def open_finite(folder: Path, position: str | None, clock: Clock) -> Feed:
    """A feed that ends, of at least a few reads."""
    path = folder / "x.dbn.zst"
    if not path.exists():
        start = head(dbn.Schema.MBP_1, mapped("ABC", 7), mapped("XYZ", 8))
        write(path, start, map(_event, range(240)))
    return open_file(path, clock=clock, position=position, block_bytes=4_096)


def _event(n: int) -> Any:
    # Every second one equals the one before in all fields.
    half = n // 2
    action = (dbn.Action.ADD, dbn.Action.TRADE)[half % 2]
    price = 101_250_000_000 + half % 9 * 10**7
    if half % 20 == 7:
        return quote(half, instrument_id=9)
    return quote(half, action=action, price=price, instrument_id=7 + half % 2)
