"""Files into the log and through to the tables, remembering where each record went."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from k2.cli.stores import Stores
from k2.errors import BadInput
from k2.feeds.csv import open_file
from k2.feeds.run import run_feed
from k2.ingest import Fates, Writer, WriterOptions, fates_of, settle
from k2.log import Log, Producer, Registry, Sent
from k2.model import Exchange

_SHOWN: Final = 5


@dataclass(frozen=True)
class Asked:
    """What the files are: see `k2.feeds.csv.open_file`."""

    kind: str
    mapping: str
    symbol: str | None
    exchange: str | None
    instruments: Path | None
    skew: timedelta


@dataclass(frozen=True)
class Loaded:
    """How many records were read, what became of them, and the first of those that feeds refused
    (as text with file and line).
    """

    read: int
    fates: Fates
    refused: Sequence[str]


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
    that is not there, before any is read. Once `stop()`, what was appended stays in the log.
    """
    for file in files:
        if not file.is_file():
            raise BadInput("there is no such file", place=str(file))
    producer = _Recorder(stores.log, stores.registry, partitions)
    read = 0
    with _progress(files) as tell:
        for file in files:
            if stop():
                break
            read += _append(file, asked, producer, stores.log, tell, stop)

    def open_writer() -> Writer:
        return Writer(stores.log, stores.registry, stores.lake, options)

    settle(stores.lake, stores.lake.folder, producer.sent, open_writer, stop)
    return Loaded(read, fates_of(stores.lake, producer.sent), producer.refused)


class _Recorder(Producer):
    """A producer that remembers where records went, and the first that the feed refused."""

    def __init__(self, log: Log, registry: Registry, partitions: int) -> None:
        super().__init__(log, registry, partitions)
        self.sent: list[Sent] = []
        self.refused: list[str] = []

    def send(self, exchange: Exchange, kind: str, table: pa.Table) -> list[Sent]:
        sent = super().send(exchange, kind, table)
        self.sent += sent
        if kind == "rejects" and len(self.refused) < _SHOWN:
            self.refused += map(_described, table.slice(0, _SHOWN).to_pylist())
        return sent


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
    feed = open_file(
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
    """A bar on stderr, if that is a terminal; yields a function for a file and its bytes done."""
    console = Console(stderr=True)
    sizes = {file: file.stat().st_size for file in files}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("loading", total=sum(sizes.values()))
        before = {file: sum(list(sizes.values())[:n]) for n, file in enumerate(sizes)}

        def tell(file: Path, done: int) -> None:
            bar.update(task, description=file.name, completed=before[file] + done)

        yield tell
