"""Streams over HTTP: server-sent events and WebSockets, resumed, stalled and left."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from k2.api import Limits, Server, create_app
from k2.query import Reader, Selection, open_reader
from tests.api.conftest import audit_of, fill
from tests.api.test_shape import check_error

ALL = "end_time=2030-01-01T00:00:00Z"
Found = dict[str, Any]


def events(response: httpx.Response) -> Iterator[Found]:
    """The events of a stream, as they come."""
    found: Found = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        elif found:
            if "event" in found:
                yield {**found, **json.loads(found["data"])}
            found = {}


@contextmanager
def stream(client: httpx.Client, query: str, **headers: str) -> Iterator[Iterator[Found]]:
    with client.stream("GET", f"/v1/stream?{query}", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield events(response)


def everything(client: httpx.Client, *kinds: str) -> list[Found]:
    """All records, page by page."""
    rows: list[Found] = []
    body: Found = {"kinds": list(kinds), "batch_size": 1_700}
    while True:
        page = client.post("/v1/replay", json=body).json()
        rows += page["data"]
        body["after"] = page["pagination"]["next"]
        if body["after"] is None:
            return rows


def test_pages_are_the_records_in_order(client: httpx.Client, reader: Reader) -> None:
    rows = everything(client, "trades", "quotes")
    counted = sum(reader.stats().table["rows"].to_pylist()[:2])
    assert len(rows) >= counted > 5_000
    times = [row["timestamp"] for row in rows]
    assert times == sorted(times)
    trades = client.post("/v1/trades/query", json={"limit": 100_000}).json()["data"]
    mine = [row for row in rows if row["kind"] == "trades"]
    assert [{name: row[name] for name in trades[0]} for row in mine] == trades


def test_a_page_says_when_it_is_due(client: httpx.Client) -> None:
    body: Found = {"kinds": ["quotes"], "batch_size": 50, "speed": "10"}
    first = client.post("/v1/replay", json=body).json()
    assert first["meta"]["replay"]["due_seconds"] == 0
    second = client.post("/v1/replay", json={**body, "after": first["pagination"]["next"]}).json()
    told = second["meta"]["replay"]
    assert told["speed"] == 10
    assert told["origin"] == first["meta"]["replay"]["origin"]
    assert 0 < told["due_seconds"] < 10
    # The position before a page gives that page again.
    again = client.post("/v1/replay", json={**body, "after": told["position"]}).json()
    assert again["data"] == second["data"]


@pytest.mark.parametrize(
    "body",
    [{"kinds": []}, {"kinds": ["bars"]}, {"speed": "0"}, {"speed": 10}, {"batch_size": 0},
     {"after": "x"}, {"start_time": "2026-01-06", "end_time": "2026-01-05"}, {"limit": 5}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_replayed(client: httpx.Client, body: Found) -> None:
    check_error(client.post("/v1/replay", json=body), 422, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "query",
    ["kinds=bars", "speed=0", "speed=fast", "batch_size=0", "batch_size=x", "after=x", "lmit=5",
     "start_time=2026-01-06&end_time=2026-01-05", "start_time=yesterday"],
)  # fmt: skip
def test_what_cannot_be_streamed(client: httpx.Client, query: str) -> None:
    check_error(client.get(f"/v1/stream?{query}"), 422, "VALIDATION_ERROR")
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/stream"))
    with connect(f"{url}?{query}") as ws:
        told = json.loads(ws.recv(timeout=10))
        assert told["event"] == "error"
        assert told["error"]["code"] == "VALIDATION_ERROR"
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=10)
        assert ws.close_code == 1008


def test_a_stream_is_what_the_pages_are(client: httpx.Client) -> None:
    with stream(client, f"{ALL}&kinds=trades&kinds=quotes&batch_size=700") as found:
        told = list(found)
    assert [one["event"] for one in told[:2]] == ["open", "records"]
    assert told[-1]["event"] == "end"
    parts = [one["records"] for one in told[1:-1]]
    assert max(map(len, parts)) == 700
    rows = [row for part in parts for row in part]
    assert rows == everything(client, "trades", "quotes")
    # Whoever connects again after the end is told that there is no more.
    last = told[-1]["id"]
    url = f"/v1/stream?{ALL}&kinds=trades&kinds=quotes"
    assert client.get(url, headers={"Last-Event-ID": last}).status_code == 204


def test_a_stream_goes_on_behind_the_last_event(client: httpx.Client) -> None:
    query = f"{ALL}&kinds=trades&batch_size=500"
    rows: list[Found] = []
    seen = ""
    for step in range(100):
        headers = {"Last-Event-ID": seen} if step % 2 else {}
        after = "" if step % 2 or not seen else f"&after={seen}"
        with client.stream("GET", f"/v1/stream?{query}{after}", headers=headers) as response:
            if response.status_code == 204:
                break
            # Three events, then the connection breaks.
            for one, _ in zip(events(response), range(3), strict=False):
                rows += one.get("records", [])
                seen = one["id"]
    assert rows == everything(client, "trades")


def test_a_web_socket_gives_the_same(client: httpx.Client) -> None:
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/stream"))
    rows: list[Found] = []
    with connect(f"{url}?{ALL}&kinds=quotes&batch_size=900", max_size=1 << 24) as ws:
        told = [json.loads(message) for message in ws]
    assert ws.close_code == 1000
    assert [told[0]["event"], told[-1]["event"]] == ["open", "end"]
    rows = [row for one in told for row in one.get("records", [])]
    assert rows == everything(client, "quotes")
    middle = told[2]["position"]
    rest = f"{url}?{ALL}&kinds=quotes&after={middle}"
    with connect(rest, max_size=1 << 24) as ws:
        others = [row for message in ws for row in json.loads(message).get("records", [])]
    assert [*told[1]["records"], *told[2]["records"], *others] == rows


def test_pages_of_other_places_are_kept_out(client: httpx.Client) -> None:
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/stream"))
    for origin in ("http://elsewhere.example", "null", "http://127.0.0.1:1", "http://localhost"):
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, origin=Origin(origin))
    here = (client.base_url.host, client.base_url.port or 80)
    with socket.create_connection(here) as rebound:
        rebound.sendall(
            b"GET /v1/stream HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        assert rebound.recv(4_096).startswith(b"HTTP/1.1 403 ")
    host = f"{client.base_url.host}:{client.base_url.port}"
    with connect(url, origin=Origin(f"http://{host}")) as ws:
        assert json.loads(ws.recv(timeout=10))["event"] == "open"


# --- live


@dataclass(frozen=True)
class Live:
    """A server over a home that records come into."""

    client: httpx.Client
    home: Path
    reader: Reader
    server: Server

    def url(self, query: str) -> str:
        return str(self.client.base_url.copy_with(scheme="ws", path="/v1/stream")) + f"?{query}"

    def ids(self, kind: str) -> list[str]:
        """What tells each record from the others, of all there are now."""
        rows = self.reader.records(kind, Selection()).table.to_pylist()
        return sorted(one_of({**row, "kind": kind}) for row in rows)


def one_of(row: Found) -> str:
    """What tells a record from all others."""
    number = row["trade_id"] if row["kind"] == "trades" else row["source_sequence"]
    return f"{row['kind']} {row['symbol']} {number}"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    fill(tmp_path, 3_000, commit=True)
    limits = Limits(streams=3, stall_seconds=0.5)
    with open_reader(tmp_path, follow=True) as reader:
        server = Server(create_app(reader, audit_of(tmp_path), audit_seconds=None, limits=limits))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                yield Live(client, tmp_path, reader, server)
        finally:
            server.stop()
            thread.join()


@contextmanager
def market_going_on(home: Path, end: int) -> Iterator[None]:
    """A feed that appends up to `end` records and a writer that commits them, meanwhile."""
    failed: list[BaseException] = []

    def go_on() -> None:
        try:
            for count in range(3_100, end + 1, 100):
                fill(home, count, commit=count % 300 == 0)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert failed == []


@pytest.mark.parametrize("batch", [20, 1_000])
def test_history_becomes_live_without_a_seam(live: Live, batch: int) -> None:
    query = f"start_time=2026-01-01T00:00:00Z&kinds=trades&kinds=quotes&batch_size={batch}"
    rows: list[Found] = []
    ways = {"live": 0, "read": 0}
    with market_going_on(live.home, 5_000), stream(live.client, query) as found:
        for one in found:
            fresh = one.get("records", [])
            assert len(fresh) <= batch
            rows += fresh
            ways["live" if one.get("live") else "read"] += len(fresh)
            if len(rows) >= 4_900:
                break
    last = one["id"]
    # Go on where the connection broke, until there is nothing new.
    with connect(live.url(f"{query}&after={last}"), max_size=1 << 24) as ws:
        for count in (5_000, 5_002):
            fill(live.home, count, commit=True)
            expected = sorted(live.ids("trades") + live.ids("quotes"))
            while len(rows) < len(expected):
                rows += json.loads(ws.recv(timeout=10)).get("records", [])
    assert sorted(map(one_of, rows)) == expected
    assert ways["read"] >= 2_900


def test_without_a_start_only_what_arrives_is_told(live: Live) -> None:
    before = set(live.ids("trades"))
    with connect(live.url("kinds=trades"), max_size=1 << 24) as ws:
        opened = json.loads(ws.recv(timeout=10))
        assert opened["event"] == "open"
        fill(live.home, 3_200, commit=False)
        told = json.loads(ws.recv(timeout=10))
        assert told["live"] is True
        mine = {one_of(row) for row in told["records"]}
        assert mine == set(live.ids("trades")) - before
    # Nothing had been told yet at the first position: what came meanwhile comes at once.
    with connect(live.url(f"kinds=trades&after={opened['position']}"), max_size=1 << 24) as ws:
        ws.recv(timeout=10)
        again = json.loads(ws.recv(timeout=10))
        assert {one_of(row) for row in again["records"]} == mine


def test_a_symbol_alone(live: Live) -> None:
    symbol = live.reader.symbols().table["symbol"][1].as_py()
    query = f"symbols={symbol}&start_time=2026-01-01T00:00:00Z&batch_size=5000"
    with stream(live.client, query) as found:
        next(found)
        rows = next(found)["records"]
        fill(live.home, 3_400, commit=True)
        rows += next(found)["records"]
    wanted = live.reader.records("trades", Selection((symbol,))).table
    assert sorted(row["trade_id"] for row in rows) == sorted(wanted["trade_id"].to_pylist())


def test_a_client_that_does_not_read_is_told_and_goes_on_exactly(live: Live) -> None:
    fill(live.home, 40_000, commit=True)
    query = f"{ALL}&kinds=trades&kinds=quotes&batch_size=500"
    here = (live.client.base_url.host, live.client.base_url.port or 80)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.settimeout(10)
    with raw:
        raw.connect(here)
        raw.sendall(f"GET /v1/stream?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        # More than half a second: the server stops giving, and says so once something is read.
        time.sleep(1.0)
        taken = bytearray()
        while b"event: error" not in taken:
            part = raw.recv(1 << 16)
            assert part, "the stream ended without a word"
            taken += part
    text = taken.decode("utf-8", "replace")
    rows: list[Found] = []
    told: Found = {}
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if fields.get("event") == "records":
            rows += json.loads(fields["data"])["records"]
        told = fields if "event" in fields else told
    assert told["event"] == "error"
    assert "too slowly" in told["data"]
    assert 0 < len(rows) < 39_000
    with stream(live.client, f"{query}&after={told['id']}") as found:
        rest = [row for one in found for row in one.get("records", [])]
    assert rows + rest == everything(live.client, "trades", "quotes")


def test_a_web_socket_that_does_not_read_is_told_and_closed(live: Live) -> None:
    fill(live.home, 40_000, commit=True)
    query = f"{ALL}&kinds=trades&kinds=quotes&batch_size=500"
    # It buffers one message and stops reading its connection.
    with connect(live.url(query), max_size=1 << 24, max_queue=1) as ws:
        rows = json.loads(ws.recv(timeout=10)).get("records", [])
        time.sleep(1.0)
        told: Found = {}
        with suppress(ConnectionClosed):
            while True:
                told = json.loads(ws.recv(timeout=10))
                rows += told.get("records", [])
        assert ws.close_code == 1008
    assert told["event"] == "error"
    assert 0 < len(rows) < 39_000
    with connect(live.url(f"{query}&after={told['position']}"), max_size=1 << 24) as ws:
        rest = [row for message in ws for row in json.loads(message).get("records", [])]
    assert rows + rest == everything(live.client, "trades", "quotes")


def test_one_that_leaves_is_let_go_at_once(live: Live) -> None:
    for _ in range(6):
        with connect(live.url("kinds=trades")) as ws, stream(live.client, "") as found:
            assert json.loads(ws.recv(timeout=10))["event"] == "open"
            assert next(found)["event"] == "open"
        # Three places and twelve streams: each is free again soon.
        deadline = time.monotonic() + 5
        while live.client.get("/health/live").status_code != 200:
            assert time.monotonic() < deadline
        time.sleep(0.1)
    with (
        connect(live.url("")) as one,
        connect(live.url("")) as two,
        connect(live.url("")) as three,
    ):
        for ws in (one, two, three):
            assert json.loads(ws.recv(timeout=10))["event"] == "open"
        check_error(live.client.get("/v1/stream"), 429, "RATE_LIMITED")
        with connect(live.url("")) as four:
            assert json.loads(four.recv(timeout=10))["error"]["code"] == "RATE_LIMITED"


def test_a_server_that_stops_tells_its_streams(live: Live) -> None:
    with connect(live.url("")) as ws, stream(live.client, "") as found:
        assert json.loads(ws.recv(timeout=10))["event"] == "open"
        opened = next(found)
        live.server.stop()
        told = next(found)
        assert told["event"] == "error"
        assert told["error"]["code"] == "UNAVAILABLE"
        assert told["id"] == opened["id"]
        with suppress(ConnectionClosed):
            for _ in range(10):
                ws.recv(timeout=10)
        assert ws.close_code in (1012, 1013)
