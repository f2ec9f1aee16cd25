"""The ledger of what was retired, as it reads: which days and symbols, which offsets of the log.

Comes in: the ledger's files. Goes out: its rows as plain columns, or the offsets that they name.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.lake.index import DataFileRef
from k2.lake.places import Offsets, from_distances
from k2.lake.tables import definition
from k2.model import plain_schema

LEDGER: Final = "retired"
RETIRED, LATE = "retired", "late"
"""Events: rows were taken out of the table; records came later, and were never rows."""

Place: TypeAlias = tuple[str, str, int]
"""Topic, identity of the log, partition."""


class Tables(Protocol):
    """The lake, as far as this needs it."""

    def has(self, name: str) -> bool:
        """Is there such a table?"""

    def ledger_files(self, name: str) -> tuple[DataFileRef, ...]:
        """Every file of a ledger, its outboxes included."""


class RetiredRows:
    """Some columns of the ledger's rows. Its files never change, so that each is read once. Any
    thread may ask.
    """

    def __init__(self, lake: Tables, columns: Sequence[str]) -> None:
        self._lake = lake
        self._schema = plain_schema(definition(LEDGER).arrow.field(name) for name in columns)
        self._lock = threading.Lock()
        self._files: Mapping[str, pa.Table] = {}
        self._rows = self._schema.empty_table()

    def rows(self) -> pa.Table:
        """All rows as they are now, as plain columns, in no order."""
        paths = [file.path for file in self._lake.ledger_files(LEDGER)]
        with self._lock:
            if self._files.keys() != set(paths):
                known = self._files
                self._files = {p: known[p] if p in known else self._read(p) for p in paths}
                parts = [self._schema.empty_table(), *self._files.values()]
                self._rows = pa.concat_tables(parts).combine_chunks()
            return self._rows

    def _read(self, path: str) -> pa.Table:
        found = pq.ParquetFile(path).read(columns=self._schema.names)
        return found.select(self._schema.names).cast(self._schema)


class RetiredPlaces:
    """Where in the log the records lie that were retired: of each kind, by commits up to that of
    `upto` (inclusive).
    """

    def __init__(self, lake: Tables, upto: Mapping[str, int]) -> None:
        columns = ("event", "kind", "commit", *_PLACE, "log_offset", "end_offset", "distances")
        rows = RetiredRows(lake, columns).rows() if lake.ledger_files(LEDGER) else None
        self._entries: dict[Place, list[tuple[int, int, bytes]]] = defaultdict(list)
        for row in rows.to_pylist() if rows is not None else ():
            # What came late says no commit: whoever asks knows how far the table is committed.
            if row["event"] == LATE or row["commit"] <= upto.get(row["kind"], 0):
                place = (row["log_topic"], row["log_id"], row["log_partition"])
                entry = (row["log_offset"], row["end_offset"], row["distances"])
                self._entries[place].append(entry)

    def places(self, topic: str, partition: int) -> list[Place]:
        """The places of that name, one for each log that the topic was."""
        return [place for place in self._entries if (place[0], place[2]) == (topic, partition)]

    def offsets(self, place: Place, low: int, high: int) -> Offsets:
        """Those of a place within `[low, high)`, ascending, each as often as the ledger names it.

        Raises `Broken` for an entry that is damaged.
        """
        found = [
            from_distances(first, distances, f"retired ledger: {place[0]}[{place[2]}]")
            for first, end, distances in self._entries.get(place, ())
            if first < high and end > low
        ]
        if not found:
            return np.zeros(0, np.int64)
        every = np.sort(np.concatenate(found))
        return every[(every >= low) & (every < high)]


def of_kind(rows: pa.Table, kind: str, upto: int) -> pa.Table:
    """The rows that tell what was retired of a kind, by commits up to that one (inclusive)."""
    mine = (pc.field("kind") == kind) & (pc.field("event") == RETIRED)
    return rows.filter(mine & (pc.field("commit") <= upto))


_PLACE: Final = ("log_topic", "log_id", "log_partition")
