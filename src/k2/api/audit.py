"""The auditor: runs audits, one at a time, and remembers what the last one found.

Whole ones for who asks; those in between may go on from what was found sound before.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from k2.errors import K2Error

_log = logging.getLogger("k2.api")

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
    """Runs `audit` in a thread, one at a time; any number may wait for the same run. Now and then
    `going_on` is run instead, which need not read all again.
    """

    def __init__(
        self,
        audit: Callable[[], Report],
        clock: Callable[[], datetime],
        going_on: Callable[[], Report] | None = None,
    ) -> None:
        self._audit = audit
        self._going_on = going_on or audit
        self._clock = clock
        self._running: asyncio.Future[Found] | None = None
        self._is_whole = False
        self.last: Found | None = None

    def state(self) -> dict[str, object]:
        """What the last audit found: `state` is ok, differs, failed or never; `at`, `seconds`."""
        last = self.last
        if last is None:
            return {"state": "never", "at": None, "seconds": None}
        state = "failed" if last.report is None else "ok" if last.report["ok"] else "differs"
        return {"state": state, "at": utc(last.at), "seconds": round(last.seconds, 3)}

    async def run(self) -> Found:
        """A finished whole audit that began after this call, or one that was running already."""
        while self._running is not None and not self._is_whole:
            await asyncio.shield(self._running)
        return await self._run(self._audit, is_whole=True)

    async def _run(self, audit: Callable[[], Report], *, is_whole: bool) -> Found:
        if self._running is None:
            self._is_whole = is_whole
            loop = asyncio.get_running_loop()
            self._running = loop.create_future()
            # A daemon: an audit of a long log must not hold up the end of the server.
            given = (audit, loop, self._running)
            work = threading.Thread(target=self._work, args=given, daemon=True)
            work.start()
        return await asyncio.shield(self._running)

    async def run_now_and_then(self, every_seconds: float) -> None:
        """Audit again and again: every so many seconds, and less often when it takes long."""
        while True:
            found = await self._run(self._going_on, is_whole=False)
            await asyncio.sleep(max(every_seconds, _REST * found.seconds))

    def _work(
        self,
        audit: Callable[[], Report],
        loop: asyncio.AbstractEventLoop,
        running: "asyncio.Future[Found]",
    ) -> None:
        found = self._once(audit)
        with contextlib.suppress(RuntimeError):  # the server ended meanwhile
            loop.call_soon_threadsafe(self._end, running, found)

    def _once(self, audit: Callable[[], Report]) -> Found:
        began = time.perf_counter()
        report, wrong = None, None
        try:
            report = audit()
        except K2Error as error:
            wrong = str(error)
        except Exception:  # noqa: BLE001 - the outermost loop of this thread: tell, live on
            _log.exception("the audit failed")
            wrong = "the audit itself failed; the server's log has the cause"
        return Found(report, wrong, self._clock(), time.perf_counter() - began)

    def _end(self, running: "asyncio.Future[Found]", found: Found) -> None:
        self.last = found
        self._running = None
        running.set_result(found)
