"""The auditor: runs the audit now and then, one at a time, and remembers what it found."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from k2.errors import K2Error

Report = Mapping[str, object]
"""What an audit found, JSON-ready: `ok`, `partitions`, and what else it says."""

# An audit reads the log: it may take a twentieth of one core's time, and no more.
_REST: Final = 20


@dataclass(frozen=True)
class Found:
    """A finished audit: its report, or why there is none; when it ended; seconds it took."""

    report: Report | None
    error: str | None
    at: datetime
    seconds: float


def utc(when: datetime) -> str:
    """An instant as all answers spell it: UTC with microseconds and `Z`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Auditor:
    """Runs `audit` in a thread of its own. Any number may wait for the same run."""

    def __init__(self, audit: Callable[[], Report], clock: Callable[[], datetime]) -> None:
        self._audit = audit
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="k2-audit")
        self._running: asyncio.Future[Found] | None = None
        self.last: Found | None = None

    def state(self) -> dict[str, object]:
        """What the last audit found: `state` is ok, differs, failed or never; `at`, `seconds`."""
        last = self.last
        if last is None:
            return {"state": "never", "at": None, "seconds": None}
        state = "failed" if last.report is None else "ok" if last.report["ok"] else "differs"
        return {"state": state, "at": utc(last.at), "seconds": round(last.seconds, 3)}

    async def run(self) -> Found:
        """A finished audit that began after this call, or one that was running already."""
        if self._running is None:
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(self._thread, self._once)
            self._running.add_done_callback(self._ended)
        return await asyncio.shield(self._running)

    async def run_now_and_then(self, every_seconds: float) -> None:
        """Audit again and again: every so many seconds, and less often when it takes long."""
        while True:
            found = await self.run()
            await asyncio.sleep(max(every_seconds, _REST * found.seconds))

    def _once(self) -> Found:
        began = time.perf_counter()
        report, wrong = None, None
        try:
            report = self._audit()
        except K2Error as error:
            wrong = str(error)
        self.last = Found(report, wrong, self._clock(), time.perf_counter() - began)
        return self.last

    def _ended(self, _: object) -> None:
        self._running = None

    def close(self) -> None:
        """Wait for the audit that runs, if one does."""
        self._thread.shutdown(wait=True, cancel_futures=True)
