"""How far a writer steps back under load, and how it comes forward again.

Comes in: how far it is behind and what memory it holds, as often as one likes, with a monotonic
time. Goes out: a level. Up at once; down one level at a time, after a calm without a break.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final


class Level(IntEnum):
    """What is given up, each level all that the one before does."""

    NORMAL = 0
    """Nothing."""
    SOFT = 1
    """What is computed beside the records: as yet, nothing is."""
    GRACEFUL = 2
    """Records of tier 3 are shed."""
    AGGRESSIVE = 3
    """All but tier 1 are shed."""
    CIRCUIT_BREAK = 4
    """Nothing is processed."""


@dataclass(frozen=True)
class Trigger:
    """Where a level begins: records behind the log's end, or share of the memory allowed."""

    lag: int
    memory: float


_DEFAULTS: Final = {
    Level.SOFT: Trigger(100_000, 0.70),
    Level.GRACEFUL: Trigger(500_000, 0.80),
    Level.AGGRESSIVE: Trigger(1_000_000, 0.90),
    Level.CIRCUIT_BREAK: Trigger(5_000_000, 0.95),
}


@dataclass(frozen=True)
class Thresholds:
    """When levels change. A level is left once lag is below `lag_down` and memory below
    `memory_down` of its trigger, for `calm_seconds`; the last one after `break_seconds`, whatever
    the lag.
    """

    triggers: Mapping[Level, Trigger] = field(default_factory=lambda: dict(_DEFAULTS))
    lag_down: float = 0.5
    memory_down: float = 0.9
    calm_seconds: float = 30.0
    break_seconds: float = 30.0


@dataclass(frozen=True)
class Change:
    """From one level to another, and why, in words."""

    before: Level
    after: Level
    reason: str


class Degradation:
    """The level of one writer."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._thresholds = thresholds or Thresholds()
        self.level = Level.NORMAL
        self._calm_since: float | None = None
        self._entered = 0.0
        self._is_resident_spent = False

    def observe(self, lag: int, memory: float, now: float, resident: float = 0.0) -> Change | None:
        """Take what is seen now; the change of level that it makes, if any.

        `lag` in records, `memory` a share of 1 that is accounted for, `resident` the share that the
        process has in all, `now` in seconds of a monotonic clock. What is resident enters the last
        level only, and once: a process may never give memory back.
        """
        wanted, reason = self._wanted(lag, memory)
        if self._is_swollen(resident):
            wanted, reason = Level.CIRCUIT_BREAK, f"resident memory {resident:.0%}"
        if wanted > self.level:
            return self._enter(wanted, reason, now)
        if self.level is Level.NORMAL:
            return None
        if self.level is Level.CIRCUIT_BREAK:
            if now - self._entered < self._thresholds.break_seconds:
                return None
            why = f"stopped for {now - self._entered:.0f} s: goes on at the log's end"
            return self._enter(Level.AGGRESSIVE, why, now)
        if not self._is_calm(lag, memory):
            self._calm_since = None
            return None
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since < self._thresholds.calm_seconds:
            return None
        why = f"calm for {now - self._calm_since:.0f} s: lag {lag:,}, memory {memory:.0%}"
        return self._enter(Level(self.level - 1), why, now)

    def _wanted(self, lag: int, memory: float) -> tuple[Level, str]:
        for level in sorted(self._thresholds.triggers, reverse=True):
            trigger = self._thresholds.triggers[level]
            if lag >= trigger.lag:
                return level, f"lag {lag:,} of {trigger.lag:,}"
            if memory >= trigger.memory:
                return level, f"memory {memory:.0%} of {trigger.memory:.0%}"
        return Level.NORMAL, ""

    def _is_swollen(self, resident: float) -> bool:
        trigger = self._thresholds.triggers[Level.CIRCUIT_BREAK].memory
        if resident < trigger * self._thresholds.memory_down:
            self._is_resident_spent = False
        if resident < trigger or self._is_resident_spent:
            return False
        self._is_resident_spent = True
        return True

    def _is_calm(self, lag: int, memory: float) -> bool:
        of = self._thresholds
        trigger = of.triggers[self.level]
        return lag < trigger.lag * of.lag_down and memory < trigger.memory * of.memory_down

    def _enter(self, level: Level, reason: str, now: float) -> Change:
        change = Change(self.level, level, reason)
        self.level, self._entered = level, now
        # A calm of the level before does not count for this one.
        self._calm_since = None
        return change
