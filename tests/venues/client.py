"""A client for tests: frames as parsed JSON with numbers kept as text, REST by httpx."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect


def parse(text: str | bytes) -> Any:
    """JSON with every number that has a point as an exact decimal."""
    return json.loads(text, parse_float=Decimal)


class Client:
    """One connection; `until` reads frames until one is what is asked for."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[Any] = []

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def next(self, seconds: float = 10) -> Any:
        frame = parse(self.connection.recv(timeout=seconds))
        self.seen.append(frame)
        return frame

    def until(self, wanted: Callable[[Any], object], seconds: float = 10) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            frame = self.next(max(0.01, end - time.monotonic()))
            if wanted(frame):
                return frame
        raise AssertionError(f"waited in vain; the last frames: {self.seen[-3:]}")

    def closed(self, seconds: float = 10) -> int | None:
        """Read until the venue closes; the code it closed with (1006: it just ended)."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.next(max(0.01, end - time.monotonic()))
        except ConnectionClosed:
            return self.connection.close_code
        raise AssertionError("it did not close")

    def some(self, wanted: Callable[[Any], object], count: int) -> list[Any]:
        return [self.until(wanted) for _ in range(count)]


def wait_until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@contextmanager
def following(url: str) -> Iterator[Client]:
    # Without a bound it reads on while the test does not: else closing waits ten seconds.
    with connect(url, compression=None, max_queue=None) as connection:
        yield Client(connection)


def door(url: str) -> int:
    """The status that a connection is answered with: 101 is let in."""
    try:
        with connect(url, compression=None, max_queue=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def get(url: str, **query: Any) -> httpx.Response:
    return httpx.get(url, params=query, timeout=10, verify=False)


def body(url: str, **query: Any) -> Any:
    answer = get(url, **query)
    assert answer.status_code == 200, answer.text
    return parse(answer.text)
