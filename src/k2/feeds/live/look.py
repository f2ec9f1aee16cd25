"""A look at a venue from outside: whether it lets us in, and whether its clock and ours agree."""

from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from k2.errors import Unavailable
from k2.log.causes import away

_SECONDS: Final = 5.0
_HALF_SECOND: Final = 0.5
"""A date of HTTP has whole seconds, cut: half of one is missing on the average."""


def reach(url: str) -> None:
    """Open a WebSocket at `url` and close it again. Raises `Unavailable`, saying why it cannot."""
    try:
        with connect(url, open_timeout=_SECONDS, close_timeout=1, compression=None):
            pass
    except (OSError, WebSocketException) as error:
        raise away("the venue", str(error) or type(error).__name__, url) from error


def ask_skew(rest: str, clock: Callable[[], datetime]) -> float:
    """Seconds that our clock is ahead (negative: behind) of a venue's, give or take half a second.

    `rest` is where its REST interface is; `clock` gives our time, with a zone. Raises
    `Unavailable`, saying why, where it does not answer.
    """
    try:
        began = clock()
        answer = httpx.get(rest, timeout=_SECONDS)
        ended = clock()
    except httpx.RequestError as error:
        raise away("the venue", str(error) or type(error).__name__, rest) from error
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError as error:
        raise Unavailable("what answers does not tell the time", place=rest) from error
    return (began + (ended - began) / 2 - theirs).total_seconds() - _HALF_SECOND
