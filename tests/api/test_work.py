"""Quick questions do not wait behind those that read a lot."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pyarrow as pa
import pytest

from k2.api import Limits
from k2.query import Answer, Reader
from k2.query.weight import Heavy, at_most, weigh
from tests.api.conftest import running
from tests.api.test_shape import check_error

LIMITS = Limits(query_seconds=5, threads=2, light_rows=1_000, heavy_threads=1, waiting=4)


class Weighing(Reader):
    """A stand-in whose quotes are many, and take until they are let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)
        self.at_once, self.most = 0, 0

    def records(self, kind: str, selection: Any, **more: Any) -> Answer:
        if kind == "quotes":
            weigh(1_001)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.begun.release()
            self.go_on.wait(10)
            self.at_once -= 1
        else:
            weigh(1_000)
        return Answer(pa.table({"price": [1]}), {})

    def close(self) -> None:
        pass


@pytest.fixture
def weighing() -> Iterator[tuple[Weighing, httpx.Client]]:
    reader = Weighing()
    with running(reader, dict, limits=LIMITS, audit_seconds=None) as client:
        yield reader, client
        reader.go_on.set()


def test_what_reads_a_lot_has_its_own_line(weighing: tuple[Weighing, httpx.Client]) -> None:
    reader, client = weighing
    with ThreadPoolExecutor(4) as threads:
        # More of them than there are threads for all questions.
        large = [threads.submit(client.get, "/v1/quotes") for _ in range(4)]
        assert reader.begun.acquire(timeout=10)
        for _ in range(5):
            assert client.get("/v1/trades").status_code == 200
        assert not any(one.done() for one in large)
        reader.go_on.set()
        assert [one.result().status_code for one in large] == [200] * 4
    assert reader.most == 1


def test_what_waits_too_long_is_told(weighing: tuple[Weighing, httpx.Client]) -> None:
    _, client = weighing
    with ThreadPoolExecutor(2) as threads:
        for one in [threads.submit(client.get, "/v1/quotes") for _ in range(2)]:
            error = check_error(one.result(), 503, "UNAVAILABLE")
            assert "5 seconds" in error["message"]


def test_nothing_is_too_heavy_where_nobody_says_so() -> None:
    weigh(10**12)
    with at_most(5):
        weigh(5)
        with pytest.raises(Heavy):
            weigh(6)
    weigh(6)
