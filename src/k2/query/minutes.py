"""Partial bars in memory: those of a symbol between two times are slices of their files' minutes.

Comes in: files of roll-ups. Goes out: where each bar of a question is one minute of one file, the
bars, without the engine.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.model import micros
from k2.query.fill import SCHEMA
from k2.query.narrow import Span
from k2.query.port import Engine
from k2.query.rounding import half_even
from k2.query.statements import statement

_MOST_ROWS: Final = 200_000
"""Partial bars of one question's files, up to which these are kept whole."""
_KEPT_ROWS: Final = 500_000
"""Partial bars that are kept in all, some 150 bytes each."""
_MOST_FILES: Final = 64

_KEYS: Final = ("symbol", "exchange")


@dataclass(frozen=True)
class Kept:
    """The partial bars of a file, by symbol, exchange and time, with the VWAP of each by itself;
    `runs` are the rows `[begin, end)` of each symbol at each exchange.
    """

    table: pa.Table
    times: npt.NDArray[np.int64]
    runs: Mapping[tuple[str, str], tuple[int, int]]

    def span(self, key: tuple[str, str], start: int | None, end: int | None) -> tuple[int, int]:
        """The rows of the symbol at the exchange that begin in `[start, end)`, microseconds."""
        begin, stop = self.runs[key]
        times = self.times[begin:stop]
        low = 0 if start is None else int(np.searchsorted(times, start))
        high = len(times) if end is None else int(np.searchsorted(times, end))
        return begin + low, begin + max(low, high)


@dataclass(frozen=True)
class Partials:
    """Partial bars of one question: of each symbol at each exchange, by their UTF-8 bytes, tables
    that stand one behind the other in time, unless they overlap.
    """

    parts: Sequence[Sequence[pa.Table]]
    schema: pa.Schema

    def bars(self, *, all_trades: bool, last: int | None) -> pa.Table | None:
        """A bar for each (see `fill.SCHEMA`), `last`: the newest of each; None where two are of
        one minute, and are to be merged.
        """
        found = []
        for part in self.parts:
            rows = pa.concat_tables(part)
            if not all_trades:
                forming = rows["price_forming"]
                if not pc.all(forming).as_py():
                    rows = rows.filter(forming)
            if not (np.diff(micros(rows["timestamp"])) > 0).all():
                return None
            found.append(rows if last is None else rows.slice(max(0, rows.num_rows - last)))
        if not found:
            return SCHEMA.empty_table()
        joined = pa.concat_tables(found).rename_columns(
            ["start" if name == "timestamp" else name for name in self.schema.names]
        )
        return joined.select(SCHEMA.names).cast(SCHEMA)


class Minutes:
    """Files of partial bars that questions read, kept. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def of(self, engine: Engine, paths: Sequence[str], rows: int, span: Span) -> Partials | None:
        """The partial bars within the span in these files, of so many `rows` together; None where
        they are too many to keep. The span names its symbols. Raises as the engine does.
        """
        if len(paths) > _MOST_FILES or rows > _MOST_ROWS:
            return None
        files = [self._file(engine, path) for path in paths]
        wanted = frozenset(span.symbols)
        keys = {
            key
            for file in files
            for key in file.runs
            if key[0] in wanted and (not span.exchanges or key[1] in span.exchanges)
        }
        parts = []
        for key in sorted(keys, key=lambda key: tuple(map(str.encode, key))):
            spans = [
                (file, *file.span(key, span.start, span.end)) for file in files if key in file.runs
            ]
            there = [(int(of.times[a]), a, b, of) for of, a, b in spans if a < b]
            there.sort(key=lambda each: each[0])
            if there:
                parts.append([of.table.slice(a, b - a) for _, a, b, of in there])
        return Partials(parts, files[0].table.schema)

    def _file(self, engine: Engine, path: str) -> Kept:
        with self._lock:
            found = self._kept.get(path)
            if found is not None:
                self._kept.move_to_end(path)
                return found
        # Not under the lock: it reads a file. Whoever else does the same reads the same.
        made = _read(engine, path)
        with self._lock:
            self._kept[path] = made
            while len(self._kept) > 1 and self._rows() > _KEPT_ROWS:
                self._kept.popitem(last=False)
        return made

    def _rows(self) -> int:
        return sum(kept.table.num_rows for kept in self._kept.values())


def _read(engine: Engine, path: str) -> Kept:
    table = pq.ParquetFile(path).read().combine_chunks()
    numbered = table.select(["turnover", "volume"]).append_column(
        "number", pa.array(np.arange(table.num_rows))
    )
    made = engine.run(statement("vwap", {}, vwap=half_even("t", "v")), {"rows": numbered})
    table = table.append_column("vwap", made["vwap"].combine_chunks())
    symbols, exchanges = (table[name].to_pylist() for name in _KEYS)
    codes = [table[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in _KEYS]
    changed = np.logical_or(*(np.diff(code) != 0 for code in codes))
    borders = [0, *(np.flatnonzero(changed) + 1).tolist(), table.num_rows]
    runs = {(symbols[a], exchanges[a]): (a, b) for a, b in pairwise(borders) if a < b}
    return Kept(table, micros(table["timestamp"]), runs)
