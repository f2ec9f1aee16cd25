"""Files straight into the tables: history in bulk, through no log.

Comes in: files, and how they are read. Goes out: their records' fates, in few commits of large
sorted files. A load's manifest is their log: it stands before the first commit, and the tables'
offsets say how far it is, so that one that was killed goes on where it was.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import pyarrow as pa

from k2.errors import Broken, Unavailable
from k2.feeds import Feed, Records
from k2.feeds.mapped.content import print_of
from k2.ingest.lane import Lane
from k2.ingest.options import WriterOptions
from k2.ingest.settle import Fates, fates_of
from k2.ingest.sources import Asked, check_print, opened, records_of, to_read_by, to_source
from k2.lake import RECORD_TABLES, Lake
from k2.lake.loads import Load, LoadBook, ReadBy, SourceFile, are_same
from k2.log import Log, Producer, Registry, Sent
from k2.model import LOADED_PARTITION, Exchange, Topic

ROWS_AT_ONCE: Final = 1 << 21
"""Records that one round commits at most: they are in memory together, at some 300 bytes each."""
_BYTES_AT_ONCE: Final = 1 << 30


@dataclass(frozen=True)
class Telling:
    """What is told meanwhile: how many bytes of a file are read, the records as they come, and
    each step before it is taken.
    """

    progress: Callable[[Path, int], None] = lambda file, done: None
    records: Callable[[Records], None] = lambda records: None
    step: Callable[[str], None] = lambda step: None


@dataclass(frozen=True)
class Loaded:
    """How many records were read, and what became of them, also by the part of the load that was
    done before it was broken off once.
    """

    read: int
    fates: Fates


def load_directly(
    stores: tuple[Log, Registry, Lake],
    files: Sequence[Path],
    asked: Asked,
    options: WriterOptions,
    stop: Callable[[], bool] = lambda: False,
    tell: Telling | None = None,
) -> Loaded:
    """Commit the records of the files to the tables, and count their fates.

    The same files again, as the last load was asked for, go on where it was broken off. Once
    `stop()`, what is committed stays. Raises `BadInput` for a file that is not there, cannot be
    read, or changes meanwhile; `Unavailable` while another such load runs on the lake; `Broken`
    where tables and manifests do not belong together; and as log and lake do.
    """
    log, registry, lake = stores
    with _alone(lake.folder):
        by = to_read_by(asked)
        prints: list[str] = []
        sources: list[SourceFile] = []
        for file in files:
            if stop():
                return Loaded(0, Fates())
            # Before it is hashed: what changes from there on is no longer what the manifest names.
            prints.append(print_of(file) if file.is_file() else "")
            sources.append(to_source(file))
        load = _begin(lake, files, sources, by, tell or Telling())
        run = _Run(load, (log, registry, lake), options, stop, tell or Telling())
        run.all(files, prints)
        return Loaded(run.read, run.fates)


@contextmanager
def _alone(lake_folder: Path) -> Iterator[None]:
    """Hold the sign that nobody else loads so. Raises `Unavailable` where somebody does."""
    handle = os.open(lake_folder / "loads.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(
                "another `k2 load --direct` is under way here",
                place=str(lake_folder),
                hint="try again once it has ended; nothing was changed",
            ) from error
        yield
    finally:
        os.close(handle)


def loaded_offsets(lake: Lake) -> dict[str, tuple[str, int]]:
    """By topic of loaded files: identity, and up to where (exclusive) its table holds it."""
    found = {}
    for name in (*RECORD_TABLES, "rejected"):
        if lake.has(name):
            for topic, of in lake.table(name).snapshot().offsets.items():
                if (parsed := Topic.of_row(topic)) is not None and parsed.loaded:
                    found[topic] = (of.log_id, of.next_offset[LOADED_PARTITION])
    return found


def _begin(
    lake: Lake, files: Sequence[Path], sources: Sequence[SourceFile], by: ReadBy, tell: Telling
) -> Load:
    """The load that goes on, or a new one with its manifest."""
    book = LoadBook.of(lake.folder)
    loads = book.read()
    last, reached = loads.last, loaded_offsets(lake)
    for topic, (log_id, offset) in sorted(reached.items()):
        known = loads.ends.get(topic, 0)
        if last is None or log_id != last.log_id or (offset > known and not loads.may_go_on):
            raise Broken(
                "the table holds records of earlier loads, of which no manifest tells",
                place=f"{topic} offset {offset:,}",
                expected=f"manifests up to there in {book.folder}",
                hint="restore them from a copy: without them nobody can tell what was loaded",
            )
    offsets = {topic: offset for topic, (_, offset) in reached.items()}
    if last is not None and are_same(last.files, sources) and last.read_by.is_as(by):
        ends = last.ends.items()
        if not last.is_read or any(offsets.get(topic, 0) < end for topic, end in ends):
            return last
    load = Load(
        1 if last is None else last.number + 1,
        uuid4().hex if last is None else last.log_id,
        datetime.now(UTC),
        tuple(sources),
        by,
        offsets,
    )
    # What is asked for wrongly is told before there is anything to go on with.
    with opened(load, files[0]):
        pass
    tell.step("manifest")
    book.begin(load)
    return load


class _Run:
    """One go at a load: what is read and not committed, and how far the tables are."""

    def __init__(
        self,
        load: Load,
        stores: tuple[Log, Registry, Lake],
        options: WriterOptions,
        stop: Callable[[], bool],
        tell: Telling,
    ) -> None:
        log, registry, lake = self._stores = stores
        self.read = 0
        self._load = load
        self._book = LoadBook.of(lake.folder)
        self._options = options
        self._stop = stop
        self._tell = tell
        self._producer = Producer(log, registry, 1)
        self._lanes: dict[str, Lane] = {}
        # Where the file that is read began, and up to where the tables are, by topic.
        self._at: Counter[str] = Counter(load.first_offsets)
        self._reached = {topic: offset for topic, (_, offset) in loaded_offsets(lake).items()}
        self._held: dict[Topic, list[pa.Table]] = {}
        self._held_rows = self._held_bytes = 0
        self._reading: tuple[Path, str] | None = None
        self._whole: list[Counter[str]] = []
        """What files had that were read to their ends, and of which that is not noted."""
        self.fates = self._before()

    def _before(self) -> Fates:
        """What became of those that an earlier go has committed."""
        starts = {topic: self._load.first_offsets.get(topic, 0) for topic in self._reached}
        sent = [
            Sent(topic, LOADED_PARTITION, start, self._reached[topic] - start)
            for topic, start in starts.items()
            if self._reached[topic] > start
        ]
        return fates_of(self._stores[2], sent)

    def all(self, files: Sequence[Path], prints: Sequence[str]) -> None:
        """Every file to its end, unless stopped."""
        for number, file in enumerate(files):
            if self._is_done(number):
                self._pass_over(self._load.counts[number])
                continue
            self._reading = (file, prints[number])
            if not self._file(number, file):
                self._finish(whole=False)
                return
        self._flush()
        self._finish(whole=True)

    def _finish(self, *, whole: bool) -> None:
        for lane in self._lanes.values():
            lane.finish(whole=whole)

    def _is_done(self, number: int) -> bool:
        """Whether all records of the file are committed, by an earlier go."""
        if number >= len(self._load.counts):
            return False
        counts = self._load.counts[number].items()
        return all(self._reached.get(t, 0) >= self._at[t] + count for t, count in counts)

    def _pass_over(self, counts: Mapping[str, int]) -> None:
        self._at.update(counts)
        self.read += sum(counts.values())

    def _file(self, number: int, file: Path) -> bool:
        """Read the file to its end; False if stopped before."""
        counts: Counter[str] = Counter()
        tell = self._tell.progress
        with opened(self._load, file, progress=lambda done, total: tell(file, done)) as feed:
            exchanges = self._declared(feed)
            for records in records_of(feed):
                if self._stop():
                    return False
                exchange = exchanges[records.exchange]
                topic = Topic(exchange.asset_class, records.kind, exchange.name, loaded=True)
                self._hold(topic, records, counts)
                if self._is_full():
                    self._flush()
        self._check_unchanged()
        self._reading = None
        known = self._load.counts[number : number + 1]
        if known and +counts != +Counter(known[0]):
            raise Broken(
                "the file gave other numbers of records when its load began",
                place=str(file),
                found=str(dict(counts)),
                expected=str(dict(known[0])),
            )
        if not known:
            self._whole.append(counts)
        self._pass_over(counts)
        return True

    def _declared(self, feed: Feed) -> Mapping[str, Exchange]:
        for exchange in feed.exchanges:
            self._producer.declare(exchange)
        return {exchange.name: exchange for exchange in feed.exchanges}

    def _hold(self, topic: Topic, records: Records, counts: Counter[str]) -> None:
        """Keep what is not committed yet of these records, which follow on those counted."""
        name, table = str(topic), records.table
        passed = self._reached.get(name, 0) - self._at[name] - counts[name]
        counts[name] += table.num_rows
        if passed < table.num_rows:
            left = table.slice(max(passed, 0))
            self._held.setdefault(topic, []).append(left)
            self._held_rows += left.num_rows
            self._held_bytes += left.nbytes
        self._tell.records(records)

    def _is_full(self) -> bool:
        return self._held_rows >= ROWS_AT_ONCE or self._held_bytes >= _BYTES_AT_ONCE

    def _check_unchanged(self) -> None:
        """Raises `BadInput` where the file that is read is not as it was when it was hashed."""
        if self._reading is not None:
            check_print(*self._reading)

    def _flush(self) -> None:
        """Commit what is held. Files that were read to their ends are noted first: what a commit
        has of the one behind them is then known by the offsets alone.
        """
        self._check_unchanged()
        if self._whole:
            self._tell.step("note")
            self._load = self._book.note(self._load, [+counts for counts in self._whole])
            self._whole = []
        while self._held:
            topic = next(iter(self._held))
            records = pa.concat_tables(self._held.pop(topic)).unify_dictionaries().combine_chunks()
            first = self._reached.get(str(topic), 0)
            self.fates += self._lane(topic.kind).take(topic, records, first)
            self._reached[str(topic)] = first + records.num_rows
        self._held_rows = self._held_bytes = 0

    def _lane(self, kind: str) -> Lane:
        if kind not in self._lanes:
            skew = timedelta(seconds=self._load.read_by.skew_seconds)
            options = replace(self._options, skew=skew)
            self._lanes[kind] = Lane(
                kind, self._load.log_id, self._stores, options, self._tell.step
            )
        return self._lanes[kind]
