"""Clocks and threads that are turned by hand: what a machine leaves to chance, a seed decides.

`Clock` stands still until it is told to go on. `Lazy` runs a commit when it is told to, or when
somebody waits for it: until then the writer reads on, or another one is faster.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from typing import Any, Final

_START: Final = datetime(2026, 1, 5, 23, 59, tzinfo=UTC)


class Clock:
    """A monotonic clock, and the time of day beside it, which may be set."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._off = timedelta(0)

    def seconds(self) -> float:
        """Monotonic."""
        return self._seconds

    def now(self) -> datetime:
        """The time of day, with a zone."""
        return _START + timedelta(seconds=self._seconds) + self._off

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += seconds

    def step(self, by: timedelta) -> None:
        """Set the time of day forward or back."""
        self._off += by


class _Job(Future[Any]):
    """A call that is made when it is asked for, in the thread that asks."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call: Callable[[], Any] | None = call

    def run(self) -> None:
        """Make the call, unless it was made."""
        call, self._call = self._call, None
        if call is None:
            return
        try:
            self.set_result(call())
        except Exception as error:  # noqa: BLE001 - whoever asks for the result gets it
            self.set_exception(error)

    def result(self, timeout: float | None = None) -> Any:
        """Of the call, which is made now if need be."""
        self.run()
        return super().result(timeout)


class Lazy(Executor):
    """An executor without threads. `around` is given each call, to make it."""

    def __init__(self, around: Callable[[Callable[[], Any]], Any]) -> None:
        self._around = around
        self._jobs: list[_Job] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Keep the call until `run`, or until somebody asks for its result."""
        job = _Job(lambda: self._around(lambda: fn(*args, **kwargs)))
        self._jobs.append(job)
        return job

    @property
    def waits(self) -> bool:
        """Whether there is a call that was not made yet."""
        return any(not job.done() for job in self._jobs)

    def run(self) -> None:
        """Make all calls that wait."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.run()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Make all calls that wait."""
        self.run()
