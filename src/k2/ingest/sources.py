"""The files of a load, opened as they were when it was loaded: the same records come out again.

Comes in: files and what says how they are read, or the manifest that was made of both. Goes out:
feeds. What a feed would look up again, such as the time or a mapping, is taken from the manifest.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from k2.errors import BadInput, Refused
from k2.feeds import EndOfFeed, Feed, Records, file_adapter
from k2.feeds.mapped.content import print_of, sha256_of
from k2.feeds.mapping import read_mapping
from k2.lake.loads import Load, ReadBy, SourceFile


@dataclass(frozen=True)
class Asked:
    """What files are to be loaded as: see `k2.feeds.csv.open_file`."""

    kind: str | None
    mapping: str | None
    symbol: str | None
    exchange: str | None
    instruments: Path | None
    skew: timedelta


def to_source(path: Path) -> SourceFile:
    """The file as it is now. Reads all of it. Raises `BadInput` where there is none."""
    if not path.is_file():
        raise BadInput("there is no such file", place=str(path))
    before = print_of(path)
    found = SourceFile(path.name, str(path.resolve()), path.stat().st_size, sha256_of(path))
    check_print(path, before)
    return found


def to_read_by(asked: Asked) -> ReadBy:
    """How such files are read now. Raises `BadInput` for a mapping that is not there."""
    return ReadBy(
        asked.kind,
        asked.mapping,
        None if asked.mapping is None else read_mapping(asked.mapping)[0],
        asked.symbol,
        asked.exchange,
        None if asked.instruments is None else to_source(asked.instruments),
        asked.skew.total_seconds(),
        version("k2-lakehouse"),
    )


def check_print(path: Path, before: str) -> None:
    """Raises `BadInput` if the file is not in the state that it was in (see `print_of`)."""
    if not path.is_file() or print_of(path) != before:
        raise BadInput(
            "the file was changed while it was read",
            place=str(path),
            hint="load it again once it is whole: nothing is doubled",
        )


def find_source(source: SourceFile, folder: Path | None = None) -> Path:
    """Where the file lies: in that folder, or where it was. Raises `Refused` where it is gone, or
    is another one.
    """
    wanted = [Path(source.path)] if folder is None else [folder / source.name, Path(source.path)]
    there = [path for path in wanted if path.is_file()]
    for path in there:
        if path.stat().st_size == source.bytes and sha256_of(path) == source.sha256:
            return path
    what = "is another than the one that was loaded" if there else "is not there any more"
    raise Refused(
        f"a file that rows were loaded from {what}",
        place=str(there[0] if there else wanted[-1]),
        expected=f"{source.name} of {source.bytes:,} bytes, SHA-256 {source.sha256}",
        hint="nothing was changed; --sources FOLDER names where the files lie now",
    )


@contextmanager
def opened(
    load: Load,
    path: Path,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Feed]:
    """A file of the load, at this path, as a feed; `folder` as `find_source` takes it."""
    by = load.read_by
    with tempfile.TemporaryDirectory(prefix="k2-mapping-") as beside:
        mapping = None
        if by.mapping_text is not None:
            mapping = Path(beside) / f"{Path(by.mapping or '').name.removesuffix('.toml')}.toml"
            mapping.write_text(by.mapping_text, "utf-8")
        feed = file_adapter(path)(
            path,
            None if mapping is None else str(mapping),
            by.kind,
            symbol=by.symbol,
            exchange=by.exchange,
            instruments=None if by.instruments is None else find_source(by.instruments, folder),
            skew=timedelta(seconds=by.skew_seconds),
            # So that whether a time lies ahead is the same whenever it is read.
            clock=lambda: load.begun_at,
            progress=progress,
        )
        with closing(feed):
            yield feed


def records_of(feed: Feed) -> Iterator[Records]:
    """All records of a file, in its order."""
    while True:
        try:
            yield from feed.read()
        except EndOfFeed:
            return
