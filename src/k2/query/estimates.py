"""The part of the facade that says what a question would read, before it is asked."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from k2.lake import LEDGERS, RECORD_TABLES
from k2.query.answer import Answer, told
from k2.query.port import Engine
from k2.query.predicate import bounds
from k2.query.selection import Past, Selection
from k2.query.state import State
from k2.query.view import View

ESTIMATE: Final = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("files", pa.int64(), nullable=False),
        pa.field("of_files", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("tail_rows", pa.int64(), nullable=False),
        pa.field("first_date", pa.date32()),
        pa.field("last_date", pa.date32()),
    ]
)
"""What would be read of a table: files of all there are, the rows and bytes (compressed) in these,
rows that wait in the log, and the exchange dates that they span. All are upper bounds.
"""


class Estimates:
    """Methods of `k2.query.Reader`, which says what their parameters mean and what they raise."""

    _state: State
    _engine: Engine

    def explain(
        self,
        kinds: Sequence[str],
        selection: Selection,
        *,
        as_of: str | None = None,
    ) -> Answer:
        """What a question about this selection would read at most of each kind: see `ESTIMATE`.

        Nothing but the index is read for it. Conditions on other columns than symbol and time make
        it no less.
        """
        began = time.perf_counter()
        views = {kind: self._state.view(kind, as_of=as_of) for kind in kinds}
        return _answer({kind: (view, selection) for kind, view in views.items()}, as_of, began)

    def explain_sql(self, text: str, *, as_of: str | None = None) -> Answer:
        """What a user's SELECT would read at most: of ledgers nothing is told, they are small."""
        began = time.perf_counter()
        names = sorted(self._engine.reads(text, (*RECORD_TABLES, *LEDGERS)))
        views = {name: self._state.view(name, as_of=as_of) for name in names if name not in LEDGERS}
        return _answer({name: (view, Selection()) for name, view in views.items()}, as_of, began)


def _answer(asked: Mapping[str, tuple[View, Selection]], as_of: str | None, began: float) -> Answer:
    rows = [_estimate(view, selection) for view, selection in asked.values()]
    table = pa.Table.from_pylist(rows, schema=ESTIMATE)
    return Answer(table, told([view for view, _ in asked.values()], table, began, past=Past(as_of)))


def _estimate(view: View, selection: Selection) -> dict[str, object]:
    edge = bounds(selection, view.exchanges)
    files = view.select(selection.symbols, times=(edge.start, edge.end))
    dates = [file.exchange_date for file in files if file.exchange_date is not None]
    return {
        "table": view.table,
        "files": len(files),
        "of_files": len(view.select()),
        "rows": sum(file.rows for file in files),
        "bytes": sum(file.bytes for file in files),
        "tail_rows": 0 if view.tail is None else view.tail.num_rows,
        "first_date": min(dates, default=None),
        "last_date": max(dates, default=None),
    }
