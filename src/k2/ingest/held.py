"""Which offsets hold a record: what the audit asks of the log, and of the manifests of loads.

Comes in: a topic and offsets. Goes out: which of them there are, read from the log itself, or from
the manifests of files that went straight into the tables.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from k2.errors import K2Error
from k2.lake import Snapshot
from k2.lake.loads import Loads
from k2.log import Log
from k2.model import LOADED_PARTITION, Topic

_READ_BYTES: Final = 16 << 20

Wrong: TypeAlias = tuple[int, str]
"""An offset, and what is wrong there."""


class Held(Protocol):
    """Where records of topics lie."""

    called: str
    """What to call it in a sentence."""

    def topics(self) -> Mapping[str, Sequence[int]]:
        """The topics of records, with the partitions of each."""

    def identity(self, topic: str) -> str:
        """Which log it is."""

    def start_offset(self, topic: str, partition: int) -> int:
        """The first offset that is kept."""

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset behind the last record."""

    def present(
        self, topic: str, partition: int, low: int, high: int
    ) -> tuple[npt.NDArray[np.bool_], Wrong | None]:
        """Which of the offsets `[low, high)`, all of which are kept, hold a record; and where
        reading them failed.
        """


class LogRecords:
    """The records of a log."""

    called = "the log"

    def __init__(self, log: Log) -> None:
        self._log = log

    def topics(self) -> Mapping[str, Sequence[int]]:
        """As `Held` says."""
        return {name: range(n) for name, n in self._log.topics().items() if Topic.parse(name)}

    def identity(self, topic: str) -> str:
        """As `Held` says."""
        return self._log.identity(topic)

    def start_offset(self, topic: str, partition: int) -> int:
        """As `Held` says."""
        return self._log.start_offset(topic, partition)

    def end_offset(self, topic: str, partition: int) -> int:
        """As `Held` says."""
        return self._log.end_offset(topic, partition)

    def present(
        self, topic: str, partition: int, low: int, high: int
    ) -> tuple[npt.NDArray[np.bool_], Wrong | None]:
        """As `Held` says."""
        present = np.zeros(high - low, np.bool_)
        offset = low
        while offset < high:
            try:
                batches = self._log.read(topic, partition, offset, _READ_BYTES)
            except K2Error as error:
                return present, (offset, f"the log cannot be read here: {error}")
            if not batches:
                break
            for batch in batches:
                mine = batch.offsets[(batch.offsets >= low) & (batch.offsets < high)]
                present[mine - low] = True
                offset = batch.next_offset
        return present, None


class LoadedRecords:
    """The records of files that were loaded, as their manifests tell; `snapshots` are those of the
    tables, taken before the manifests were read.
    """

    called = "the list of manifests"

    def __init__(self, loads: Loads, snapshots: Iterable[Snapshot]) -> None:
        self._loads = loads
        self._ids: dict[str, str] = {}
        self._reached: dict[str, int] = {}
        for topic, of in (each for snapshot in snapshots for each in snapshot.offsets.items()):
            if (parsed := Topic.of_row(topic)) is not None and parsed.loaded:
                self._ids[topic] = of.log_id
                self._reached[topic] = of.next_offset[LOADED_PARTITION]

    def topics(self) -> Mapping[str, Sequence[int]]:
        """As `Held` says: those of manifests, and those that tables name."""
        return dict.fromkeys(self._loads.ends.keys() | self._ids.keys(), (LOADED_PARTITION,))

    def identity(self, topic: str) -> str:
        """As `Held` says."""
        last = self._loads.last
        return self._ids[topic] if last is None else last.log_id

    def start_offset(self, topic: str, partition: int) -> int:
        """As `Held` says: manifests are kept for good."""
        return 0

    def end_offset(self, topic: str, partition: int) -> int:
        """As `Held` says. How many records a file has is known once it was read to its end: until
        then they are those that are committed.
        """
        known = self._loads.ends.get(topic, 0)
        return max(known, self._reached.get(topic, 0)) if self._loads.may_go_on else known

    def present(
        self, topic: str, partition: int, low: int, high: int
    ) -> tuple[npt.NDArray[np.bool_], Wrong | None]:
        """As `Held` says."""
        return np.ones(high - low, np.bool_), None
