"""Which files a query needs, answered from memory: the live files of one snapshot as columns.

Comes in: manifests. Goes out: an immutable `FileIndex`. From one snapshot to the next only new
manifests are read. A bound that is missing means "may match": a file is never left out by a guess.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from k2.lake.manifest import EPOCH, Entry, day_of
from k2.lake.metadata import bucket_in
from k2.lake.sort import Bucket, bucket

LEAST, GREATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_NO_DATE: Final = np.iinfo(np.int32).min
_NO_BUCKET: Final = Bucket(-1, 0)
# No UTF-8 text holds the byte 0xff: this is after every one.
_LAST_TEXT: Final = b"\xff"
_READ: Final = ("symbol", "trade_id", "commit_sequence")
_DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")
Longs = npt.NDArray[np.int64]
Texts = npt.NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class DataFileRef:
    """One file that may hold rows of interest.

    `path` is local. `sequence` is the commit that added the file: the commit of each of its rows
    whose `commit_sequence` is null. `whole`: asked as of a commit, every row was there by then; if
    False, rows with a greater commit are to be left out. Bounds are inclusive and None where
    unknown; timestamps are microseconds since 1970 (UTC) of the table's time column. `settled`
    files hold one bucket's symbols only.
    """

    path: str
    sequence: int
    rows: int
    bytes: int
    whole: bool
    settled: bool
    exchange_date: date | None
    min_symbol: str | None
    max_symbol: str | None
    min_timestamp: int | None
    max_timestamp: int | None


@dataclass(frozen=True)
class FileColumns:
    """Data files as columns of equal length, in no order."""

    path: npt.NDArray[np.object_]
    bucket: npt.NDArray[np.int32]
    buckets: npt.NDArray[np.int32]
    """Among how many its bucket is one; 0 without a bucket."""
    exchange_date: npt.NDArray[np.int32]
    sequence: Longs
    rows: Longs
    bytes: Longs
    min_symbol: Texts
    max_symbol: Texts
    min_trade_id: Texts
    max_trade_id: Texts
    min_timestamp: Longs
    max_timestamp: Longs
    min_commit: Longs
    """Least `commit_sequence` written in the file; `GREATEST` if all are null."""
    max_commit: Longs
    """Greatest commit of any row, nulls taken as the file's own sequence number."""

    @classmethod
    def concatenated(cls, parts: Sequence["FileColumns"]) -> "FileColumns":
        """All files of all parts."""
        if not parts:
            return columns_of([], {}, None)
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def columns_of(
    entries: Sequence[Entry], field_ids: Mapping[str, int], time: str | None
) -> FileColumns:
    """The columns of a manifest's live entries; `time` names the table's time column."""
    read = _Bounds(entries, field_ids, time)
    files = [entry["data_file"] for entry in entries]
    partitions = [file["partition"] for file in files]
    sequence = np.array([entry["sequence_number"] for entry in entries], np.int64)
    least, greatest = read.commits(sequence)
    buckets = [bucket_in(partition) or _NO_BUCKET for partition in partitions]
    return FileColumns(
        path=_objects([local(file["file_path"]) for file in files]),
        bucket=np.array([number for number, _ in buckets], np.int32),
        buckets=np.array([of for _, of in buckets], np.int32),
        exchange_date=np.array([_days(p.get("exchange_date")) for p in partitions], np.int32),
        sequence=sequence,
        rows=np.array([file["record_count"] for file in files], np.int64),
        bytes=np.array([file["file_size_in_bytes"] for file in files], np.int64),
        min_symbol=read.texts("symbol", "lower_bounds", b""),
        max_symbol=read.texts("symbol", "upper_bounds", _LAST_TEXT),
        min_trade_id=read.texts("trade_id", "lower_bounds", b""),
        max_trade_id=read.texts("trade_id", "upper_bounds", _LAST_TEXT),
        min_timestamp=read.longs(time, "lower_bounds", LEAST),
        max_timestamp=read.longs(time, "upper_bounds", GREATEST),
        min_commit=least,
        max_commit=greatest,
    )


class _Bounds:
    """The bounds of each entry, by column."""

    def __init__(
        self, entries: Sequence[Entry], field_ids: Mapping[str, int], time: str | None
    ) -> None:
        self._ids = field_ids
        self._files = [entry["data_file"] for entry in entries]
        wanted = frozenset(field_ids.get(name, -1) for name in _READ) | {
            field_ids.get(time or "", -1)
        }
        self._maps: dict[str, list[dict[int, Any]]] = {
            which: [
                {e["key"]: e["value"] for e in file.get(which) or () if e["key"] in wanted}
                for file in self._files
            ]
            for which in ("lower_bounds", "upper_bounds", "null_value_counts")
        }

    def texts(self, column: str, which: str, missing: bytes) -> Texts:
        key = self._ids.get(column, -1)
        found = [of.get(key, missing) for of in self._maps[which]]
        return np.array(found, dtype=np.bytes_)

    def longs(self, column: str | None, which: str, missing: int) -> Longs:
        key = self._ids.get(column, -1) if column else -1
        found = [_long(of.get(key), missing) for of in self._maps[which]]
        return np.array(found, np.int64)

    def commits(self, sequence: Longs) -> tuple[Longs, Longs]:
        """Least commit written out, and greatest commit of any row."""
        key = self._ids.get("commit_sequence", -1)
        rows = np.array([file["record_count"] for file in self._files], np.int64)
        nulls = np.array([of.get(key, -1) for of in self._maps["null_value_counts"]], np.int64)
        # Where nulls were not counted, some may be written out and some not.
        least = self.longs("commit_sequence", "lower_bounds", LEAST)
        least[nulls == rows] = GREATEST
        greatest = self.longs("commit_sequence", "upper_bounds", GREATEST)
        greatest = np.where(nulls == 0, greatest, np.maximum(greatest, sequence))
        greatest[nulls == rows] = sequence[nulls == rows]
        # A row cannot have been committed after its file was.
        return least, np.minimum(greatest, sequence)


class FileIndex:
    """The live files of one snapshot. Immutable; any thread may ask."""

    def __init__(self, columns: FileColumns) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns.path)

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return int(self.columns.rows.sum())

    @property
    def newest(self) -> int | None:
        """The last time of any row, microseconds since 1970 (the greatest number where a file does
        not say); None without rows.
        """
        return int(self.columns.max_timestamp.max()) if len(self) else None

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return int(self.columns.bytes.sum())

    def select(
        self,
        *,
        symbols: Iterable[str] | None = None,
        dates: tuple[date | None, date | None] | None = None,
        times: tuple[datetime | None, datetime | None] | None = None,
        trade_ids: tuple[str, str] | None = None,
        as_of: int | None = None,
    ) -> tuple[DataFileRef, ...]:
        """The files that may hold matching rows, oldest commit first.

        `symbols`: any of these. `dates`: exchange dates, both ends inclusive. `times`: half-open,
        zoned, of the table's time column. `trade_ids`: inclusive, compared as UTF-8 bytes.
        `as_of`: rows brought in by commits up to this number, inclusive. None leaves an end open.
        """
        of = self.columns
        mask = np.ones(len(of.path), dtype=np.bool_)
        if symbols is not None:
            mask &= self._may_hold(symbols)
        if dates is not None:
            first, last = dates
            if first is not None:
                mask &= (of.exchange_date >= (first - EPOCH).days) | (of.exchange_date == _NO_DATE)
            if last is not None:
                mask &= of.exchange_date <= (last - EPOCH).days
        if times is not None:
            start, end = times
            if start is not None:
                mask &= of.max_timestamp >= to_microseconds(start)
            if end is not None:
                mask &= of.min_timestamp < to_microseconds(end)
        if trade_ids is not None:
            mask &= of.max_trade_id >= trade_ids[0].encode()
            mask &= of.min_trade_id <= trade_ids[1].encode()
        if as_of is not None:
            mask &= (of.sequence <= as_of) | (of.min_commit <= as_of)
        chosen = np.flatnonzero(mask)
        return self._refs(chosen[np.argsort(of.sequence[chosen], kind="stable")], as_of)

    def since(self, commit: int) -> tuple[DataFileRef, ...]:
        """The files that may hold rows which later commits brought in, oldest commit first."""
        chosen = np.flatnonzero(self.columns.max_commit > commit)
        return self._refs(chosen[np.argsort(self.columns.sequence[chosen], kind="stable")], None)

    def later(self, commit: int) -> "FileIndex":
        """The files that `since` gives, as an index."""
        chosen = np.flatnonzero(self.columns.max_commit > commit)
        parts = {f.name: getattr(self.columns, f.name)[chosen] for f in fields(FileColumns)}
        return FileIndex(FileColumns(**parts))

    def by_partition(self) -> dict[tuple[date | None, Bucket | None], tuple[DataFileRef, ...]]:
        """The files of each table partition, oldest commit first, by its day and its bucket; None
        where it has no such.
        """
        of = self.columns
        keys = np.stack([of.exchange_date, of.buckets, of.bucket])
        order = np.lexsort((of.sequence, *keys[::-1]))
        borders = np.flatnonzero((np.diff(keys[:, order]) != 0).any(axis=0)) + 1
        found = {}
        for chosen in np.split(order, borders) if len(order) else ():
            day, count, number = keys[:, chosen[0]].tolist()
            key = (
                _known(day, _NO_DATE, day_of),
                Bucket(number, count) if count else None,
            )
            found[key] = self._refs(chosen, None)
        return found

    def doubtful(self, commits: Sequence[int]) -> frozenset[str]:
        """Paths of the files that these commits added with rows whose own commit is not written."""
        of = self.columns
        # Where every row has its own, the greatest of them is of an earlier commit than the file.
        chosen = np.isin(of.sequence, commits) & (of.max_commit == of.sequence)
        return frozenset(of.path[chosen].tolist())

    def commits(self, path: str) -> tuple[int, int]:
        """The least and the greatest commit (inclusive) that a row of this file may come from.

        Raises `KeyError` for the path of a file that the snapshot does not have.
        """
        of = self.columns
        (found,) = np.flatnonzero(of.path == path)[:1].tolist() or [None]
        if found is None:
            raise KeyError(path)
        least = min(int(of.min_commit[found]), int(of.sequence[found]))
        return max(least, 1), int(of.max_commit[found])

    def _may_hold(self, symbols: Iterable[str]) -> npt.NDArray[np.bool_]:
        of = self.columns
        mask = np.zeros(len(of.path), dtype=np.bool_)
        counts = [count for count in np.unique(of.buckets).tolist() if count]
        for symbol in symbols:
            text = symbol.encode()
            inside = (of.min_symbol <= text) & (of.max_symbol >= text)
            alike = of.buckets == 0
            for count in counts:
                alike |= (of.buckets == count) & (of.bucket == bucket(symbol, count))
            mask |= inside & alike
        return mask

    def _refs(self, chosen: Longs, as_of: int | None) -> tuple[DataFileRef, ...]:
        of = self.columns
        bound = GREATEST if as_of is None else as_of
        return tuple(
            DataFileRef(
                path=of.path[i],
                sequence=int(of.sequence[i]),
                rows=int(of.rows[i]),
                bytes=int(of.bytes[i]),
                whole=bool(of.max_commit[i] <= bound),
                settled=bool(of.buckets[i]),
                exchange_date=_known(of.exchange_date[i], _NO_DATE, lambda v: day_of(int(v))),
                min_symbol=_known(of.min_symbol[i], b"", bytes.decode),
                max_symbol=_known(of.max_symbol[i], _LAST_TEXT, bytes.decode),
                min_timestamp=_known(of.min_timestamp[i], LEAST, int),
                max_timestamp=_known(of.max_timestamp[i], GREATEST, int),
            )
            for i in chosen
        )


def _known(value: Any, missing: Any, convert: Callable[[Any], T]) -> T | None:
    return None if value == missing else convert(value)


def to_microseconds(when: datetime) -> int:
    """Microseconds since 1970-01-01 UTC of a zoned time."""
    return (when - _DAWN) // timedelta(microseconds=1)


def local(uri: str) -> str:
    """The local path of a file's URI."""
    return uri.removeprefix("file://")


def _days(value: date | int | None) -> int:
    if value is None:
        return _NO_DATE
    return (value - EPOCH).days if isinstance(value, date) else value


def _long(bound: bytes | None, missing: int) -> int:
    return missing if bound is None else int.from_bytes(bound, "little", signed=True)


def _objects(values: list[str]) -> npt.NDArray[np.object_]:
    found = np.empty(len(values), dtype=np.object_)
    found[:] = values
    return found
