"""One WebSocket connection: opened, subscribed, read in a thread of its own until it ends.

All that happens goes into the inbox, in order: its frames, that it is ready (everything asked for
is acknowledged), that it has ended and why. It never opens itself again: see `link.py`.
"""

import queue
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from k2.feeds.live.venue import Answer, Frame, Limits, Plan

MOST_WAITING: Final = 100_000
"""Frames that may wait for the reader; beyond, the venue is no longer read from."""

_OPEN_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 10.0
_PING_SECONDS: Final = 15.0
_CLOSE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.2
"""So often a connection looks whether it shall end."""
_LARGEST_FRAME: Final = 64 * 1024 * 1024
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Ready:
    """The venue has acknowledged everything that connection `number` asked for."""

    number: int


@dataclass(frozen=True)
class Ended:
    """Connection `number` is no more; `retry_after`: seconds that the venue asks to wait."""

    number: int
    reason: str
    retry_after: float = 0.0


Event = Frame | Ready | Ended
Inbox = queue.Queue[Event]


class _Failed(Exception):
    """The connection cannot be used; the text says why."""


class Connection:
    """A connection that was started. `close` may be called at any time, from any thread."""

    def __init__(
        self,
        number: int,
        plan: Plan,
        limits: Limits,
        answers: Callable[[bytes], Sequence[Answer]],
        clock: Callable[[], datetime],
        inbox: Inbox,
    ) -> None:
        self.number = number
        self.plan = plan
        self._limits = limits
        self._answers = answers
        self._clock = clock
        self._inbox = inbox
        self._closing = threading.Event()
        self._pending: set[str] = set()
        self._thread = threading.Thread(
            target=self._run, name=f"venue-connection-{number}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ask it to end; it goes by itself."""
        self._closing.set()

    def join(self) -> None:
        """Wait for its end, after `close`, for a few seconds at most."""
        self._thread.join(_OPEN_SECONDS + _CLOSE_SECONDS)

    def _run(self) -> None:
        retry_after = 0.0
        reason = "closed by K2"
        try:
            with connect(
                self.plan.url,
                open_timeout=_OPEN_SECONDS,
                close_timeout=_CLOSE_SECONDS,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PING_SECONDS,
                max_size=_LARGEST_FRAME,
                user_agent_header="k2",
            ) as socket:
                self._follow(socket)
        except _Failed as error:
            reason = str(error)
        except InvalidStatus as error:
            status, headers = error.response.status_code, error.response.headers
            reason = f"the venue answers {status} {error.response.reason_phrase}"
            retry_after = to_seconds(headers.get("Retry-After"), self._clock())
            if status in (418, 429):
                retry_after = retry_after or 60.0
        except ConnectionClosed as error:
            reason = f"the venue hung up: {error}"
        except (ssl.SSLError, OSError, WebSocketException) as error:
            # TimeoutError, a host that is not found, a certificate that is not trusted.
            reason = f"no connection to {self.plan.url}: {error or type(error).__name__}"
        self._put(Ended(self.number, reason, retry_after))

    def _follow(self, socket: ClientConnection) -> None:
        unsent = list(self.plan.requests)
        self._pending = {key for request in unsent for key in request.keys}
        began = heard = time.monotonic()
        send_at = began
        if not self._pending:
            self._put(Ready(self.number))
        while not self._closing.is_set():
            now = time.monotonic()
            if unsent and now >= send_at:
                socket.send(unsent.pop(0).text)
                began = now
                send_at = now + self._limits.between_messages
            wait = max(0.0, min(_LOOK_SECONDS, send_at - now)) if unsent else _LOOK_SECONDS
            try:
                # Undecoded: text that is no UTF-8 is one broken message, not a broken connection.
                text = socket.recv(timeout=wait, decode=False)
            except TimeoutError:
                self._check_silence(time.monotonic(), heard, began)
                continue
            heard = time.monotonic()
            self._put(Frame(self.number, to_micros(self._clock()), text))
            if self._pending:
                self._settle(text)
                self._check_silence(heard, heard, began)

    def _check_silence(self, now: float, heard: float, began: float) -> None:
        if self._pending and now - began > _ANSWER_SECONDS:
            raise _Failed(
                f"the venue did not answer subscription {', '.join(sorted(self._pending)[:3])}"
            )
        if self._limits.silence is not None and now - heard > self._limits.silence:
            raise _Failed(f"the venue is silent for {now - heard:.0f} s")

    def _settle(self, text: bytes) -> None:
        for answer in self._answers(text):
            if answer.refused is not None:
                raise _Failed(f"the venue refuses the subscription {answer.key}: {answer.refused}")
            self._pending.discard(answer.key)
        if not self._pending:
            self._put(Ready(self.number))

    def _put(self, event: Event) -> None:
        while True:
            try:
                self._inbox.put(event, timeout=_LOOK_SECONDS)
            except queue.Full:
                if self._closing.is_set():
                    return
            else:
                return


def to_micros(when: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (when - _EPOCH) // _MICROSECOND


def to_seconds(retry_after: str | None, now: datetime) -> float:
    """Seconds that a `Retry-After` header asks to wait: a number or a date; 0 without one."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds())
