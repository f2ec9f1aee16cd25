"""The ports with faults in them: a log, a registry and a catalog that obey their contracts, and
fail, lose answers or end the process where their seam is armed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2.chaos.faults import Killed, Seam, away
from k2.lake.catalog import Catalog
from k2.log import Append, Batch, Log, Membership, Registered, Registry

AWAY: Final = "away"
REFUSED: Final = "refused"
ANSWER_LOST: Final = "answer lost"
IN_PART: Final = "done in part"
SLOW: Final = "slow"
FROZEN: Final = "frozen"
KILLED_BEFORE: Final = "killed before"
KILLED_AFTER: Final = "killed after"
OTHER_FIRST: Final = "another is first"
CUT_OFF: Final = "answer lost, then away"


class FaultyLog:
    """`k2.log.Log`. `appended` is told of each message that the log has, whatever was answered.

    Points: `ask`, `read`, `append`, `put`.
    """

    def __init__(
        self,
        log: Log,
        seam: Seam,
        appended: Callable[[Append, npt.NDArray[np.int64]], None],
    ) -> None:
        self._log = log
        self._seam = seam
        self._appended = appended

    def append(self, appends: Sequence[Append]) -> list[npt.NDArray[np.int64]]:
        """Append all, a part or nothing."""
        kind = self._seam.strikes("append")
        if kind == KILLED_BEFORE:
            raise Killed
        if kind in (AWAY, REFUSED):
            raise away("the log")
        if kind == IN_PART:
            appends = _half(appends)
        found = self._log.append(appends)
        for each, offsets in zip(appends, found, strict=True):
            self._appended(each, offsets)
        if kind == KILLED_AFTER:
            raise Killed
        if kind in (ANSWER_LOST, IN_PART):
            raise away("the log")
        return found

    def put(self, topic: str, key: str, value: str) -> None:
        """Put it, and perhaps say nothing."""
        kind = self._seam.strikes("put")
        if kind == KILLED_BEFORE:
            raise Killed
        if kind in (AWAY, REFUSED):
            raise away("the log")
        self._log.put(topic, key, value)
        if kind == ANSWER_LOST:
            raise away("the log")

    def read(self, topic: str, partition: int, offset: int, max_bytes: int) -> list[Batch]:
        """As much as was asked for, one batch or nothing yet."""
        kind = self._seam.strikes("read")
        if kind in (AWAY, REFUSED):
            raise away("the log")
        if kind == KILLED_BEFORE:
            raise Killed
        if kind == FROZEN:
            return []
        return self._log.read(topic, partition, offset, 1 if kind == SLOW else max_bytes)

    def _ask(self) -> Log:
        if self._seam.strikes("ask") is not None:
            raise away("the log")
        return self._log

    def create(self, topic: str, partitions: int) -> None:
        """As the port says."""
        self._ask().create(topic, partitions)

    def topics(self) -> Mapping[str, int]:
        """As the port says."""
        return self._ask().topics()

    def identity(self, topic: str) -> str:
        """As the port says."""
        return self._ask().identity(topic)

    def start_offset(self, topic: str, partition: int) -> int:
        """As the port says."""
        return self._ask().start_offset(topic, partition)

    def end_offset(self, topic: str, partition: int) -> int:
        """As the port says."""
        return self._ask().end_offset(topic, partition)

    def end_offsets(self, topic: str) -> Sequence[int]:
        """As the port says."""
        return self._ask().end_offsets(topic)

    def offset_at(self, topic: str, partition: int, when: datetime) -> int:
        """As the port says."""
        return self._ask().offset_at(topic, partition, when)

    def size(self, topic: str, partition: int) -> int:
        """As the port says."""
        return self._ask().size(topic, partition)

    def trim(self, topic: str, partition: int, before: int) -> int:
        """As the port says."""
        return self._ask().trim(topic, partition, before)

    def latest(self, topic: str) -> Mapping[str, str]:
        """As the port says."""
        return self._ask().latest(topic)

    def join(self, group: str) -> Membership:
        """As the port says."""
        return self._ask().join(group)

    def rest(self) -> None:
        """As the port says."""
        self._ask().rest()

    def close(self) -> None:
        """Nothing: the log behind it is closed by whoever opened that."""


def _half(appends: Sequence[Append]) -> Sequence[Append]:
    """The first of them; of a single one, its first messages."""
    if len(appends) > 1:
        return appends[: len(appends) // 2]
    (only,) = appends
    count = len(only.values) // 2
    keys = None if only.keys is None else only.keys.slice(0, count)
    return [replace(only, values=only.values.slice(0, count), keys=keys)]


class FaultyRegistry:
    """`k2.log.Registry`. Point: `ask`."""

    def __init__(self, registry: Registry, seam: Seam) -> None:
        self._registry = registry
        self._seam = seam

    def _ask(self) -> Registry:
        if self._seam.strikes("ask") is not None:
            raise away("the registry")
        return self._registry

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """As the port says."""
        return self._ask().register(subject, schema)

    def check(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """As the port says."""
        return self._ask().check(subject, schema)

    def schema(self, schema_id: int) -> Mapping[str, Any]:
        """As the port says."""
        return self._ask().schema(schema_id)

    def versions(self, subject: str) -> list[Registered]:
        """As the port says."""
        return self._ask().versions(subject)

    def subjects(self) -> list[str]:
        """As the port says."""
        return self._ask().subjects()

    def close(self) -> None:
        """Nothing: the registry behind it is closed by whoever opened that."""


class FaultyCatalog(Catalog):
    """The catalog of one process. `between` is called where another process is first.

    Points: `look`, `swap`.
    """

    def __init__(self, path: Path, seam: Seam, between: Callable[[], None]) -> None:
        super().__init__(path, read_only=False)
        self._seam = seam
        self._between = between

    def location(self, table: str) -> str | None:
        """Where the table stands, if the catalog answers."""
        if self._seam.strikes("look") is not None:
            raise away("the catalog")
        return super().location(table)

    def swap(self, table: str, old: str, new: str, ready: Callable[[], bool]) -> bool:
        """Swap, and perhaps say nothing."""
        kind = self._seam.strikes("swap")
        if kind == KILLED_BEFORE:
            raise Killed
        if kind in (AWAY, REFUSED):
            raise away("the catalog")
        if kind == OTHER_FIRST:
            self._between()
        swapped = super().swap(table, old, new, ready)
        if kind == KILLED_AFTER:
            raise Killed
        if kind == CUT_OFF:
            self._seam.go_on_with(AWAY, ("look",))
        if kind in (ANSWER_LOST, CUT_OFF):
            raise away("the catalog")
        return swapped
