"""The ordinal of each record among equal records of its source, where it has no id of its own.

Comes in: the tables of a file, in order. Goes out: 0 for a record that no earlier one equals, 1 for
the second of its kind, and so on: exact for any order of times and any split into blocks, in
bounded memory. Equal means all columns but `ingestion_timestamp` and `occurrence`.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

WINDOW: Final = 200_000
"""So many records are remembered; a file whose times ascend needs only those of one time."""
PARTS: Final = 64
"""Files that a second reading is spread over; each is sorted in memory by itself."""
_NOT_CONTENT: Final = ("ingestion_timestamp", "occurrence")
_SPILLED: Final = np.dtype([("high", "u8"), ("low", "u8"), ("row", "i8")])
_NEVER: Final = np.iinfo(np.int64).min


class Occurrences:
    """Counts equal records of one file. `number` takes its tables in order.

    A record can only equal one with its own symbol and time. While every record is later than those
    of its symbol that left the window, the window tells all. The first record that is not makes
    `reread` be called: it gives the whole file's tables once more, their hashes go through
    temporary files, and the ordinals of all records are read from there.
    """

    def __init__(
        self,
        reread: Callable[[], Iterator[pa.Table]],
        window: int = WINDOW,
        folder: Path | None = None,
    ) -> None:
        self._reread = reread
        self._window = window
        self._folder = folder
        self._hashes = np.zeros((2, 0), np.uint64)
        self._times = np.zeros(0, np.int64)
        self._symbols = np.zeros(0, np.int64)
        self._codes: dict[str, int] = {}
        self._floors = np.zeros(0, np.int64)
        self._row = 0
        self._spill: _Spill | None = None

    def number(self, table: pa.Table) -> npt.NDArray[np.int32]:
        """The ordinals of the table's records."""
        n = table.num_rows
        if self._spill is None and n:
            times, symbols = self._times_of(table), self._symbols_of(table)
            if (times <= self._floors[symbols]).any():
                self._spill = _Spill(self._reread(), self._folder)
            else:
                found = self._by_window(content_hashes(table), times, symbols)
                self._row += n
                return found
        found = np.zeros(0, np.int32)
        if self._spill is not None:
            found = self._spill.ordinals(self._row, n)
        self._row += n
        return found

    def _by_window(self, hashes: Hashes, times: Ints, symbols: Ints) -> npt.NDArray[np.int32]:
        # Only remembered records at or after the block's first time can have equals in it. All of
        # those are remembered: what left the window has no time of a record in the block.
        near = self._times >= times.min()
        both = np.concatenate([self._hashes[:, near], hashes], axis=1)
        ordinals = _ordinals(both)[int(near.sum()) :]
        self._remember(hashes, times, symbols)
        return ordinals

    def _remember(self, hashes: Hashes, times: Ints, symbols: Ints) -> None:
        self._hashes = np.concatenate([self._hashes, hashes], axis=1)
        self._times = np.concatenate([self._times, times])
        self._symbols = np.concatenate([self._symbols, symbols])
        extra = len(self._times) - self._window
        if extra > 0:
            np.maximum.at(self._floors, self._symbols[:extra], self._times[:extra])
            self._hashes = self._hashes[:, extra:]
            self._times, self._symbols = self._times[extra:], self._symbols[extra:]

    def _times_of(self, table: pa.Table) -> Ints:
        found: Ints = table.column("timestamp").cast(pa.int64()).to_numpy()
        return found

    def _symbols_of(self, table: pa.Table) -> Ints:
        encoded = _whole(table.column("symbol"))
        for name in encoded.dictionary.to_pylist():
            self._codes.setdefault(name, len(self._codes))
        new = np.full(len(self._codes) - len(self._floors), _NEVER, np.int64)
        self._floors = np.concatenate([self._floors, new])
        codes = np.array([self._codes[name] for name in encoded.dictionary.to_pylist()], np.int64)
        return codes[encoded.indices.to_numpy()]

    def close(self) -> None:
        """Remove the temporary files, if there are any."""
        if self._spill is not None:
            self._spill.close()


class _Spill:
    """The ordinals of all records of a file, found by sorting their hashes part by part on disk."""

    def __init__(self, tables: Iterator[pa.Table], folder: Path | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="k2-occurrence-", dir=folder)
        try:
            self._ordinals = self._count(tables, Path(self._folder.name))
        except BaseException:
            self._folder.cleanup()
            raise

    def _count(self, tables: Iterator[pa.Table], folder: Path) -> npt.NDArray[np.int32]:
        paths = [folder / f"{part}.hashes" for part in range(PARTS)]
        row = 0
        for table in tables:
            hashes = content_hashes(table)
            spilled = np.empty(table.num_rows, _SPILLED)
            spilled["high"], spilled["low"] = hashes
            spilled["row"] = np.arange(row, row + table.num_rows)
            row += table.num_rows
            parts = (hashes[0] % np.uint64(PARTS)).astype(np.int64)
            order = np.argsort(parts, kind="stable")
            bounds = np.searchsorted(parts[order], np.arange(PARTS + 1))
            for part, path in enumerate(paths):
                chosen = order[bounds[part] : bounds[part + 1]]
                if len(chosen):
                    with path.open("ab") as file:
                        spilled[chosen].tofile(file)
        ordinals = np.memmap(folder / "ordinals", np.int32, "w+", shape=(max(row, 1),))
        for path in paths:
            if path.exists():
                spilled = np.fromfile(path, _SPILLED)
                path.unlink()
                hashes = np.stack([spilled["high"], spilled["low"]])
                ordinals[spilled["row"]] = _ordinals(hashes)
        return ordinals

    def ordinals(self, row: int, n: int) -> npt.NDArray[np.int32]:
        return np.array(self._ordinals[row : row + n])

    def close(self) -> None:
        del self._ordinals
        self._folder.cleanup()


def _order(hashes: Hashes) -> Ints:
    """The order that brings equal hashes together and keeps their rows ascending."""
    order = np.argsort(hashes[0], kind="stable")
    high, low = hashes[:, order]
    if ((high[1:] == high[:-1]) & (low[1:] != low[:-1])).any():
        # Half of the bits are the same by chance, which is next to never: sort by all of them.
        return np.lexsort((hashes[1], hashes[0]))
    return order


def _ordinals(hashes: Hashes) -> npt.NDArray[np.int32]:
    """How many earlier ones each hash equals."""
    n = hashes.shape[1]
    order = _order(hashes)
    ordered = hashes[:, order]
    fresh = np.ones(n, bool)
    fresh[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    starts = np.maximum.accumulate(np.where(fresh, np.arange(n), 0))
    found = np.empty(n, np.int32)
    found[order] = np.arange(n) - starts
    return found


def content_hashes(table: pa.Table) -> Hashes:
    """128 bits a record, over all columns that make it what it is: an array of two rows of 64 bits.

    Two different records share all 128 bits with a chance of 1 in 10^18 among ten thousand million.
    """
    out = np.zeros((2, table.num_rows), np.uint64)
    for place, name in enumerate(table.schema.names):
        column = _whole(table.column(name))
        if name in _NOT_CONTENT or column.null_count == len(column):
            continue
        for side in (0, 1):
            # A sum of hashes with a seed of its own for each column, to which null adds nothing:
            # the same record has the same sum, whatever else is in its block.
            out[side] += _hashes_of(column, 2 * place + side + 1)
    return out


def _hashes_of(column: pa.Array, seed: int) -> Hashes:
    if pa.types.is_dictionary(column.type):
        # A code means nothing outside its own dictionary, so the texts are what is hashed.
        texts = np.append(_hashes_of(column.dictionary, seed), np.uint64(0))
        if len(texts) == 2 and column.null_count == 0:
            return texts[:1]
        return texts[column.indices.fill_null(len(texts) - 1).to_numpy()]
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    if pa.types.is_decimal(column.type):
        # 18 digits fit the low 64 of the 128 bits.
        bits = np.frombuffer(column.buffers()[1], np.int64)
        column = pa.array(bits[2 * column.offset :: 2][: len(column)])
    found = pl.Series(pl.from_arrow(column)).hash(seed).to_numpy()
    return found if missing is None else np.where(missing, np.uint64(0), found)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
