"""What each symbol traded: trades, quantities, and their value in the currency of its prices.

Comes in: a view of trades and a selection. Goes out: one row per exchange and symbol, exact sums.
"""

import pyarrow as pa

from k2.query.port import Engine
from k2.query.predicate import bounds, predicate
from k2.query.selection import Selection
from k2.query.statements import statement
from k2.query.view import View


def sum_turnover(engine: Engine, view: View, selection: Selection) -> pa.Table:
    """exchange, symbol, currency (null where no trade says it), trades, volume, value.

    Raises `BadInput` for a range of times that is empty.
    """
    edge = bounds(selection, view.exchanges)
    files = view.select(selection.symbols, times=(edge.start, edge.end))
    where = predicate(selection, view.columns, view.time, view.exchanges)
    made = statement("turnover", where.values, predicate=where.text)
    return engine.run(made, {"rows": view.source(files)})
