"""Where blocking work is done: bounded pools of threads beside the event loop.

A question that turns out to read a lot moves to threads of its own, where it holds up its like
alone. Each piece of work has a deadline, counts while its thread runs (not only while its client
waits), and is told to stop when its client hangs up.
"""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from starlette.requests import Request

from k2.api.errors import HungUp, TooMany
from k2.errors import Refused, Unavailable
from k2.query import Heavy, at_most, cancelled_by

T = TypeVar("T")

# Most answers are ready sooner; only those that are not pay for watching their client.
_WATCH_AFTER: Final = 0.05
# What a query that obeys its time limit may take beyond it, to notice and to clean up.
_GRACE: Final = 1.0


@dataclass(frozen=True)
class Limits:
    """Bounds of the server: seconds a query may take, threads that work on questions, rows that
    these read at most, threads for those that read more, requests that wait, bytes of a request's
    body, streams that may be open, seconds that a client of one may take for an event.
    """

    query_seconds: float = 10.0
    threads: int = 4
    light_rows: int = 1_000_000
    heavy_threads: int = 2
    waiting: int = 128
    body_bytes: int = 1_000_000
    streams: int = 64
    stall_seconds: float = 30.0


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True)
class Leave:
    """What a piece of work may still take. `gone` is set when its client has hung up."""

    deadline: float
    gone: threading.Event

    @property
    def seconds(self) -> float:
        """Seconds left, at least a millisecond."""
        return max(0.001, self.deadline - time.monotonic())


class Workers:
    """Threads for blocking work, `limits.threads` of them, with a bounded line before them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="k2-query")
        self._heavy = ThreadPoolExecutor(limits.heavy_threads, thread_name_prefix="k2-heavy")
        # Of their own: streams without end must not hold up questions.
        self._streaming = ThreadPoolExecutor(limits.threads, thread_name_prefix="k2-stream")
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held(self) -> int:
        """Pieces of work that wait or run."""
        return self._held

    async def run(self, request: Request, work: Callable[[Leave], T]) -> T:
        """What `work` returns, done in a thread of the pool.

        Raises `TooMany` when the line is full, `Unavailable` when the time limit passes,
        `HungUp` when the client is gone, and whatever `work` raises.
        """
        leave = Leave(time.monotonic() + self.limits.query_seconds, threading.Event())

        def light(leave: Leave) -> T:
            with at_most(self.limits.light_rows):
                return work(leave)

        try:
            return await self._done(request, self._submit(self._threads, light, leave), leave)
        except Heavy:
            future = self._submit(self._heavy, work, leave, is_new=False)
            return await self._done(request, future, leave)

    async def _done(self, request: Request, running: "Future[T]", leave: Leave) -> T:
        """What the work returns, unless its time passes or its client goes first."""
        future = asyncio.wrap_future(running)
        done, _ = await asyncio.wait({future}, timeout=_WATCH_AFTER)
        if not done:
            await self._watch(request, future, leave)
        try:
            return await future
        except Refused as error:
            # The engine says "took too long" as a refusal; over HTTP that is a 503.
            if time.monotonic() < leave.deadline:
                raise
            raise self._late() from error

    async def step(self, work: Callable[[], T]) -> T:
        """What `work` returns, a short piece of a job that has waited in the line before."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def stream(self, work: Callable[[], T]) -> T:
        """What `work` returns, a piece of a stream."""
        return await asyncio.get_running_loop().run_in_executor(self._streaming, work)

    def _submit(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[[Leave], T],
        leave: Leave,
        *,
        is_new: bool = True,
    ) -> "Future[T]":
        """Have it done. One that has waited in the line before is let in though it is full."""
        with self._lock:
            if is_new and self._held >= self.limits.threads + self.limits.waiting:
                raise TooMany(
                    f"{self._held} requests are waiting or running already",
                    retry_after=1,
                    hint="try again in a moment, or ask for less at a time",
                )
            self._held += 1
        # With the request's context: the work is a step of its trace.
        context = contextvars.copy_context()
        future = threads.submit(context.run, self._begin, work, leave)
        future.add_done_callback(self._release)
        return future

    def _begin(self, work: Callable[[Leave], T], leave: Leave) -> T:
        with cancelled_by(leave.gone):
            return work(leave)

    def _release(self, _: object) -> None:
        with self._lock:
            self._held -= 1

    async def _watch(self, request: Request, future: "asyncio.Future[T]", leave: Leave) -> None:
        gone = asyncio.ensure_future(_hung_up(request))
        try:
            waited: set[asyncio.Future[Any]] = {future, gone}
            await asyncio.wait(
                waited,
                timeout=leave.seconds + _GRACE,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if future.done():
                return
            leave.gone.set()
            future.cancel()
            if gone.done():
                raise HungUp
            raise self._late()
        finally:
            gone.cancel()

    def _late(self) -> Unavailable:
        return Unavailable(
            f"the query took longer than {self.limits.query_seconds:g} seconds",
            retry_after=1,
            hint="ask for fewer symbols or a shorter range of time",
        )

    def close(self) -> None:
        """Let running work end; drop what has not begun."""
        for threads in (self._threads, self._heavy, self._streaming):
            threads.shutdown(wait=True, cancel_futures=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
