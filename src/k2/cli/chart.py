"""Prices as a line of blocks, for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def sparkline(prices: Sequence[Decimal], width: int) -> str:
    """The newest `width` prices as blocks, the lowest of them lowest; empty for no prices."""
    shown = prices[-width:]
    low, high = min(shown, default=Decimal(0)), max(shown, default=Decimal(0))
    span = high - low
    if not span:
        return _BLOCKS[3] * len(shown)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[int((price - low) * top / span)] for price in shown)


def sparklines(bars: "pa.Table", width: int) -> Iterator[str]:
    """A line per symbol and exchange of `bars`: its closes, and between which they lie."""
    closes: dict[tuple[str, str], list[Decimal]] = {}
    columns = (bars[name].to_pylist() for name in ("symbol", "exchange", "close"))
    for symbol, exchange, close in zip(*columns, strict=True):
        if close is not None:
            closes.setdefault((symbol, exchange), []).append(close)
    for (symbol, exchange), prices in closes.items():
        low, high = _digits(min(prices)), _digits(max(prices))
        label = f"{symbol} {exchange}  {low} to {high}  "
        yield label + sparkline(prices, max(10, width - len(label)))


def colour_of_bar(row: Mapping[str, Any]) -> str | None:
    """Green for a bar that rose, red for one that fell; `row` holds values as text."""
    if not row.get("open") or not row.get("close"):
        return None
    opened, closed = Decimal(row["open"]), Decimal(row["close"])
    if closed == opened:
        return None
    return "green" if closed > opened else "red"


def _digits(price: Decimal) -> str:
    return f"{price:f}".rstrip("0").rstrip(".") if "." in f"{price:f}" else f"{price:f}"
