"""Ids that are no numbers, as hashes: whether a table may hold one, told without reading the table.

Comes in: the ids of rows. Goes out: which of them may have been there before. A hash that was
never met proves its id new; one that was met proves nothing, and the id is looked up in the table.
The hashes stand in sorted runs that grow by merging (a log-structured merge tree: O'Neil et al.,
1996), in files beside the table, 8 bytes an id; memory holds the pages of them that are touched.
"""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes: TypeAlias = npt.NDArray[np.uint64]

_RUN_MAX: Final = 1 << 24
_GROWTH: Final = 4
"""A run is merged with the next one unless it is so many times as large."""
_WORD: Final = 8
# Steele, Lea and Flood: Fast Splittable Pseudorandom Number Generators (2014), the finalizer.
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SEED: Final = np.uint64(0x9E3779B97F4A7C15)


def hashes_of(rows: pa.Table, id_column: str) -> Hashes:
    """A hash of the identity (exchange, id_space, symbol, id) of each row; null counts as empty."""
    parts = [
        pc.fill_null(rows[name].cast(pa.string()), "")
        for name in ("exchange", "id_space", "symbol", id_column)
    ]
    joined = pc.binary_join_element_wise(*parts, "\x1f")
    return hashes_of_texts(joined.combine_chunks())


def hashes_of_texts(texts: pa.StringArray) -> Hashes:
    """A hash of each text (none is null), of its UTF-8 bytes and their number."""
    if not len(texts):
        return np.zeros(0, np.uint64)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    start, length = bounds[:-1].astype(np.int64), np.diff(bounds)
    found = length.astype(np.uint64) * _SEED
    if data is None:
        return _mixed(found)
    # Eight bytes from any place on: the last ones reach past the end.
    padded = np.concatenate([np.frombuffer(data, np.uint8), np.zeros(_WORD, np.uint8)])
    words = np.lib.stride_tricks.as_strided(
        padded[:_WORD].view(np.uint64), shape=(len(padded) - _WORD + 1,), strides=(1,)
    )
    todo = np.flatnonzero(length > 0)
    for done in range(0, int(length.max(initial=0)), _WORD):
        todo = todo[length[todo] > done]
        word = words[start[todo] + done]
        excess = np.maximum(_WORD - (length[todo] - done), 0).astype(np.uint64) * np.uint64(8)
        found[todo] = _mixed(found[todo] ^ ((word << excess) >> excess)) + _SEED
    return _mixed(found)


def _mixed(values: Hashes) -> Hashes:
    values = (values ^ (values >> _SHIFTS[0])) * _FACTORS[0]
    values = (values ^ (values >> _SHIFTS[1])) * _FACTORS[1]
    return values ^ (values >> _SHIFTS[2])


class _Run:
    """Hashes, ascending and each once; `name` of the file that has them, if one does."""

    def __init__(self, values: Hashes, name: str | None = None) -> None:
        self.values = values
        self.name = name


class HashedIds:
    """The hashes of the ids that were met. One thread adds and asks; another may `keep` them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: tuple[_Run, ...] = ()

    @classmethod
    def kept(cls, folder: Path, lengths: Mapping[str, int]) -> "HashedIds":
        """What `keep` wrote, mapped into memory.

        Raises `OSError` or `ValueError` where a file is gone or torn.
        """
        found = cls(folder)
        found._runs = tuple(_mapped(folder / n, length) for n, length in lengths.items())
        return found

    def may_hold(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Per hash, whether it was met."""
        found = np.zeros(len(hashes), np.bool_)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run.values, hashes), len(run.values) - 1)
            found |= run.values[place] == hashes
        return found

    def add(self, hashes: Hashes) -> None:
        """Remember that these were met."""
        if not len(hashes):
            return
        runs = [*self._runs, _Run(np.unique(hashes))]
        while len(runs) > 1 and _belong_together(runs[-2], runs[-1]):
            last, before = runs.pop(), runs.pop()
            merged = np.concatenate([before.values, last.values])
            merged.sort(kind="stable")  # takes two sorted runs as such
            runs.append(_Run(merged[np.diff(merged, prepend=~merged[:1]) != 0]))
        self._runs = tuple(runs)

    def keep(self) -> dict[str, int]:
        """Have all in files of the folder: their names, and how many hashes are in each."""
        runs = self._runs
        for run in runs:
            # Another writer that keeps its own may have cleared away what nobody named any more.
            if run.name is None or not (self._folder / run.name).exists():
                name = f"{uuid.uuid4()}.npy"
                _write(self._folder / name, run.values)
                run.name, run.values = name, _mapped(self._folder / name, len(run.values)).values
        return {str(run.name): len(run.values) for run in runs}


def _belong_together(before: _Run, last: _Run) -> bool:
    within = len(before.values) + len(last.values) <= _RUN_MAX
    return within and len(before.values) < _GROWTH * len(last.values)


def _write(path: Path, values: Hashes) -> None:
    written = path.with_suffix(".part")
    with written.open("wb") as file:
        np.save(file, values)
        # A file of zeros after a power cut would call ids new that are not.
        file.flush()
        os.fsync(file.fileno())
    written.rename(path)


def _mapped(path: Path, length: int) -> _Run:
    values = np.load(path, mmap_mode="r")
    if values.dtype != np.uint64 or len(values) != length:
        raise ValueError(f"{path}: {length} hashes were expected")
    return _Run(values, path.name)


def repeated(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Per hash, whether it stood earlier among these."""
    again = np.ones(len(hashes), np.bool_)
    again[np.unique(hashes, return_index=True)[1]] = False
    return again
