"""Roll-ups: partial bars of data files, made once and kept beside the table.

Comes in: files of trades, which never change. Goes out: for each a file of its minutes and one of
its days, and sources that read these in place of the trades. A snapshot's bars are then the merge
of its files' partial bars: late records and time travel included, nothing can go stale. Files that
hold rows of later commits than the one asked for, or a trade that was corrected, are read whole.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from k2.lake import DataFileRef, LakeTable, definition
from k2.lake.files import replace_file
from k2.model import PRICE_TYPE, TIMESTAMP_TYPE
from k2.query.minutes import Minutes
from k2.query.port import Engine, Source
from k2.query.statements import statement
from k2.query.view import defaults_of

LEAST_ROWS: Final = 20_000
"""Rows of a data file from which on it is rolled up: smaller ones are as quick to read."""
_GAIN: Final = 4
"""So many trades a minute, on the whole, make minutes worth keeping."""
MINUTE_US: Final = 60_000_000
_FOLDER: Final = "rollups-1"
"""Beside the table; with another number once they are made otherwise."""

COLUMNS: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("exchange_date", pa.date32()),
        ("price_forming", pa.bool_()),
        ("timestamp", TIMESTAMP_TYPE),
        ("open", PRICE_TYPE),
        ("high", PRICE_TYPE),
        ("low", PRICE_TYPE),
        ("close", PRICE_TYPE),
        ("volume", pa.decimal128(38, 8)),
        ("trade_count", pa.int64()),
        ("turnover", pa.decimal128(38, 16)),
        ("first_time", pa.int64()),
        ("first_offset", pa.int64()),
        ("last_time", pa.int64()),
        ("last_offset", pa.int64()),
    ]
)
"""A partial bar. Times of places are nanoseconds since 1970, offsets have their partition above."""


def place_of(time: str, offset: str) -> str:
    """A place in the total order within a symbol of an exchange, as one number of SQL: a time in
    nanoseconds and an offset.

    Partitions below 2^15 and offsets below 2^48 stay apart. The topic is no part of it: an exchange
    has one topic per kind in the log, since its asset class is declared once and for all; and that
    of loaded files has a partition that no log has, and which comes first as its topic does.
    """
    return f"(({time})::hugeint * 9223372036854775807 + {offset})"


TIME: Final = "(epoch_us(timestamp) * 1000 + timestamp_nanos)"
OFFSET: Final = "(log_partition * 281474976710656 + log_offset)"
PLACE: Final = place_of(TIME, OFFSET)

_BEGINS: Final = {
    "minutes": f"make_timestamptz(epoch_us(timestamp) // {MINUTE_US} * {MINUTE_US})",
    "days": "min(timestamp)",
}


@dataclass(frozen=True)
class Span:
    """Times that are asked for, `[start, end)` in microseconds since 1970: several of each where
    exchanges have other ones; none is open.
    """

    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether no minute is cut."""
        return not any(edge % MINUTE_US for edge in (*self.starts, *self.ends))

    def holds(self, file: DataFileRef) -> bool:
        """Whether every row of the file is within, of whatever exchange."""
        if file.min_timestamp is None or file.max_timestamp is None:
            return not (self.starts or self.ends)
        low, high = file.min_timestamp, file.max_timestamp
        return all(low >= each for each in self.starts) and all(high < each for each in self.ends)


class Rollups:
    """The roll-ups in a folder, those of one table's files. Any thread may ask."""

    def __init__(self, folder: Path) -> None:
        self.minutes = Minutes()
        self._folder = folder
        self._lock = threading.Lock()
        self._seen = 0
        self._there: Mapping[tuple[str, str], tuple[str, int]] = {}

    def split(
        self, source: Source, files: Iterable[DataFileRef], span: Span, *, days: bool
    ) -> tuple[Source, Source | None]:
        """The source without the files that are rolled up, and their partial bars (None: no file
        is): of days where that is all that is asked for and the file is within `span`, else of
        minutes, where none is cut.
        """
        there = self._look()
        if not there or source.known_at is not None:
            return source, None
        touched = source.standing.files if source.standing else frozenset()
        usable = set(source.files) - touched
        rolled: dict[str, tuple[str, int]] = {}
        rows = 0
        for file in files:
            if file.path not in usable or (file.min_timestamp or -1) < 0:
                continue
            stem = Path(file.path).stem
            found = None
            if days and span.holds(file):
                found = there.get((stem, "days"))
            if found is None and span.is_whole:
                found = there.get((stem, "minutes"))
            if found is not None:
                rolled[file.path] = found
                rows += file.rows
        if not rolled:
            return source, None
        left = tuple(path for path in source.files if path not in rolled)
        partial = Source(
            columns=COLUMNS,
            files=tuple(path for path, _ in rolled.values()),
            mixed=False,
            rows=sum(count for _, count in rolled.values()),
        )
        return replace(source, files=left, rows=source.rows - rows), partial

    def _look(self) -> Mapping[tuple[str, str], tuple[str, int]]:
        """Path and rows of each roll-up, by its data file's name and its grain."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        with self._lock:
            if changed != self._seen:
                self._there = {
                    (name.stem, name.grain): (str(self._folder / name.text), name.rows)
                    for name in _names_in(self._folder)
                }
                self._seen = changed
            return self._there


@dataclass(frozen=True)
class _Name:
    """A roll-up's file: `{data file}.{grain}.{rows}.parquet`."""

    text: str
    stem: str
    grain: str
    rows: int


def _names_in(folder: Path) -> list[_Name]:
    found = []
    with suppress(FileNotFoundError):
        for text in os.listdir(folder):
            match text.split("."):
                case [stem, grain, rows, "parquet"] if rows.isdecimal():
                    found.append(_Name(text, stem, grain, int(rows)))
    return found


def folder_of(table: LakeTable) -> Path:
    """Where the roll-ups of the table's files are."""
    return table.metadata_folder.parent / _FOLDER


@dataclass(frozen=True)
class RolledUp:
    """Data files that were rolled up now, their rows, and roll-ups removed with their files."""

    files: int
    rows: int
    removed: int


def roll_up(
    engine: Engine, table: LakeTable, may_go_on: Callable[[], bool] = lambda: True
) -> RolledUp:
    """Make the roll-ups that the table of trades lacks; remove those of data files that are gone.

    Whoever else does the same makes the same. Raises as the engine does.
    """
    folder = folder_of(table)
    folder.mkdir(exist_ok=True)
    names = _names_in(folder)
    there = {name.stem for name in names if name.grain == "days"}
    files = rows = removed = 0
    for file in table.snapshot().files.select():
        if file.rows < LEAST_ROWS or Path(file.path).stem in there:
            continue
        if not may_go_on():
            break
        roll_up_file(engine, folder, file, table.unique())
        files, rows = files + 1, rows + file.rows
    # Those that an older snapshot has are read as of a time before as well.
    data = {path.stem for path in (folder.parent / "data").rglob("*.parquet")}
    for name in names:
        if name.stem not in data:
            (folder / name.text).unlink(missing_ok=True)
            removed += 1
    return RolledUp(files, rows, removed)


def roll_up_file(engine: Engine, folder: Path, file: DataFileRef, unique: UUID) -> None:
    """Make the roll-ups of one file of trades, in the folder. Raises as the engine does, and
    `Unavailable` where the disk fails.
    """
    source = Source(
        columns=definition("trades").arrow,
        files=(file.path,),
        defaults=defaults_of("trades"),
        rows=file.rows,
    )
    made = {}
    for grain, begin in _BEGINS.items():
        asked = statement(
            "rollup", {}, begin=begin, place=PLACE, time=TIME, offset=OFFSET, rows="{rows}"
        )
        made[grain] = engine.run(asked, {"rows": source}).cast(COLUMNS)
    if made["minutes"].num_rows * _GAIN > file.rows:
        del made["minutes"]
    # The days last: with them, the file counts as rolled up.
    for grain, rows in made.items():
        path = folder / f"{Path(file.path).stem}.{grain}.{rows.num_rows}.parquet"
        written = pa.BufferOutputStream()
        pq.write_table(rows, written, compression="zstd", store_decimal_as_integer=True)
        replace_file(path, written.getvalue(), unique)
