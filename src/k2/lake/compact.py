"""Compaction: the many small files of commits become few, each row keeping its place and commit.

Comes in: a snapshot's files. Goes out: jobs, and for each of them one commit that puts new files in
the place of old ones. Live days are merged as in a log-structured merge tree, so that a row is
written a few times only; a day that is over, or has grown large, settles into a table partition for
each bucket of symbols.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.errors import Broken, Conflict
from k2.lake.files import WrittenFile, delete
from k2.lake.index import DataFileRef, FileIndex
from k2.lake.sort import Bucket, Indices, bucket, gather, sort_indices
from k2.lake.tables import Definition
from k2.model import Exchange

if TYPE_CHECKING:
    from k2.lake.table import LakeTable

MERGE_AT: Final = 16
"""Files of one size of a day that still grows, which then become one of the next size."""
SETTLE_ROWS: Final = 1 << 20
"""Rows of a day in files without bucket, at which these settle though the day is not over."""
SMALL_DAY: Final = 1 << 17
"""Rows of a day up to which it stays without buckets: one row group is quicker to read than the
file of one bucket is to find among sixteen."""
FILE_ROWS: Final = 1 << 20
"""Rows of a file at most, some 10 MB; one that has half of them is left as it is."""
ROWS_AT_ONCE: Final = 4 << 20
"""Rows that one job reads at most: they are in memory together, at some 200 bytes each."""
BYTES_AT_ONCE: Final = 256 << 20
"""Bytes, as they are on disk, that one job reads at most."""
_AT_ONCE: Final = 2
"""Files that are written at once."""
OVER_AFTER: Final = timedelta(hours=1)
"""After its last exchange's midnight, a day is left so long for records that come late."""

Step = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """Files of one table partition that become fewer: in as many buckets as it `settles` into, or
    all in the one `bucket` (None: in none).
    """

    table: str
    day: date | None
    bucket: Bucket | None
    files: tuple[DataFileRef, ...]
    settles: int = 0

    @property
    def rows(self) -> int:
        """Rows in all of the files."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Bytes of all of the files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Compacted:
    """What came of a job: number and bytes of the new files, and the commit that put them in."""

    job: Job
    files: int
    bytes: int
    commit: int


# ----------------------------------------------------------------------- what is to be done


def plan(
    table: str, index: FileIndex, buckets: int, exchanges: Iterable[Exchange], now: datetime
) -> Iterator[Job]:
    """The jobs that the files of a snapshot are due for, each of other files than the rest.

    A day settles into so many `buckets`.
    """
    is_over = _over(tuple(exchanges), now)
    partitions = index.by_partition()
    of_day: dict[date | None, int] = {}
    for (day, _), files in partitions.items():
        of_day[day] = of_day.get(day, 0) + sum(file.rows for file in files)
    for (day, number), files in partitions.items():
        over = day is not None and is_over(day)
        settles = day is not None and number is None and _settles(files, of_day[day], over=over)
        if settles:
            groups = list(_bounded(files, least=1))
        else:
            groups = [
                group for due in due_files(files, over=over) for group in _bounded(due, least=2)
            ]
        for group in groups:
            yield Job(table, day, number, group, buckets if settles else 0)


def _over(exchanges: Sequence[Exchange], now: datetime) -> Callable[[date], bool]:
    """Whether a day has ended at every exchange, and some time ago."""

    def is_over(day: date) -> bool:
        midnight = datetime.combine(day + timedelta(days=1), datetime.min.time())
        ends = [
            midnight.replace(tzinfo=ZoneInfo(each.zone)).astimezone(UTC) - each.day_roll
            for each in exchanges
        ]
        return bool(ends) and now >= max(ends) + OVER_AFTER

    return is_over


def _settles(files: Sequence[DataFileRef], rows_of_day: int, *, over: bool) -> bool:
    rows = sum(file.rows for file in files)
    if over:
        # A few late records of a settled day are one file together, not one for each bucket.
        return rows_of_day > SMALL_DAY and rows * MERGE_AT >= rows_of_day
    return rows >= SETTLE_ROWS


def due_files(files: Sequence[DataFileRef], *, over: bool) -> Iterator[tuple[DataFileRef, ...]]:
    """The groups of a table partition's files that are due to be merged, oldest commit first.

    While it grows, sixteen files of a size become one of the next, so that a row is written
    log16(rows) times. Afterwards the small ones are merged, each with those that are smaller unless
    it has eight times their rows: one file is left, or a few of very different sizes.
    """
    small = [file for file in files if file.rows < FILE_ROWS // 2]
    if over:
        ascending = sorted(small, key=lambda file: file.rows)
        count, total = 1, 0
        for n, file in enumerate(ascending, 1):
            if file.rows < 8 * total:
                count = n
            total += file.rows
        chosen = {file.path for file in ascending[:count]}
        if len(chosen) > 1:
            yield tuple(file for file in small if file.path in chosen)
        return
    sizes: dict[int, list[DataFileRef]] = {}
    for file in small:
        sizes.setdefault((max(file.rows, 1).bit_length() - 1) // 4, []).append(file)
    for _, same in sorted(sizes.items()):
        if len(same) >= MERGE_AT:
            yield tuple(same)


def _bounded(files: Sequence[DataFileRef], least: int) -> Iterator[tuple[DataFileRef, ...]]:
    """The files in groups that fit into memory, those of fewer than `least` left out."""
    group: list[DataFileRef] = []
    rows = size = 0
    for file in files:
        if group and (rows + file.rows > ROWS_AT_ONCE or size + file.bytes > BYTES_AT_ONCE):
            if len(group) >= least:
                yield tuple(group)
            group, rows, size = [], 0, 0
        group.append(file)
        rows, size = rows + file.rows, size + file.bytes
    if len(group) >= least:
        yield tuple(group)


# ----------------------------------------------------------------------- doing it


def compact(table: "LakeTable", job: Job, on_step: Step = lambda step: None) -> Compacted | None:
    """Do the job, in one commit; None if somebody else has replaced one of the files meanwhile.

    Others may commit meanwhile. Every row is in the new files once, with the values that it had and
    its commit written out: that is checked on the files as they are on disk, before the commit.
    Killed anywhere, nothing has happened but files that nothing names. Raises `Broken` where a file
    is not what the table says of it, and as `LakeTable.replace` does.
    """
    on_step("read")
    rows = _joined([read_file(table.definition, file) for file in job.files])
    if rows.num_rows != job.rows:
        raise Broken(
            "files hold other numbers of rows than the table says of them",
            place=f"{table.name}, {job.day}",
            found=f"{rows.num_rows:,} rows",
            expected=f"{job.rows:,}",
            hint="`k2 audit` names what is wrong; nothing was changed",
        )
    files: list[WrittenFile] = []

    def write(number: Bucket | None, indices: Indices) -> None:
        part = gather(rows, indices)
        file = table.write(part, job.day, bucket=number)
        files.append(file)
        check_file(table.definition, file, part)

    on_step("write")
    try:
        # One is checked while another is written.
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            parts = parted(table.definition, rows, job.settles, job.bucket)
            for written in [threads.submit(write, *part) for part in parts]:
                written.result()
        on_step("commit")
        done = table.replace([file.path for file in job.files], files)
    except Conflict:
        delete(file.path for file in files)
        return None
    except Broken:
        delete(file.path for file in files)
        raise
    on_step("answer")
    return Compacted(job, len(files), sum(file.bytes for file in files), done.sequence)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """All of the rows, in one piece: a column after the other, so that none but that one is there
    twice. The tables are let go of.
    """
    schema, columns = tables[0].schema, []
    for name in schema.names:
        column = pa.concat_tables([table.select([name]) for table in tables])
        tables[:] = [table.drop_columns(name) for table in tables]
        # Once, not again for each new file.
        columns.append(column.unify_dictionaries().combine_chunks()[name])
        del column
    return pa.table(columns, schema=schema)


def read_file(definition: Definition, file: DataFileRef) -> pa.Table:
    """The file's rows as the table has them now: columns that it lacks are null, and the commit of
    each row is written out.
    """
    coded = {field.name for field in definition.arrow if pa.types.is_dictionary(field.type)}
    try:
        there = coded.intersection(pq.read_schema(file.path).names)
        rows = pq.ParquetFile(file.path, read_dictionary=sorted(there)).read()
    except (OSError, pa.ArrowException) as error:
        raise Broken(
            f"a data file cannot be read: {error}",
            place=file.path,
            hint="`k2 rebuild` makes its rows again from the log",
        ) from error
    columns = []
    for field in definition.arrow:
        if field.name not in rows.column_names:
            column = pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
        else:
            column = rows[field.name].cast(field.type)
        if field.name == "commit_sequence":
            column = pc.fill_null(column, pa.scalar(file.sequence, pa.int64()))
        columns.append(column)
    return pa.table(columns, schema=definition.arrow)


def parted(
    definition: Definition, rows: pa.Table, settles: int, other: Bucket | None = None
) -> Iterator[tuple[Bucket | None, Indices]]:
    """Bucket and rows of each new file, sorted as files are; every row in exactly one. The buckets
    are as many as it `settles` into; if that is 0, all are of the `other` one.
    """
    order = (
        sort_indices(rows) if definition.partitioned else np.arange(rows.num_rows, dtype=np.int64)
    )
    # A row left out or taken twice could not be seen in the files any more.
    if not (np.bincount(order, minlength=rows.num_rows) == 1).all():
        raise Broken("sorting has lost rows", place=definition.name)
    if not settles:
        for start in range(0, len(order), FILE_ROWS):
            yield other, order[start : start + FILE_ROWS]
        return
    buckets = _buckets(rows["symbol"], settles)[order]
    # Stable: inside a bucket the order stays.
    by_bucket = np.argsort(buckets, kind="stable")
    ends = np.cumsum(np.bincount(buckets))
    for number, end in enumerate(ends.tolist()):
        start = int(ends[number - 1]) if number else 0
        for low in range(start, end, FILE_ROWS):
            chosen = order[by_bucket[low : min(low + FILE_ROWS, end)]]
            yield Bucket(number, settles), chosen


def _buckets(symbols: pa.ChunkedArray, of: int) -> Indices:
    coded = symbols.combine_chunks()
    numbers = np.array([bucket(name, of) for name in coded.dictionary.to_pylist()], np.int64)
    found: Indices = numbers[coded.indices.to_numpy(zero_copy_only=False)]
    return found


def check_file(definition: Definition, file: WrittenFile, wanted: pa.Table) -> None:
    """Raises `Broken` unless the file on disk holds exactly these rows."""
    ref = DataFileRef(file.path, 0, file.rows, file.bytes, True, False, *[None] * 5)
    found = read_file(definition, ref)
    for name in definition.names:
        if not _are_alike(found[name], wanted[name]):
            raise Broken(
                f"a new file does not hold in {name} what was written to it",
                place=file.path,
                hint="is the disk sound? nothing was changed",
            )


def _are_alike(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Whether the values are the same: the order of a dictionary is no part of them."""
    if not pa.types.is_dictionary(one.type):
        return bool(one.equals(other))
    both = pa.chunked_array([*one.chunks, *other.chunks], one.type).unify_dictionaries()
    codes = pa.chunked_array([chunk.indices for chunk in both.chunks], one.type.index_type)
    return bool(codes.slice(0, len(one)).equals(codes.slice(len(one))))
