"""Volume by price: how much traded at each price, or between prices, in each interval.

Comes in: a view of trades and a selection. Goes out: one row per symbol, exchange and interval,
with its price levels as a list.
"""

import re
from decimal import Decimal
from typing import Final

import pyarrow as pa

from k2.errors import BadInput
from k2.model import PRICE_TYPE, TIMESTAMP_TYPE
from k2.query.frame import Framing, frame
from k2.query.port import Engine
from k2.query.predicate import bounds
from k2.query.rounding import in_units
from k2.query.selection import Selection
from k2.query.statements import statement
from k2.query.view import View

LEVEL: Final = pa.struct(
    [("price", PRICE_TYPE), ("volume", pa.decimal128(38, 8)), ("trade_count", pa.int64())]
)
"""What traded at one price; with a bin size, from this price (inclusive) to the next bin's."""

SCHEMA: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("start", TIMESTAMP_TYPE),
        ("volume_profile", pa.list_(LEVEL)),
    ]
)


def parse_bin(text: str) -> Decimal:
    """The width of a price bin. Raises `BadInput` for what is no price above 0."""
    if re.fullmatch(r"\d{1,10}(\.\d{1,8})?", text.strip(), re.A) and (width := Decimal(text)) > 0:
        return width
    raise BadInput(
        f"{text!r} is no width of price bins",
        place="bin_size",
        expected="a price above 0, of up to 8 decimals",
        hint="such as 0.5; without one, every price is a level",
    )


def make_profile(
    engine: Engine, view: View, selection: Selection, framing: Framing, bin_size: Decimal | None
) -> pa.Table:
    """The profiles (see `SCHEMA`), by symbol, exchange and start. Raises `BadInput`."""
    edge = bounds(selection, view.exchanges)
    files = view.select(selection.symbols, times=(edge.start, edge.end))
    framed = frame(view, files, selection, framing)
    values, level = dict(framed.values), "price"
    if bin_size is not None:
        values["bin"] = int(bin_size.scaleb(8))
        digits = in_units("price")
        # Twice the remainder, so that prices below 0 go down to their bin as well.
        level = f"{digits} - ({digits} % $bin + $bin) % $bin"
        level = f"(({level})::decimal(18, 0) * 0.00000001)::decimal(18, 8)"
    made = statement("profile", values, **framed.fragments, level=level)
    found = engine.run(made, {**framed.tables, "rows": view.source(files)})
    return framed.settled(found, SCHEMA)
