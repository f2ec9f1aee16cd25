"""What the server does under load: time limits, a bounded line, clients that hang up, signals."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from k2.api import Limits, Server, check_host, create_app
from k2.cli import main
from k2.errors import Broken, Refused, Unavailable
from k2.query import Answer, Reader
from k2.query.stopping import Watch
from tests.api.conftest import running
from tests.api.test_shape import check_error

LARGE = 150_000


class Faulty(Reader):
    """A stand-in that injects faults: queries that hang, and a reader that breaks."""

    def __init__(self) -> None:
        self.asked = 0
        self.stopped = 0
        self.counting = threading.Lock()
        self.watch = Watch()
        self.go_on = threading.Event()

    def records(self, kind: str, selection: Any, **more: Any) -> Answer:
        with self.counting:
            self.asked += 1
        if kind == "quotes":
            raise ValueError("a fault of K2")
        stopped = threading.Event()
        with self.watch.over(stopped.set, more["timeout"]):
            while not self.go_on.wait(0.005):
                if stopped.is_set():
                    with self.counting:
                        self.stopped += 1
                    raise Refused("late, or alone")
        return Answer(pa.table({"price": [1]}), {})

    def status(self) -> dict[str, object]:
        raise Unavailable("the log is away", retry_after=7, hint="start it")

    def stats(self, **more: Any) -> Answer:
        return Answer(pa.table({"rows": range(LARGE)}), {})

    def symbols(self, **more: Any) -> Answer:
        raise Broken("two rows at one offset", place="trades")

    def close(self) -> None:
        pass


LIMITS = Limits(query_seconds=1.5, threads=2, waiting=2)


@pytest.fixture
def faulty() -> Iterator[tuple[Faulty, httpx.Client]]:
    reader = Faulty()
    with running(reader, dict, limits=LIMITS, audit_seconds=None) as client:
        yield reader, client
        reader.go_on.set()


def test_a_query_has_a_time_limit(faulty: tuple[Faulty, httpx.Client]) -> None:
    _, client = faulty
    began = time.monotonic()
    response = client.get("/v1/trades")
    error = check_error(response, 503, "UNAVAILABLE")
    assert "1.5 seconds" in error["message"]
    assert error["hint"]
    assert response.headers["retry-after"] == "1"
    assert time.monotonic() - began < 5


def test_the_line_is_bounded_and_the_loop_stays_free(faulty: tuple[Faulty, httpx.Client]) -> None:
    reader, client = faulty
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(client.get, "/v1/trades") for _ in range(8)]
        while reader.asked < LIMITS.threads:
            time.sleep(0.005)
        assert client.get("/health/live").status_code == 200
        while sum(one.done() for one in asked) < 8 - LIMITS.threads - LIMITS.waiting:
            time.sleep(0.005)
        reader.go_on.set()
        statuses = sorted(one.result().status_code for one in asked)
    assert statuses.count(200) <= LIMITS.threads + LIMITS.waiting
    refused = [one.result() for one in asked if one.result().status_code == 429]
    assert len(refused) == 8 - statuses.count(200)
    for response in refused:
        check_error(response, 429, "RATE_LIMITED")
        assert response.headers["retry-after"] == "1"
    assert client.get("/v1/trades").status_code == 200, "the line is free again"


def test_who_hangs_up_leaves_the_line(faulty: tuple[Faulty, httpx.Client]) -> None:
    reader, client = faulty
    address = (client.base_url.host, client.base_url.port)
    callers = []
    for _ in range(LIMITS.threads + LIMITS.waiting):
        caller = socket.create_connection(address)
        caller.sendall(b"GET /v1/trades HTTP/1.1\r\nHost: localhost\r\n\r\n")
        callers.append(caller)
    while reader.asked < LIMITS.threads:
        time.sleep(0.005)
    began = time.monotonic()
    for caller in callers:
        caller.close()
    # Those that waited are asked no more, or stopped as soon as they are.
    while reader.stopped < reader.asked:
        time.sleep(0.005)
    assert time.monotonic() - began < LIMITS.query_seconds / 2, "not for being late"
    reader.go_on.set()
    assert client.get("/v1/trades").status_code == 200


def test_metrics_of_a_server_whose_log_is_away(faulty: tuple[Faulty, httpx.Client]) -> None:
    _, client = faulty
    assert client.get("/v1/status").status_code == 503
    text = client.get("/metrics").text
    assert "k2_ready 0.0" in text
    assert 'k2_http_requests_total{route="/v1/status",status="503"} 1.0' in text
    assert 'k2_audit_state{state="never"} 1.0' in text
    assert "k2_state{" not in text


def test_faults_have_the_shape_too(faulty: tuple[Faulty, httpx.Client]) -> None:
    _, client = faulty
    error = check_error(client.get("/v1/quotes"), 500, "BROKEN")
    assert "ValueError" not in str(error)
    assert check_error(client.get("/v1/symbols"), 500, "BROKEN")["place"] == "trades"
    response = client.get("/health/ready")
    assert check_error(response, 503, "UNAVAILABLE")["hint"] == "start it"
    assert response.headers["retry-after"] == "7"
    assert client.get("/health/live").status_code == 200


def test_a_body_of_a_hundred_megabytes_is_refused(faulty: tuple[Faulty, httpx.Client]) -> None:
    _, client = faulty
    began = time.monotonic()
    response = client.post("/v1/trades/query", content=b"x" * 100_000_000)
    check_error(response, 413, "PAYLOAD_TOO_LARGE")
    assert time.monotonic() - began < 20


def test_large_answers_stream_whole(faulty: tuple[Faulty, httpx.Client]) -> None:
    _, client = faulty
    for name in ("json", "ndjson", "csv", "arrow"):
        response = client.get("/v1/stats", params={"format": name})
        assert response.headers["transfer-encoding"] == "chunked"
        if name == "json":
            assert [row["rows"] for row in response.json()["data"]] == list(range(LARGE))
        elif name == "arrow":
            assert pa.ipc.open_stream(response.content).read_all().num_rows == LARGE
        else:
            assert response.text.count("\n") == LARGE + (name == "csv")
    with client.stream("GET", "/v1/stats") as cut:
        assert next(cut.iter_bytes())
    assert client.get("/health/live").status_code == 200


def test_an_audit_that_fails_is_told() -> None:
    def unavailable() -> dict[str, object]:
        raise Unavailable("the log is away")

    def broken() -> dict[str, object]:
        raise ValueError("a fault of K2")

    for audit, words in ((unavailable, "the log is away"), (broken, "the audit itself failed")):
        with running(Faulty(), audit, audit_seconds=0.05) as client:
            error = check_error(client.get("/v1/audit"), 503, "UNAVAILABLE")
            assert words in error["message"]


def test_a_body_that_grows_is_cut_off(faulty: tuple[Faulty, httpx.Client]) -> None:
    _, client = faulty

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1_000_000

    response = client.post("/v1/trades/query", content=parts())
    check_error(response, 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_only_loopback_is_served(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["--home", str(tmp_path / "home"), "serve", "--host", host]) == 1
    assert "open to everyone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_loopback_hosts_are_served() -> None:
    with pytest.raises(Refused, match="open to everyone"):
        check_host("")
    for host in ("127.0.0.1", "127.0.0.9", "::1", "localhost"):
        check_host(host)


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f":{port}: .*in use") as told:
            Server(create_app(Faulty(), dict, audit_seconds=None), "127.0.0.1", port)
    assert told.value.hint


@pytest.mark.slow
def test_sigterm_closes_the_server_cleanly(home: Path) -> None:
    command = [sys.executable, "-m", "k2", "--home", str(home), "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        _, url = process.stderr.readline().strip().split("K2 listens at ")
        assert httpx.get(f"{url}/health/ready", timeout=30).status_code == 200
        process.terminate()
        assert process.stderr.read() == ""
        assert process.wait(10) == 0
