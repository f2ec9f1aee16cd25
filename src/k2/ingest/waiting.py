"""Rows that wait to be committed: the newest in memory, a long line of older ones in mapped files.

Comes in: decided rows, in log order of each partition. Goes out: all of them as one table, read
as if it were in memory. A file has no name: it goes with its rows.
"""

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from k2.errors import Unavailable
from k2.ingest.known import past
from k2.lake import Snapshot


class Waiting:
    """The rows of one kind. At most `in_memory` of them are; files are made in `folder`.

    One thread at a time.
    """

    def __init__(self, folder: Path, in_memory: int, columns: pa.Schema) -> None:
        self._folder = folder
        self._in_memory = in_memory
        self._columns = columns
        self._mapped: list[pa.Table] = []
        self._held: list[pa.Table] = []
        self._joined: pa.Table | None = None

    @property
    def rows(self) -> int:
        """How many wait."""
        return sum(table.num_rows for table in (*self._mapped, *self._held))

    def add(self, tables: Iterable[pa.Table]) -> None:
        """Rows that came after all others, each table of one topic. Raises `Unavailable` where no
        file can be made for those that are too many.
        """
        self._held += tables
        self._joined = None
        if sum(table.num_rows for table in self._held) > self._in_memory:
            of_topic: dict[str, list[pa.Table]] = {}
            for table in self._held:
                if table.num_rows:
                    of_topic.setdefault(str(table["log_topic"][0]), []).append(table)
            self._mapped += [_mapped(self._folder, same) for same in of_topic.values()]
            self._held = []

    def keep(self, snapshot: Snapshot) -> None:
        """Let go of what the snapshot has committed."""
        self._mapped, self._held = (
            [left for table in tables if (left := past(table, snapshot)).num_rows]
            for tables in (self._mapped, self._held)
        )
        self._joined = None

    def table(self) -> pa.Table:
        """All of them."""
        if self._joined is None:
            parts = [*self._mapped, *self._held]
            self._joined = pa.concat_tables(parts) if parts else self._columns.empty_table()
        return self._joined


def _mapped(folder: Path, tables: list[pa.Table]) -> pa.Table:
    rows = pa.concat_tables(tables).unify_dictionaries()
    try:
        # Without a name from the first: whoever is killed leaves nothing behind.
        with tempfile.TemporaryFile(dir=folder) as file:
            with pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows)
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise Unavailable(
            f"more rows wait to be committed than memory is for, and no file can be made for them: "
            f"{error.strerror or error}",
            place=str(folder),
            hint="make room, or start `k2 ingest`",
            retry_after=10,
        ) from error
    return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
