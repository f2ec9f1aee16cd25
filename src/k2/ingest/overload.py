"""Whether a writer is overloaded, and what it sheds then.

Comes in: how far its partitions are behind, and what it holds in memory. Goes out: the level of
degradation, and under it what is to be left in the log.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from k2.ingest.degradation import Change, Degradation, Level, Thresholds
from k2.ingest.shed import Shedding
from k2.ingest.tiers import TierFile
from k2.ingest.watch import Place

logger = logging.getLogger(__name__)

_CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_NO_LIMIT: Final = 1 << 60
"""Version 1 of cgroups says "no limit" by a number of this size."""
_STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True)
class OverloadOptions:
    """When a writer steps back. `tiers` is the file of tiers, `memory_bytes` what the process may
    use; None: its control group's limit, and without one memory raises no level.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    tiers: Path | None = None
    memory_bytes: int | None = None


@dataclass
class _Backlog:
    """What stood in the log when the partition was taken: it is worked off in rounds, each of what
    came during the one before, as long as they get smaller.
    """

    until: int
    size: int


class Overload:
    """Steers one writer. One thread at a time; `clock` is monotonic, in seconds."""

    def __init__(
        self, options: OverloadOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._degradation = Degradation(options.thresholds)
        self._tiers = TierFile(options.tiers)
        self._limit = options.memory_bytes or _cgroup_limit()
        self._clock = clock
        self._backlogs: dict[Place, _Backlog | None] = {}
        self._id = ""

    @property
    def level(self) -> Level:
        """The level now."""
        return self._degradation.level

    def own(self, owned: Mapping[str, Collection[int]] | None) -> None:
        """Take the partitions that are the writer's now; None: all of them, for good.

        Of one that others had meanwhile, what stands there when it comes back is backlog anew.
        """
        if owned is not None:
            gone = [at for at in self._backlogs if at[1] not in owned.get(at[0], ())]
            for place in gone:
                del self._backlogs[place]

    def look(self, places: Mapping[Place, tuple[int, int]], held_bytes: int) -> Change | None:
        """Take how things stand; the change of level that follows, if any.

        `places`: of each partition, the next offset to be read and the log's end. `held_bytes`:
        records in memory that are read and not committed.
        """
        lag = self._lag(places)
        memory = held_bytes / self._limit if self._limit else 0.0
        resident = _resident_bytes() / self._limit if self._limit else 0.0
        change = self._degradation.observe(lag, memory, self._clock(), resident)
        if change is not None:
            if change.before < Level.GRACEFUL <= change.after:
                self._id = uuid4().hex
            logger.warning("level %s: %s", change.after.name, change.reason)
        return change

    def shedding(self) -> Shedding | None:
        """What is to be left in the log now; None at level 0 alone: at SOFT it is nothing, and what
        was shed before waits.
        """
        if self.level is Level.NORMAL:
            return None
        return Shedding(self._id, self.level, self._tiers.tiers(), datetime.now(UTC))

    def _lag(self, places: Mapping[Place, tuple[int, int]]) -> int:
        return sum(self._behind(place, *at) for place, at in places.items())

    def _behind(self, place: Place, offset: int, end: int) -> int:
        if place not in self._backlogs:
            self._backlogs[place] = _Backlog(end, end - offset)
        backlog = self._backlogs[place]
        if backlog is None:
            return max(0, end - offset)
        if offset >= backlog.until:
            came = end - offset
            self._backlogs[place] = _Backlog(end, came) if came < backlog.size else None
            return 0 if came < backlog.size else came
        return 0


def _cgroup_limit() -> int | None:
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < _NO_LIMIT:
            return int(text)
    return None


def _resident_bytes() -> int:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass  # no Linux: memory is then only what is accounted for
    return 0
