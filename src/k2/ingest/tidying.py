"""What a line does besides its commits, now and then, in the thread that makes them."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from k2.errors import Conflict, Unavailable
from k2.ingest.follow import Follower
from k2.ingest.known import Known
from k2.ingest.tracking import Sequences
from k2.lake import Lake, LakeTable
from k2.memory import release_memory

logger = logging.getLogger(__name__)

_EVERY: Final = timedelta(seconds=10)
_CLEAN_EVERY: Final = timedelta(minutes=2)
_CLEAN_FIRST: Final = timedelta(minutes=1)


class Tidying:
    """Of one table: ledgers brought up to date, what is kept beside the table kept, metadata of
    expired snapshots removed, memory given back. `clock` is monotonic, in seconds.
    """

    def __init__(self, lake: Lake, table: LakeTable, clock: Callable[[], float]) -> None:
        self._lake = lake
        self._table = table
        self._clock = clock
        self._done_at = clock()
        # A writer that is often started anew must come to it as well.
        self._cleaned_at = self._done_at - (_CLEAN_EVERY - _CLEAN_FIRST).total_seconds()

    def is_due(self) -> bool:
        """Whether it was long ago."""
        return self._clock() - self._done_at > _EVERY.total_seconds()

    def run(self, known: Follower | Known, sequences: Sequences | None) -> None:
        """Do it. Raises as the lake does."""
        self._done_at = self._clock()
        name = self._table.name
        try:
            self._lake.absorb(name)
        except Conflict as error:
            # Other writers do the same, and were faster again and again.
            logger.info("%s: %s", name, error)
        try:
            known.save()
            if sequences is not None:
                sequences.save()
        except (OSError, Unavailable) as error:
            # The table knows all of it: a start takes longer, and that is all.
            logger.warning("%s: what is kept beside it is not: %s", name, error)
        if self._clock() - self._cleaned_at > _CLEAN_EVERY.total_seconds():
            self._cleaned_at = self._clock()
            self._lake.clean(name)
        release_memory()
