"""ArcticDB over LMDB: a library a kind, a key a symbol, frames by time, as its users keep them.

A symbol is the name of its key and the exchange is one: neither is stored beside each row.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from bench.engines.native import connect
from bench.home import data_files
from bench.market import EXCHANGE, SYMBOLS
from bench.questions import COLUMNS, DAY_US, Bars, Beside, Extents, Question, Records

TITLE: Final = "ArcticDB"
NEEDS: Final = "arcticdb"
NOTE: Final = (
    "ArcticDB has no decimals: its prices and quantities are float64, its sums and VWAP not exact"
)

_IN_KEY: Final = ("symbol", "exchange", "timestamp")
_AGGREGATES: Final[Mapping[str, tuple[str, str]]] = {
    "open": ("price", "first"),
    "high": ("price", "max"),
    "low": ("price", "min"),
    "close": ("price", "last"),
    "volume": ("quantity", "sum"),
    "turnover": ("turnover", "sum"),
    "trade_count": ("price", "count"),
}
_INSTANT: Final = timedelta(microseconds=1)
_NEAR: Final = timedelta(hours=1)


def open_engine(home: Path) -> "Arctic":
    """A store below the home, loaded a symbol at a time."""
    store = import_module("arcticdb").Arctic(f"lmdb://{home / 'arctic'}")
    libraries = {}
    database = connect()
    for kind in ("trades", "quotes"):
        libraries[kind] = store.get_library(kind, create_if_missing=True)
        stored = ", ".join(
            f"{name}::DOUBLE AS {name}" if name.endswith(("price", "quantity")) else name
            for name in COLUMNS[kind]
            if name not in _IN_KEY
        )
        for symbol in SYMBOLS:
            rows = database.execute(
                f"SELECT timestamp::TIMESTAMP_NS AS timestamp, {stored} FROM read_parquet($paths) "
                "WHERE symbol = $symbol ORDER BY timestamp, source_sequence",
                {"paths": data_files(home, kind), "symbol": symbol},
            ).df()
            libraries[kind].write(symbol, rows.set_index("timestamp"))
    database.close()
    return Arctic(store, libraries)


class Arctic:
    """See `port.Engine`. Answers are pandas frames."""

    def __init__(self, store: Any, libraries: Mapping[str, Any]) -> None:
        self._store = store
        self._libraries = libraries
        self._of = import_module("arcticdb")
        self._pandas = import_module("pandas")

    def asking(self, question: Question) -> Callable[[], Any] | None:
        """Reads of one key, or of a batch of keys that are then put together."""
        match question:
            case Records(every_column=True):
                return None
            case Records():
                return self._records(question)
            case Bars():
                return self._bars(question)
            case Extents():
                return lambda: {
                    kind: self._libraries[kind].get_description_batch(SYMBOLS)
                    for kind in question.kinds
                }
            case Beside():
                return self._beside(question)

    def _records(self, question: Records) -> Callable[[], Any]:
        library, symbols = self._libraries[question.kind], question.symbols
        start, end, last, limit = question.start, question.end, question.last, question.limit
        if len(symbols) == 1 and last is not None and start is None and end is None:
            return lambda: library.tail(symbols[0], last).data
        if len(symbols) == 1:
            return lambda: library.read(symbols[0], date_range=_range(start, end)).data
        # What bounds rows reads all of the range: so an hour is looked at first.
        near = start, end
        if last is not None and end is not None:
            near = end - _NEAR, end
        elif limit is not None and start is not None:
            near = start, start + _NEAR
        names = symbols or SYMBOLS
        attempts = [self._requests(names, _range(*each), question) for each in (near, (start, end))]
        wanted = last or limit or 0

        def read() -> Any:
            for asked in attempts:
                whole = self._joined(library.read_batch(asked), names)
                if len(whole) >= wanted:
                    break
            whole = whole.sort_values(["timestamp", "source_sequence"])
            if last is not None:
                return whole.tail(last)
            return whole if limit is None else whole.head(limit)

        return read

    def _requests(
        self, names: Sequence[str], range_: tuple[Any, Any] | None, question: Records
    ) -> list[Any]:
        narrowed = None
        if question.last is not None:
            narrowed = self._of.QueryBuilder().tail(question.last)
        elif question.limit is not None:
            narrowed = self._of.QueryBuilder().head(question.limit)
        return [
            self._of.ReadRequest(name, date_range=range_, query_builder=narrowed) for name in names
        ]

    def _bars(self, question: Bars) -> Callable[[], Any]:
        library, names = self._libraries["trades"], question.symbols or SYMBOLS
        builder = self._of.QueryBuilder()
        builder = builder.apply("turnover", builder["price"] * builder["quantity"])
        width = "1D" if question.width_us == DAY_US else "1min"
        builder = builder.resample(width).agg(dict(_AGGREGATES))
        range_ = _range(question.start, question.end)
        asked = [
            self._of.ReadRequest(name, date_range=range_, query_builder=builder) for name in names
        ]

        def read() -> Any:
            whole = self._joined(library.read_batch(asked), names)
            whole["vwap"] = whole["turnover"] / whole["volume"]
            return whole

        return read

    def _beside(self, question: Beside) -> Callable[[], Any]:
        range_ = _range(question.start, question.end)

        def read() -> Any:
            trades, quotes = (
                self._libraries[kind]
                .read(
                    question.symbol,
                    date_range=range_,
                    columns=[name for name in question.columns if name in COLUMNS[kind][3:]],
                )
                .data
                for kind in ("trades", "quotes")
            )
            return self._pandas.merge_asof(trades, quotes, left_index=True, right_index=True)

        return read

    def _joined(self, items: Sequence[Any], names: Sequence[str]) -> Any:
        """The frames of several keys as one, each row with the symbol of its own."""
        frames = [item.data for item in items]
        codes = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
        whole = self._pandas.concat(frames)
        whole["symbol"] = self._pandas.Categorical.from_codes(codes, categories=list(names))
        return whole

    def to_table(self, answer: Any, question: Question) -> pa.Table:
        """Frames as Arrow, with the time, and what the key tells."""
        if isinstance(question, Extents):
            return _extents(answer, question)
        frame = answer.reset_index().rename(
            columns={"timestamp": "start"} if isinstance(question, Bars) else {}
        )
        table = pa.Table.from_pandas(frame, preserve_index=False)
        if isinstance(question, Records | Bars) and "symbol" not in table.column_names:
            table = table.append_column("symbol", pa.array([question.symbols[0]] * table.num_rows))
        if isinstance(question, Records):
            table = table.append_column("exchange", pa.array([EXCHANGE] * table.num_rows))
        return table.select(question.columns)

    def close(self) -> None:
        """Let go of the store: it has no other way."""
        self._libraries = {}
        self._store = None


def _range(start: datetime | None, end: datetime | None) -> tuple[Any, Any] | None:
    """Both ends are inclusive there, and times have no zone."""
    if start is None and end is None:
        return None
    return (
        None if start is None else start.replace(tzinfo=None),
        None if end is None else end.replace(tzinfo=None) - _INSTANT,
    )


def _extents(described: Mapping[str, Sequence[Any]], question: Extents) -> pa.Table:
    of_kinds = list(described.values())
    first = [min(each.date_range[0] for each in of) for of in zip(*of_kinds, strict=True)]
    last = [max(each.date_range[1] for each in of) for of in zip(*of_kinds, strict=True)]
    counts = [[each.row_count for each in of] for of in of_kinds]
    columns = [pa.array(SYMBOLS), pa.array(first), pa.array(last), *map(pa.array, counts)]
    return pa.table(columns, names=list(question.columns))
