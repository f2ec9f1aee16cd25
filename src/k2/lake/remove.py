"""Data files that nothing needs any more: those compacted away, and those no commit ever named.

A file is needed if a snapshot that the table keeps names it, or an outbox does. One that is not is
noted with the time, and removed once it was not needed for a while on end: readers of an older
snapshot are done by then, and writers have committed. A writer that froze for longer finds its
files gone and decides anew.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from k2.lake.files import delete, replace_file
from k2.lake.index import local
from k2.lake.manifest import list_from_bytes, live

if TYPE_CHECKING:
    from k2.lake.snapshot import Head
    from k2.lake.table import LakeTable

REMOVE_AFTER: Final = timedelta(hours=1)
_AT_ONCE: Final = 500
"""Files that are removed before writers may commit again."""


class Tables(Protocol):
    """The lake, as far as this needs it."""

    def table(self, name: str) -> "LakeTable":
        """The table."""

    def tables(self) -> list[str]:
        """Names of the tables that there are."""


@dataclass(frozen=True)
class Removed:
    """Files that were removed (or would be) and their bytes; files that are noted and stay for now,
    and their bytes.
    """

    files: int
    bytes: int
    waiting: int
    waiting_bytes: int


def remove_unneeded(
    lake: Tables, name: str, after: timedelta = REMOVE_AFTER, *, dry_run: bool = False
) -> Removed:
    """Remove the table's data files that were not needed for that long.

    How long counts from when this was first asked and found it so. Any process may ask.
    """
    table = lake.table(name)
    needed = _Needed(lake, table)
    with suppress(FileNotFoundError):  # a list that has expired meanwhile is read again below
        needed.look()
    now_ms = table.now_ms()
    notes = _Notes(table)
    found = {path: size for path, size in _on_disk(table) if path not in needed.paths}
    since = {path: notes.since.get(path, now_ms) for path in found}
    ripe = [path for path in found if now_ms - since[path] >= after.total_seconds() * 1000]
    gone: list[str] = []
    if dry_run:
        gone = ripe
    else:
        for first in range(0, len(ripe), _AT_ONCE):
            # Under the lock no commit can name one of them: it finds them gone, and starts anew.
            with table.catalog.exclusive():
                needed.look()
                some = [p for p in ripe[first : first + _AT_ONCE] if p not in needed.paths]
                delete(some)
            gone += some
        notes.keep({path: at for path, at in since.items() if path not in set(gone)})
    size = sum(found[path] for path in gone)
    left = len(found) - len(gone)
    return Removed(len(gone), size, left, sum(found.values()) - size)


class _Needed:
    """The local paths of a table's files that must stay. Looked at again, it reads what is new."""

    def __init__(self, lake: Tables, table: "LakeTable") -> None:
        self._lake = lake
        self._table = table
        self._lists: dict[str, tuple[str, ...]] = {}
        self._manifests: dict[str, frozenset[str]] = {}
        self.paths: set[str] = set()

    def look(self) -> None:
        """See what is needed now."""
        head = self._table.head()
        self.paths = set()
        for snapshot in head.metadata["snapshots"]:
            for manifest in self._manifests_of(snapshot["manifest-list"], head):
                self.paths |= self._manifests[manifest]
        for name in self._lake.tables():
            outbox = self._lake.table(name).snapshot().outbox
            self.paths |= {entry.path for entry in outbox if entry.ledger == self._table.name}

    def _manifests_of(self, uri: str, head: "Head") -> Iterable[str]:
        if uri not in self._lists:
            listed = list_from_bytes(Path(local(uri)).read_bytes(), uri)
            for manifest in listed:
                path = manifest["manifest_path"]
                if path in self._manifests:
                    continue
                if (known := head.columns.get(path)) is not None:
                    self._manifests[path] = frozenset(known.path.tolist())
                else:
                    entries = live(Path(local(path)).read_bytes(), manifest)
                    self._manifests[path] = frozenset(
                        local(entry["data_file"]["file_path"]) for entry in entries
                    )
            self._lists[uri] = tuple(manifest["manifest_path"] for manifest in listed)
        return self._lists[uri]


class _Notes:
    """Since when files are not needed (milliseconds since 1970), kept beside the table."""

    def __init__(self, table: "LakeTable") -> None:
        self._path = table.metadata_folder.parent / "unneeded.json"
        self._unique = table.unique
        self.since: dict[str, int] = {}
        # Without it, or torn, the time begins anew: files stay longer than they must.
        with suppress(OSError, ValueError):
            self.since = json.loads(self._path.read_text("utf-8"))

    def keep(self, since: dict[str, int]) -> None:
        """Keep these in place of what was noted before."""
        if since == self.since:
            return
        replace_file(self._path, json.dumps(since).encode(), self._unique())


def _on_disk(table: "LakeTable") -> Iterable[tuple[str, int]]:
    """Every data file below the table's folder, and its bytes."""
    folders = [str(table.metadata_folder.parent / "data")]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.endswith(".parquet"):
                    with suppress(FileNotFoundError):
                        yield entry.path, entry.stat().st_size
