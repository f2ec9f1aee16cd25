"""Mapped files as the contract of feeds opens them: invented trades, every 40th line broken."""

from pathlib import Path

from k2.feeds import Feed
from k2.feeds.csv import open_file
from tests.contracts.test_feeds import Clock


def open_finite(folder: Path, position: str | None, clock: Clock) -> Feed:
    """A feed that ends, of at least a few reads."""
    path = folder / "1234.csv"
    if not path.exists():
        path.write_text("".join(map(_line, range(600))))
    return open_file(
        path, "asx", "trades", symbol="XYZ", clock=clock, position=position, block_bytes=4_096
    )


def _line(n: int) -> str:
    # Every second line equals the one before in all columns.
    second, price = n // 2 % 60, "12,5" if n % 40 == 7 else f"12.{n // 2 % 90:02d}"
    price = price.replace(",", "x")
    return f"03/10/2014,10:{n // 200:02d}:{second:02d}.123,{price},{100 + n % 7 * 10},,C,7\n"
