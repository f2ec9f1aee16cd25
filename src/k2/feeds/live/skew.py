"""How far our clock is from the venue's, as its messages tell."""

import logging
from collections.abc import Sequence
from typing import Final

WINDOW: Final = 500
"""The difference is the least delay among so many messages: the one that was held up least."""
TOLD_SECONDS: Final = 1.0
"""A difference beyond this is told."""

_logger = logging.getLogger(__name__)


class Skew:
    """The least delay from the venue's time of a message to its receipt.

    The journey takes no negative time, and hardly any of the least one: below zero our clock is
    behind by at least so much, well above it is ahead.
    """

    def __init__(self) -> None:
        self._least: int | None = None
        self._coming: int | None = None
        self._count = 0
        self._told = False

    def add(self, delays: Sequence[int], venue: str) -> None:
        """Take delays in microseconds, and tell once of a clock that is off."""
        if not delays:
            return
        least = min(delays)
        self._coming = least if self._coming is None else min(self._coming, least)
        self._count += len(delays)
        if self._count < WINDOW:
            return
        self._least, self._coming, self._count = self._coming, None, 0
        off = abs(self._least) / 1e6 > TOLD_SECONDS
        if off and not self._told:
            where = "ahead of" if self._least > 0 else "behind"
            _logger.warning("our clock is %.1f s %s %s's", abs(self._least) / 1e6, where, venue)
        self._told = off

    def seconds(self) -> float | None:
        """How far our clock is ahead (negative: behind); None until enough was seen."""
        return None if self._least is None else self._least / 1e6
