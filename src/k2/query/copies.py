"""Decoded copies of the data files that are asked for again and again, bounded in bytes.

Comes in: which files questions read. Goes out: for each of them the copy that there is. One thread
makes copies behind the questions; a folder of the home keeps them over a restart. Nothing hangs on
them: a file without one is read as it is.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pyarrow as pa

from k2.lake import DataFileRef
from k2.query.decoded import ENDING, PART, Copy, Shape, is_intact, open_copy, write_copy

if TYPE_CHECKING:
    from k2.query.view import View

_FOLDER: Final = "decoded-1"
"""In the home; with another number once copies are made otherwise."""
_EVERY_SECONDS: Final = 0.2
_LOOK_EVERY_SECONDS: Final = 10.0
"""How often it is looked whether data files are gone."""
_OFTEN: Final = 2
"""So many questions must have read a file before it is copied."""
_REMEMBERED: Final = 10_000
"""Files of which it is remembered that they were read."""
_AT_ONCE: Final = 32
"""Files that are looked at in one round."""
_MOST_COPIES: Final = 400
"""Each holds a file open."""
_ROW_BYTES: Final = 150
"""About what a row takes, to see beforehand whether a copy has a place."""
_SPARE_BYTES: Final = 1 << 30
"""Room that is left on the disk."""
_LEFT_SECONDS: Final = 600.0
"""After which a half-written copy is one that nobody is writing any more."""


@dataclass
class _Asked:
    """A file that questions read: how many, and which the last two were."""

    file: DataFileRef
    shape: Shape
    times: int = 0
    before: int = 0
    last: int = 0


class Copies:
    """The copies in a folder of `home`, of at most `most_bytes` together. Any thread may ask; one
    thread makes them, from `start` to `stop`.
    """

    def __init__(self, home: Path, most_bytes: int) -> None:
        self._folder = home / _FOLDER
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._copies: dict[str, tuple[Path, Copy]] = {}
        self._used: dict[str, int] = {}
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._impossible: set[str] = set()
        self._question = 0
        self._is_found = False
        self._looked = time.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to make copies of what is asked for."""
        self._thread = threading.Thread(target=self._go_on, name="k2-copies", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def of(self, view: "View", files: Sequence[DataFileRef]) -> Mapping[str, Copy]:
        """The copies that there are of these files, by their paths; that a question reads all of
        these is remembered.
        """
        found = {}
        with self._lock:
            self._question += 1
            for file in files:
                there = self._copies.get(file.path)
                if there is not None and there[1].table.schema.names == view.columns.names:
                    self._used[file.path] = self._question
                    found[file.path] = there[1]
                elif file.path not in self._impossible:
                    self._note(view, file)
        return found

    def _note(self, view: "View", file: DataFileRef) -> None:
        asked = self._asked.get(file.path)
        if asked is None:
            asked = _Asked(file, shape_of(view))
            self._asked[file.path] = asked
            if len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
        self._asked.move_to_end(file.path)
        asked.times += 1
        asked.before, asked.last = asked.last, self._question

    @property
    def bytes(self) -> int:
        """Bytes of all copies that are there."""
        with self._lock:
            return sum(copy.bytes for _, copy in self._copies.values())

    def _go_on(self) -> None:
        while not self._stopped.wait(_EVERY_SECONDS):
            # A disk that is full now may have room later; meanwhile files are read as they are.
            with suppress(OSError):
                self.work()

    def work(self) -> int:
        """Make the copies that are wanted now, and remove those whose data file is gone; how many
        were made. Raises `OSError` where the folder cannot be written.
        """
        if not self._is_found:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._find()
            self._is_found = True
        if time.monotonic() - self._looked > _LOOK_EVERY_SECONDS:
            self._looked = time.monotonic()
            self.remove_orphans()
        made = 0
        for asked in self._wanted():
            if self._stopped.is_set():
                break
            made += self._make(asked)
        return made

    def remove_orphans(self) -> None:
        """Remove the copies whose data files are gone."""
        with self._lock:
            paths = [*self._copies, *self._asked, *self._impossible]
        for path in paths:
            if not os.path.exists(path):
                self._drop(path)

    def _find(self) -> None:
        """Take over the copies that an earlier process left, and remove what is none."""
        for path in sorted(self._folder.iterdir(), key=_changed):
            copy = None
            if path.suffix == ENDING:
                with suppress(OSError, ValueError, pa.ArrowException):
                    copy = open_copy(path) if is_intact(path) else None
            elif path.suffix == PART and time.time() - _changed(path) < _LEFT_SECONDS:
                continue
            if copy is None or copy.path in self._copies or not self._has_room(copy.bytes, 0):
                path.unlink(missing_ok=True)
                continue
            with self._lock:
                self._copies[copy.path] = (path, copy)
                self._used[copy.path] = 0

    def _wanted(self) -> list[_Asked]:
        """The files that are to be copied now, those asked for last first."""
        with self._lock:
            often = [asked for asked in self._asked.values() if asked.times >= _OFTEN]
        return often[: -_AT_ONCE - 1 : -1]

    def _make(self, asked: _Asked) -> bool:
        path = asked.file.path
        if not self._has_room(asked.file.rows * _ROW_BYTES, asked.before):
            return False
        written = copy = None
        try:
            written = write_copy(
                self._folder, asked.file, asked.shape, uuid4(), lambda: not self._stopped.is_set()
            )
            copy = open_copy(written) if written is not None else None
        except (OSError, ValueError, pa.ArrowException):
            # A full disk, or a file that is gone or damaged: whoever reads it hears of that.
            with self._lock:
                self._asked.pop(path, None)
            return False
        if self._stopped.is_set() and copy is None:
            return False
        if copy is not None and not self._has_room(copy.bytes, asked.before):
            copy = None
        with self._lock:
            self._asked.pop(path, None)
            if copy is None:
                self._impossible.add(path)
        if copy is None or written is None:
            if written is not None:
                written.unlink(missing_ok=True)
            return False
        with self._lock:
            self._copies[path] = (written, copy)
            self._used[path] = asked.last
        return True

    def _has_room(self, size: int, before: int) -> bool:
        """Make room for a copy of a file whose last question but one was number `before`.

        What was used since then stays: files asked for in turn would else push each other out.
        """
        with self._lock:
            total = sum(copy.bytes for _, copy in self._copies.values())
            count = len(self._copies)
            idle = sorted((n, path) for path, n in self._used.items() if n < before)
            victims = []
            for _, path in idle:
                if total + size <= self._most_bytes and count < _MOST_COPIES:
                    break
                victims.append(path)
                total -= self._copies[path][1].bytes
                count -= 1
        space = os.statvfs(self._folder)
        if space.f_bavail * space.f_frsize < size + _SPARE_BYTES:
            return False
        if total + size > self._most_bytes or count >= _MOST_COPIES:
            return False
        for path in victims:
            self._drop(path)
        return True

    def _drop(self, path: str) -> None:
        """Forget a data file and remove its copy. Whoever reads that has it mapped still."""
        with self._lock:
            there = self._copies.pop(path, None)
            self._used.pop(path, None)
            self._asked.pop(path, None)
            self._impossible.discard(path)
        if there is not None:
            there[0].unlink(missing_ok=True)


def shape_of(view: "View") -> Shape:
    """What the rows of the view's files have."""
    # Imported here: a view names what this module makes.
    from k2.query.view import defaults_of

    return Shape(view.columns, view.time, view.order, defaults_of(view.table))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
