"""What a script does to a venue's messages and answers, and when.

Comes in: messages in their order and the time. Goes out: what is sent, whole, broken or not at
all. Pure: connections are the server's matter.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from k2.venues.port import Answer, Message
from k2.venues.script import Fault

_PATIENCE = 1_000_000
"""Microseconds that a message waits at most for others to change places with."""


class Sent(NamedTuple):
    """A message as it goes out: `whole`, `broken`, or `not` (numbered and never sent). `made` is
    when it was made, which may be long before.
    """

    message: Message
    made: int
    how: str = "whole"


@dataclass
class _Ends:
    """Until when each lasting fault lasts, in microseconds."""

    silence: int = 0
    slow: int = 0
    http: int = 0
    shut: int = 0
    clock: int = 0


class Faults:
    """The state of all faults of a script. Times are the true ones, in microseconds."""

    def __init__(self, script: Sequence[Fault]) -> None:
        self._timed = deque(sorted((f for f in script if f.at is not None), key=_at))
        self._numbered = deque(sorted((f for f in script if f.at is None), key=_number))
        self._begun: int | None = None
        self._messages = 0
        self._ends = _Ends()
        self._delay = 0
        self._http: Fault | None = None
        self._taking: dict[str, list[Fault]] = {}
        self._waiting: list[Sent] = []
        self._waiting_since = 0
        self._late: deque[tuple[int, Sent]] = deque()

    def begin(self, now: int) -> None:
        """A client follows something: from the first time on, seconds are counted."""
        if self._begun is None:
            self._begun = now

    def due(self, now: int) -> list[Fault]:
        """The faults that come now, each once."""
        found = []
        if self._begun is not None:
            passed = (now - self._begun) / 1_000_000
            while self._timed and _at(self._timed[0]) <= passed:
                found.append(self._timed.popleft())
        # A fault at message 5 is there before message 5 is.
        while self._numbered and _number(self._numbered[0]) <= self._messages + 1:
            if self._begun is None:
                break
            found.append(self._numbered.popleft())
        for fault in found:
            self._start(fault, now)
        return found

    def shut(self, now: int, seconds: float, *, all_of_it: bool = False) -> None:
        """Let no client in for so long; with `all_of_it` requests are answered with 503 too."""
        self._ends.shut = max(self._ends.shut, now + int(seconds * 1_000_000))
        if all_of_it:
            self._http = Fault("http", status=503, retry_after=max(1, round(seconds)))
            self._ends.http = self._ends.shut

    def is_shut(self, now: int) -> bool:
        """Whether no client is let in."""
        return now < self._ends.shut

    def is_silent(self, now: int) -> bool:
        """Whether nothing at all is said."""
        return now < self._ends.silence

    def clock_ended(self, now: int) -> bool:
        """Whether a clock that was off is right again."""
        return now >= self._ends.clock

    def http_answer(self, now: int) -> Answer | None:
        """What a request is answered with in place of the right answer, if so."""
        if self._http is None or now >= self._ends.http:
            return None
        status = self._http.status
        wait = {"Retry-After": str(self._http.retry_after)} if self._http.retry_after else {}
        if status >= 500:
            page = {**wait, "Content-Type": "text/html"}
            return Answer(f"<html><body><h1>{status}</h1></body></html>", status, page)
        return Answer('{"code":-1003,"msg":"Too many requests"}', status, wait)

    def takes(self, name: str) -> bool:
        """Whether a fault of that name takes the next answer or message; it takes one less then."""
        return self._take(name, None) is not None

    def shape(self, message: Message, now: int, *, lost: bool) -> list[Sent]:
        """What is sent now of a message that comes, and of those that waited for it."""
        self._messages += 1
        sent = [Sent(message, now, "not" if lost or self.is_silent(now) else "whole")]
        if sent[0].how == "whole":
            sent = self._changed(message, now)
        if now < self._ends.slow or self._late:
            # Whatever follows a late message waits behind it: lateness keeps the order.
            due = now + (self._delay if now < self._ends.slow else 0)
            due = max([due, *(when for when, _ in list(self._late)[-1:])])
            self._late.extend((due, each) for each in sent)
            return []
        return sent

    def released(self, now: int) -> list[Sent]:
        """What was late and is due by now."""
        found = []
        while self._late and self._late[0][0] <= now:
            found.append(self._late.popleft()[1])
        if self._waiting and now - self._waiting_since > _PATIENCE:
            found += self._waiting[::-1]
            self._waiting = []
        return found

    def _start(self, fault: Fault, now: int) -> None:
        end = now + int(fault.seconds * 1_000_000)
        if fault.fault == "silence":
            self._ends.silence = end
        elif fault.fault == "slow":
            self._ends.slow, self._delay = end, fault.milliseconds * 1_000
        elif fault.fault == "http":
            self._ends.http, self._http = end, fault
        elif fault.fault == "clock_off":
            self._ends.clock = end
        elif "count" in _taken(fault):
            self._taking.setdefault(fault.fault, []).append(fault)

    def _changed(self, message: Message, now: int) -> list[Sent]:
        if self._take("skip", message):
            return [Sent(message, now, "not")]
        if self._take("malformed", message):
            return [Sent(message, now, "broken")]
        if self._take("duplicate", message):
            return [Sent(message, now), Sent(message, now)]
        if (fault := self._take("reorder", message)) is not None:
            self._waiting_since = self._waiting_since if self._waiting else now
            self._waiting.append(Sent(message, now))
            if fault.count > 1:
                return []
            waited, self._waiting = self._waiting[::-1], []
            return waited
        return [Sent(message, now)]

    def _take(self, name: str, message: Message | None) -> Fault | None:
        """The first fault of that name that takes the message; it takes one less from then on."""
        for place, fault in enumerate(self._taking.get(name, ())):
            if message is None or message.kind == fault.kind:
                if fault.count > 1:
                    self._taking[name][place] = replace(fault, count=fault.count - 1)
                else:
                    del self._taking[name][place]
                return fault
        return None


def _taken(fault: Fault) -> tuple[str, ...]:
    """What is counted down by messages or answers: all that counts, but for what a floor counts."""
    if fault.fault == "stale_snapshot" or (fault.fault == "skip" and fault.lost):
        return ()
    return ("count",)


def _at(fault: Fault) -> float:
    return fault.at or 0.0


def _number(fault: Fault) -> int:
    return fault.at_message or 0
