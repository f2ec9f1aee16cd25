"""A stream's events, one after the other: read in worker threads, given when they are due.

Comes in: a replay. Goes out: events, each with the position behind it. Nothing runs ahead of who
takes them but the next part, which is fetched while one is given.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from k2.api.errors import TooMany
from k2.api.work import Workers
from k2.errors import Conflict, Unavailable
from k2.pace import Schedule
from k2.query import Part, Replay, cancelled_by
from k2.query.position import Position

T = TypeVar("T")

POLL_SECONDS: Final = 0.05
"""How often it is looked whether something has arrived, or whether the server stops."""

BEAT_SECONDS: Final = 15.0
"""A stream that has nothing to tell says so that often, so that nobody takes it for dead."""

_AWAY_SECONDS: Final = 30.0
"""How long log and lake may be away before a stream gives up and says why."""

_RETRY_SECONDS: Final = 0.25
_LONGEST_SLEEP: Final = 0.5


@dataclass(frozen=True)
class Event:
    """One message of a stream: `open`, `records`, `beat`, `end` or `error`.

    `position` is where a stream goes on that has given it. `body` are records as they were encoded;
    of the others the members of a JSON object, without its braces.
    """

    name: str
    position: str
    body: bytes = b""


class Seats:
    """How many streams may be open at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @property
    def taken(self) -> int:
        """Streams that are open."""
        return self._taken

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A stream's place. Raises `TooMany` when all are taken."""
        if self._taken >= self._most:
            raise TooMany(
                f"{self._taken} streams are open already",
                retry_after=1,
                hint="close one, or ask for several symbols and kinds in one stream",
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Reading:
    """Reads one replay for one client; whoever opens it closes it."""

    def __init__(
        self,
        workers: Workers,
        replay: Replay,
        opened: Position,
        first: Part | None,
        encode: Callable[[Part, str], bytes],
        *,
        speed: float | None,
        batch: int,
    ) -> None:
        """`first` is what was read of the replay already, from the position `opened` on; None where
        there was nothing then. `encode` is given records and the position behind them, in order.
        """
        self._workers = workers
        self._replay = replay
        self._first = first
        self._encode = encode
        self._schedule = Schedule(speed)
        self._batch = batch
        self._gone = threading.Event()
        self._told_at = time.monotonic()
        self.position = opened.to_text(replay.asked.question)
        """Behind what was given so far."""

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to give, now or ever."""
        return self._first is None and self._replay.is_done

    def close(self) -> None:
        """Stop what still reads."""
        self._gone.set()

    async def events(self, stopping: Callable[[], bool]) -> AsyncGenerator[Event]:
        """All events. Raises `Unavailable` once the server is `stopping`, and what reading raises
        if waiting does not mend it.
        """
        yield Event("open", self.position)
        part = self._first
        following: asyncio.Task[Part | None] | None = None
        try:
            while True:
                if part is not None:
                    if not part.is_live:
                        following = asyncio.ensure_future(self._read())
                        following.add_done_callback(_heard)
                    async for event in self._given(part, stopping):
                        yield event
                elif self._replay.is_done:
                    yield Event("end", self.position)
                    return
                else:
                    if self._is_quiet():
                        yield Event("beat", self.position)
                    await self._sleep(POLL_SECONDS, stopping)
                part = await (self._read() if following is None else following)
                following = None
        finally:
            if following is not None:
                following.cancel()

    async def _given(self, part: Part, stopping: Callable[[], bool]) -> AsyncGenerator[Event]:
        """The part's records as they are due."""
        times, at = part.times, 0
        # What is caught up with, and what is live, has happened: nothing is to be waited for.
        pace = Schedule(None) if part.is_live or part.end.told else self._schedule
        while at < len(times):
            end, seconds = pace.due(times, at, time.monotonic())
            if end == at:
                if self._is_quiet():
                    yield Event("beat", self.position)
                await self._sleep(seconds, stopping)
                continue
            end = end if part.is_live else min(end, at + self._batch)
            event = await self._do(partial(self._event, part, at, end))
            await self._sleep(0, stopping)
            self.position, self._told_at = event.position, time.monotonic()
            yield event
            at = end

    def _event(self, part: Part, at: int, end: int) -> Event:
        piece = part.cut(at, end)
        position = piece.end.to_text(self._replay.asked.question)
        return Event("records", position, self._encode(piece, position))

    async def _read(self) -> Part | None:
        """What comes next; waits while log or lake are away."""
        since = time.monotonic()
        while True:
            try:
                return await self._do(
                    partial(self._replay.read, self._workers.limits.query_seconds)
                )
            except (Unavailable, Conflict):
                if time.monotonic() - since > _AWAY_SECONDS:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    async def _do(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with cancelled_by(self._gone):
                return work()

        return await self._workers.stream(guarded)

    def _is_quiet(self) -> bool:
        """Whether nothing was told for so long that a sign of life is due, which then is."""
        now = time.monotonic()
        if now - self._told_at < BEAT_SECONDS:
            return False
        self._told_at = now
        return True

    async def _sleep(self, seconds: float, stopping: Callable[[], bool]) -> None:
        if stopping():
            raise Unavailable(
                "the server stops", retry_after=1, hint="ask again: the position still holds"
            )
        if seconds > 0:
            await asyncio.sleep(min(seconds, _LONGEST_SLEEP))


def _heard(task: "asyncio.Task[Part | None]") -> None:
    # Whatever befell one that nobody waits for any more, the event loop need not complain of it.
    if not task.cancelled():
        task.exception()
