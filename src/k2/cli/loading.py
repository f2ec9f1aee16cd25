"""Files into the log and through to the tables, or straight there; and each record's fate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from k2.cli.progress import bar
from k2.cli.stores import Stores
from k2.errors import BadInput
from k2.feeds import Records, file_adapter
from k2.feeds.mapped.content import verify
from k2.feeds.run import run_feed
from k2.ingest import (
    Fates,
    Pace,
    PacedProducer,
    Writer,
    WriterOptions,
    fates_of,
    pace_of,
    settle,
)
from k2.ingest.direct import Telling, load_directly
from k2.ingest.sources import Asked
from k2.log import Log, Producer, Registry, Sent
from k2.model import Exchange

_SHOWN: Final = 5


@dataclass(frozen=True)
class Loaded:
    """How many records were read, what became of them, the first of those that feeds refused (as
    text with file and line), and the names of files whose checksum was verified.
    """

    read: int
    fates: Fates
    refused: Sequence[str]
    verified: Sequence[str]


def load(
    files: Sequence[Path],
    asked: Asked,
    stores: Stores,
    partitions: int,
    options: WriterOptions,
    stop: Callable[[], bool],
) -> Loaded:
    """Append every file to the log, have it committed, and count the fates of what was read.

    A writer that runs already commits; without one it is done here. Raises `BadInput` for a file
    that is not there, or not the one of its checksum, before any is read. Once `stop()`, what was
    appended stays in the log.
    """
    verified = _verified(files)
    pace = pace_of(stores.lake, options, stop)
    producer = _Recorder(stores.log, stores.registry, partitions, pace)
    read = 0
    with _progress(files) as tell:
        for file in files:
            if stop():
                break
            read += _append(file, asked, producer, stores.log, tell, stop)

    def open_writer() -> Writer:
        return Writer(stores.log, stores.registry, stores.lake, options)

    settle(stores.lake, stores.lake.folder, producer.sent, open_writer, stop)
    return Loaded(read, fates_of(stores.lake, producer.sent), producer.refused, verified)


def load_direct(
    files: Sequence[Path],
    asked: Asked,
    stores: Stores,
    options: WriterOptions,
    stop: Callable[[], bool],
) -> Loaded:
    """As `load`, straight into the tables: the log holds nothing of it.

    Once `stop()`, the same files go on from what was committed. Raises `Unavailable` while another
    such load is under way.
    """
    verified = _verified(files)
    refused: list[str] = []

    def see(records: Records) -> None:
        if records.kind == "rejects":
            refused.extend(_described_first(records.table, refused))

    with _progress(files) as tell:
        done = load_directly(
            (stores.log, stores.registry, stores.lake),
            files,
            asked,
            options,
            stop,
            Telling(progress=tell, records=see),
        )
    return Loaded(done.read, done.fates, refused, verified)


def _verified(files: Sequence[Path]) -> list[str]:
    """Names of those whose checksum was verified."""
    for file in files:
        if not file.is_file():
            raise BadInput("there is no such file", place=str(file))
    return [file.name for file in files if verify(file)]


class _Recorder(PacedProducer):
    """A producer that remembers where records went, and the first that the feed refused."""

    def __init__(self, log: Log, registry: Registry, partitions: int, pace: Pace) -> None:
        super().__init__(log, registry, partitions, pace)
        self.sent: list[Sent] = []
        self.refused: list[str] = []

    def send(self, exchange: Exchange, kind: str, table: pa.Table) -> list[Sent]:
        sent = super().send(exchange, kind, table)
        self.sent += sent
        if kind == "rejects":
            self.refused += _described_first(table, self.refused)
        return sent


def _described_first(rejects: pa.Table, before: Sequence[str]) -> list[str]:
    """The first of them, unless enough were told `before`."""
    shown = rejects.slice(0, _SHOWN).to_pylist() if len(before) < _SHOWN else []
    return list(map(_described, shown))


def _described(reject: Mapping[str, Any]) -> str:
    expected = f" (expected {reject['expected']})" if reject["expected"] else ""
    return f"{reject['file']} line {reject['line']:,}: {reject['reason']}{expected}"


def _append(
    file: Path,
    asked: Asked,
    producer: Producer,
    log: Log,
    tell: Callable[[Path, int], None],
    stop: Callable[[], bool],
) -> int:
    feed = file_adapter(file)(
        file,
        asked.mapping,
        asked.kind,
        symbol=asked.symbol,
        exchange=asked.exchange,
        instruments=asked.instruments,
        skew=asked.skew,
        clock=lambda: datetime.now(UTC),
        progress=lambda done, total: tell(file, done),
    )
    try:
        ran = run_feed(feed, producer, log, stop)
    finally:
        feed.close()
    return sum(ran.records.values())


@contextmanager
def _progress(files: Sequence[Path]) -> Iterator[Callable[[Path, int], None]]:
    """A bar meanwhile; yields a function for a file and its bytes done."""
    sizes = {file: file.stat().st_size for file in files}
    before = {file: sum(list(sizes.values())[:n]) for n, file in enumerate(sizes)}
    with bar("loading") as shown:
        yield lambda file, done: shown.tell(before[file] + done, sum(sizes.values()), file.name)
