"""A venue's past, by REST, in a thread of its own: holes are asked for here, pages come out.

Requests keep the venue's pace and obey `Retry-After`; one that fails is tried again, for ever. Live
records go on meanwhile.
"""

import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Final

import httpx

from k2.errors import Refused
from k2.feeds.live.connection import to_micros, to_seconds
from k2.feeds.live.link import FIRST_WAIT, LONGEST_WAIT
from k2.feeds.live.venue import UNREADABLE, Body, Busy, Parsed, Venue

MOST_PAGES: Final = 4
"""Pages that may wait for the reader; beyond, none is asked for."""

BURST: Final = 5
"""So many requests may follow each other at once, after as long a rest."""
MOST_TRIES: Final = 5
"""So often an answer that makes no sense is asked for again before others have their turn."""

_REQUEST_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.2
_UNTOLD_WAIT: Final = 60.0
"""Seconds to wait where a venue says "too many requests" and not for how long."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Trades `first` to `last` (inclusive) of a symbol; `after`: when the one before them was."""

    symbol: str
    first: int
    last: int
    after: int


@dataclass(frozen=True)
class Look:
    """Which is the newest trade of the symbol?"""

    symbol: str


@dataclass(frozen=True)
class Page:
    """Some of a job's trades."""

    job: Job
    parsed: Parsed


@dataclass(frozen=True)
class Done:
    """The venue has no more for the job; `refused`: it says no, and why."""

    job: Job
    refused: str | None = None


@dataclass(frozen=True)
class Newest:
    """The newest trade of a symbol; None: none, or the venue says no."""

    symbol: str
    trade_id: int | None


class _Closing(Exception):
    """The history is being closed."""


class History:
    """Asks the venue for what is put to it, one after the other; `take` gives what came."""

    def __init__(self, venue: Venue, clock: Callable[[], datetime], random: Random) -> None:
        self._venue = venue
        self._clock = clock
        self._random = random
        self._asked: queue.PriorityQueue[tuple[int, int, Job | Look | None]] = queue.PriorityQueue()
        self._count = itertools.count()
        self._found: queue.Queue[Page | Done | Newest] = queue.Queue(MOST_PAGES)
        self._closing = threading.Event()
        self._next_request = -math.inf
        self._told: str | None = None
        self.away_since: float | None = None
        """Monotonic time since which the venue gives no answer at all; None while it does."""
        self._thread = threading.Thread(target=self._run, name="venue-history", daemon=True)
        self._thread.start()

    def ask(self, asked: Job | Look) -> None:
        """Put a question. Holes go first; those of a kind are answered in their order."""
        self._asked.put((0 if isinstance(asked, Job) else 1, next(self._count), asked))

    def take(self, wait: float = 0.0) -> Page | Done | Newest | None:
        """What came next; None if nothing did within `wait` seconds."""
        try:
            return self._found.get(block=wait > 0, timeout=wait or None)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the thread; a request under way is waited for."""
        self._closing.set()
        self._asked.put((-1, next(self._count), None))
        self._thread.join(_REQUEST_SECONDS + 1)

    def _run(self) -> None:
        with httpx.Client(
            base_url=self._venue.rest, timeout=_REQUEST_SECONDS, follow_redirects=False
        ) as client:
            self._client = client
            while not self._closing.is_set():
                _, _, asked = self._asked.get()
                if asked is not None:
                    try:
                        self._answer(asked)
                    except _Closing:
                        return

    def _answer(self, asked: Job | Look) -> None:
        """Answer one question, beginning again where an answer of the venue makes no sense."""
        failures = 0
        while True:
            try:
                if isinstance(asked, Look):
                    self._put(Newest(asked.symbol, self._venue.newest(self._get, asked.symbol)))
                else:
                    self._pages(asked)
            except Refused as error:
                self._tell(str(error))
                self._put(_nothing(asked, str(error)))
            except Busy as error:
                self._tell(str(error))
                self._wait(error.retry_after)
                continue
            except UNREADABLE as error:
                reason = f"an answer of {self._venue.rest} makes no sense: {error!r}"
                self._tell(reason)
                failures += 1
                if failures < MOST_TRIES:
                    self._back_off(failures)
                    continue
                self._put(_nothing(asked, reason))
            return

    def _pages(self, job: Job) -> None:
        pages = self._venue.history(self._get, job.symbol, job.first, job.last, job.after)
        for parsed in pages:
            self._put(Page(job, parsed))
        self._put(Done(job))

    def _get(self, path: str, asked: Mapping[str, str], headers: Mapping[str, str]) -> Body:
        failures = 0
        while True:
            gap = self._venue.limits.between_requests
            now = time.monotonic()
            self._wait(self._next_request - now)
            self._next_request = max(self._next_request, now - BURST * gap) + gap
            try:
                answer = self._client.get(path, params=asked, headers=headers)
            except httpx.RequestError as error:
                self.away_since = self.away_since or time.monotonic()
                self._tell(f"{self._venue.rest} is away: {error or type(error).__name__}")
                failures += 1
                self._back_off(failures)
                continue
            self.away_since = None
            status = answer.status_code
            if status == 200:
                self._told = None
                return Body(answer.content, to_micros(self._clock()))
            self._tell(f"{self._venue.rest}{path} answers {status}")
            after = to_seconds(answer.headers.get("Retry-After"), self._clock())
            if status in (418, 429):
                self._wait(after or _UNTOLD_WAIT)
            elif status >= 500 or status == 408:
                failures += 1
                self._back_off(failures, after)
            else:
                raise Refused(
                    f"{self._venue.rest}{path} says no: {status}", found=answer.text[:200]
                )

    def _back_off(self, failures: int, least: float = 0.0) -> None:
        wait = min(FIRST_WAIT * 2.0 ** min(failures, 20), LONGEST_WAIT)
        self._wait(max(least, wait * (1 + self._random.random() / 2)))

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._closing.wait(seconds)
        if self._closing.is_set():
            raise _Closing

    def _put(self, found: Page | Done | Newest) -> None:
        while True:
            try:
                self._found.put(found, timeout=_LOOK_SECONDS)
            except queue.Full:
                if self._closing.is_set():
                    raise _Closing from None
            else:
                return

    def _tell(self, reason: str) -> None:
        # Once: what goes on failing for the same reason is not told again until it worked.
        if reason != self._told:
            self._told = reason
            _logger.warning("%s", reason)


def _nothing(asked: Job | Look, reason: str) -> Done | Newest:
    return Newest(asked.symbol, None) if isinstance(asked, Look) else Done(asked, reason)
