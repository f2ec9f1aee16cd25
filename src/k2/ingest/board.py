"""What the writers' levels are, for whoever serves them: told through the log.

Each writer puts its own line in a compacted topic, now and then anew; one that was killed is known
by its silence.
"""

import json
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from k2.errors import K2Error
from k2.ingest.degradation import Change, Level
from k2.log import Log

DEGRADATION_TOPIC: Final = "k2.degradation"
"""Compacted: a writer's name, to its level and how it came to it, or to "" once it has ended."""
SILENT_AFTER: Final = timedelta(seconds=90)
"""A writer that has told nothing for so long is taken to have ended."""

_TELL_EVERY: Final = timedelta(seconds=30)
_HISTORY: Final = 50

logger = logging.getLogger(__name__)


class Board:
    """Tells of one writer. One thread at a time; `clock` is monotonic, in seconds."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
        self._history: deque[dict[str, str]] = deque(maxlen=_HISTORY)
        self._since = datetime.now(UTC)
        self._told_at: float | None = None

    def tell(self, level: Level, change: Change | None) -> None:
        """Say that the level is this; what a log that is away does not hear, it hears later."""
        now, clock = datetime.now(UTC), self._clock()
        if change is not None:
            self._since = now
            self._history.append(
                {
                    "at": now.isoformat(),
                    "before": change.before.name,
                    "after": change.after.name,
                    "reason": change.reason,
                }
            )
        elif self._told_at is not None and clock - self._told_at < _TELL_EVERY.total_seconds():
            return
        self._told_at = clock
        told = {
            "level": level.name,
            "since": self._since.isoformat(),
            "told_at": now.isoformat(),
            "history": list(self._history),
        }
        self._put(json.dumps(told))

    def leave(self) -> None:
        """Say that this writer has ended."""
        if self._told_at is not None:
            self._put("")

    def _put(self, text: str) -> None:
        try:
            self._log.put(DEGRADATION_TOPIC, self._name, text)
        except K2Error as error:
            logger.info("the level cannot be told now: %s", error)


@dataclass(frozen=True)
class WriterLevel:
    """One writer's level, since when it has it, and the changes before, oldest first."""

    writer: str
    level: Level
    since: datetime
    history: tuple[Mapping[str, str], ...]


def levels(log: Log, now: datetime) -> list[WriterLevel]:
    """The levels of all writers that run, by their names."""
    found = []
    for writer, text in sorted(log.latest(DEGRADATION_TOPIC).items()):
        if not text:
            continue
        told: dict[str, Any] = json.loads(text)
        if now - datetime.fromisoformat(told["told_at"]) <= SILENT_AFTER:
            since = datetime.fromisoformat(told["since"])
            found.append(WriterLevel(writer, Level[told["level"]], since, tuple(told["history"])))
    return found
