"""Loads: files of history that went straight into the tables, and are in no log.

Comes in: a load's manifest, written before its first commit: the files with their SHA-256, and all
that says how they are read; then, file by file, how many records it had. Goes out: which offsets of
which topic came from which file. Each document is a file of its own beside the tables, and is never
changed: together they are the log of what was loaded so.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

from k2.errors import Broken
from k2.lake.files import sync, unwritable, write_new

FOLDER: Final = "loads"
_MANIFEST: Final = "load.json"

Counts: TypeAlias = Mapping[str, int]
"""By topic, how many records."""


@dataclass(frozen=True)
class SourceFile:
    """A file as it was when it was loaded. `path` is where it lay then."""

    name: str
    path: str
    bytes: int
    sha256: str

    def is_as(self, other: "SourceFile") -> bool:
        """Whether both have one name and one content."""
        return replace(self, path="") == replace(other, path="")


@dataclass(frozen=True)
class ReadBy:
    """How the files of a load are read: the command's options, the text of the mapping as it was
    (and what it was called by), and which K2 read them.
    """

    kind: str | None
    mapping: str | None
    mapping_text: str | None
    symbol: str | None
    exchange: str | None
    instruments: SourceFile | None
    skew_seconds: float
    version: str

    def is_as(self, other: "ReadBy") -> bool:
        """Whether the same files give the same records by either."""
        mine, theirs = self.instruments, other.instruments
        alike = mine.is_as(theirs) if mine and theirs else mine is theirs
        return alike and replace(self, instruments=None) == replace(other, instruments=None)


@dataclass(frozen=True)
class Load:
    """One load. `number` counts them, from 1. `first_offsets` are the tables' offsets of every
    loaded topic when it began: what the load before it had beyond them was never committed.
    `begun_at` is when its records were first seen. `counts` are those of its files that were read
    to their ends, in order.
    """

    number: int
    log_id: str
    begun_at: datetime
    files: tuple[SourceFile, ...]
    read_by: ReadBy
    first_offsets: Counts
    counts: tuple[Counts, ...] = ()

    @property
    def is_read(self) -> bool:
        """Whether all files were read to their ends."""
        return len(self.counts) == len(self.files)

    @property
    def ends(self) -> dict[str, int]:
        """The offset behind the last record counted, by topic."""
        found = defaultdict(int, self.first_offsets)
        for counts in self.counts:
            for topic, count in counts.items():
                found[topic] += count
        return dict(found)


@dataclass(frozen=True)
class Stretch:
    """Records of one topic that came from one file of a load: offsets `[first, end)`, of which
    `first` is that of the first record of the topic in the file. `end` is None while more may come.
    """

    load: Load
    file: int
    first: int
    end: int | None

    @property
    def source(self) -> SourceFile:
        """The file."""
        return self.load.files[self.file]


@dataclass(frozen=True)
class Loads:
    """All loads of a lake, oldest first."""

    loads: tuple[Load, ...] = ()

    @property
    def last(self) -> Load | None:
        """The newest; None where there is none."""
        return self.loads[-1] if self.loads else None

    @property
    def ends(self) -> dict[str, int]:
        """The offset behind the last record that is known of, by topic."""
        return self.last.ends if self.last else {}

    @property
    def may_go_on(self) -> bool:
        """Whether the newest load was not read to its end: the tables may be past `ends` then."""
        return self.last is not None and not self.last.is_read

    def stretches(self, topic: str) -> Iterator[Stretch]:
        """Where the topic's records came from, ascending, without a hole between them."""
        following: list[Load | None] = [*self.loads[1:], None]
        for load, after in zip(self.loads, following, strict=True):
            at = load.first_offsets.get(topic, 0)
            last = None if after is None else after.first_offsets.get(topic, 0)
            for number, counts in enumerate(load.counts):
                end = at + counts.get(topic, 0)
                # A load that was broken off, and another in its place: the rest is no record.
                bounded = end if last is None else min(end, last)
                if bounded > at:
                    yield Stretch(load, number, at, bounded)
                at = bounded
            if not load.is_read and (last is None or last > at):
                yield Stretch(load, len(load.counts), at, last)


@dataclass(frozen=True)
class LoadBook:
    """The manifests below a lake's folder. One process at a time writes."""

    folder: Path

    @classmethod
    def of(cls, lake_folder: Path) -> "LoadBook":
        """That of the lake in a folder."""
        return cls(lake_folder / FOLDER)

    def read(self) -> Loads:
        """All that is there. Raises `Broken` where a document is gone or damaged."""
        names = [path.name for path in self._entries() if (path / _MANIFEST).exists()]
        found = [self._load(number) for number in range(1, len(names) + 1)]
        for before, load in pairwise(found):
            _check(before, load, str(self.folder))
        return Loads(tuple(found))

    def begin(self, load: Load) -> None:
        """Write the manifest of the next load, durably. Raises `Unavailable` where the disk
        fails.
        """
        folder = self._of(load.number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        document = {
            **asdict(load),
            "begun_at": load.begun_at.isoformat(),
            "first_offsets": dict(sorted(load.first_offsets.items())),
        }
        del document["counts"]
        self._write(folder / _MANIFEST, document)
        sync([self.folder, self.folder.parent])

    def note(self, load: Load, counts: Sequence[Counts]) -> Load:
        """Write down how many records each of the next files of the load had; the load with it."""
        first = len(load.counts)
        files = zip(load.files[first:], counts, strict=False)
        document = {
            "files": [
                {"name": file.name, "records": dict(sorted(each.items()))} for file, each in files
            ]
        }
        self._write(self._of(load.number) / _counts_name(first), document)
        return replace(load, counts=(*load.counts, *map(dict, counts)))

    def _entries(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.exists() else []

    def _of(self, number: int) -> Path:
        return self.folder / f"{number:08d}"

    def _load(self, number: int) -> Load:
        folder = self._of(number)
        path = folder / _MANIFEST
        document = _document(path)
        try:
            read_by = document["read_by"]
            instruments = read_by["instruments"]
            load = Load(
                document["number"],
                document["log_id"],
                datetime.fromisoformat(document["begun_at"]),
                tuple(SourceFile(**file) for file in document["files"]),
                ReadBy(
                    **{
                        **read_by,
                        "instruments": None if instruments is None else SourceFile(**instruments),
                    }
                ),
                document["first_offsets"],
            )
            while (path := folder / _counts_name(len(load.counts))).exists():
                more = tuple(each["records"] for each in _document(path)["files"])
                load = replace(load, counts=load.counts + more)
                if not more or len(load.counts) > len(load.files):
                    raise ValueError(f"it is of {len(more)} files")
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error
        return load

    def _write(self, path: Path, document: Mapping[str, Any]) -> None:
        """A document is there whole, or not at all."""
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        write_new(part, json.dumps(document, indent=1, ensure_ascii=False).encode())
        sync([part])
        try:
            os.replace(part, path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise unwritable(path, error) from error
        sync([path.parent])


def _counts_name(file: int) -> str:
    return f"files-{file:06d}.json"


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> Broken:
    return Broken(
        f"the manifest of a load cannot be read: {error}",
        place=str(path),
        hint="restore it from a copy: it says which records were loaded, and from which files",
    )


def _check(before: Load, load: Load, place: str) -> None:
    """Manifests must follow on from each other. Raises `Broken` where they do not."""
    ends = before.ends
    if load.number != before.number + 1 or load.log_id != before.log_id:
        raise Broken("the manifests of loads do not follow on from each other", place=place)
    for topic in before.first_offsets.keys() | ends.keys():
        first, end = load.first_offsets.get(topic, 0), ends.get(topic, 0)
        if first < before.first_offsets.get(topic, 0) or (before.is_read and first > end):
            raise Broken(
                f"the manifests of the loads {before.number} and {load.number} do not follow on "
                f"from each other in {topic}",
                place=place,
                found=f"offset {first:,}",
                expected=f"at most {end:,}",
                hint="restore them from a copy",
            )


def are_same(files: Sequence[SourceFile], others: Sequence[SourceFile]) -> bool:
    """Whether both lists are of the same files."""
    return len(files) == len(others) and all(
        mine.is_as(theirs) for mine, theirs in zip(files, others, strict=True)
    )
