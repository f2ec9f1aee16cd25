"""The HTTP interface: an application over a reader, and the server that runs it.

A handler checks what is asked, has a worker thread ask the reader, and sends the encoded answer.
"""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from k2.api import (
    aggregations,
    bars,
    bbo,
    corrections,
    diff,
    errors,
    explain,
    export,
    health,
    join,
    ledgers,
    measures,
    pages,
    pins,
    records,
    replay,
    shapes,
    snapshots,
    stream,
    summary,
    symbols,
)
from k2.api.answers import Desk, Entry
from k2.api.audit import Auditor, Report
from k2.api.edge import Edge
from k2.api.metrics import Metrics
from k2.api.reading import Seats
from k2.api.work import DEFAULT_LIMITS, Limits, Workers
from k2.errors import Refused, Unavailable
from k2.query import Reader


def now() -> datetime:
    """The clock that a server runs by."""
    return datetime.now(UTC)


def create_app(
    reader: Reader,
    auditing: Callable[[], Report],
    *,
    limits: Limits = DEFAULT_LIMITS,
    clock: Callable[[], datetime] = now,
    going_on: Callable[[], Report] | None = None,
    audit_seconds: float | None = 30.0,
    entry: Entry | None = None,
) -> FastAPI:
    """The application over `reader`, which stays the caller's to close.

    `auditing` makes a whole audit, in a thread, when one is asked for; `going_on` (else the same)
    one every `audit_seconds`, never where that is None. `entry` is the way in for corrections;
    without it none are taken.
    """
    metrics = Metrics()
    workers = Workers(limits)
    auditor = Auditor(auditing, clock, going_on)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        again = None
        if audit_seconds is not None:
            again = asyncio.create_task(auditor.run_now_and_then(audit_seconds))
        yield
        if again is not None:
            again.cancel()
        await asyncio.to_thread(workers.close)

    app = FastAPI(
        title="K2",
        version="1",
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
    )
    app.state.desk = Desk(reader, workers, auditor, clock, metrics, entry, Seats(limits.streams))
    app.state.stopping = lambda: False
    for resource in _RESOURCES:
        app.include_router(resource.router)
    app.include_router(pages.router)
    errors.install(app)
    app.add_middleware(
        Edge,
        body_bytes=limits.body_bytes,
        requests=metrics.requests,
        seconds=metrics.seconds,
    )
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not described:
            described.update(_describe(app))
        return described

    app.openapi = openapi  # type: ignore[method-assign]
    return app


_RESOURCES = (
    *(records, export, bbo, corrections, join, measures, bars, aggregations, summary),
    *(replay, stream, symbols, snapshots, explain, diff, pins, ledgers, health),
)
"""In the order of the reference."""

_ABOUT = """Trades, quotes and bars over history and tail, as of now or of any past state.

Answers come as `{"success": true, "data": [...], "meta": {...}, "pagination": {...}}`, or as
NDJSON, CSV, Arrow or Parquet by `Accept` or `?format=`. Prices and quantities are exact decimals:
strings in JSON. Times are UTC with microseconds; ranges are half-open, `[start_time, end_time)`.
"""


def _describe(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    found.setdefault("components", {})["schemas"] = dict(shapes.SCHEMAS)
    return found


class Server:
    """A server on a port of this machine. Open it, run it, or run it in a thread and stop it."""

    def __init__(self, app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> None:
        """Takes the port (a free one for 0), so that connecting works from here on.

        Raises `Refused` for a host that others can reach, `Unavailable` for a port that is taken.
        """
        check_host(host)
        self._socket = _listen(host, port)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                # Sends its own signs of life, which must not end a client that is slow to read.
                ws="websockets-sansio",
                ws_ping_interval=None,
                ws_max_size=1 << 16,
                ws_per_message_deflate=False,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        app.state.stopping = lambda: self._server.should_exit

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `stop`; connections are closed before it returns."""
        with _quiet_signals():
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Have `run` return, from any thread."""
        self._server.should_exit = True


def check_host(host: str) -> None:
    """Raises `Refused` unless only this machine can reach `host`."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Refused(
            f"the server would be open to everyone who can reach {host}",
            place="--host",
            found=host,
            expected="127.0.0.1, ::1 or localhost",
            hint="listen on loopback, and put a proxy that knows its users in front",
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise Unavailable(
            f"the server cannot listen there: {getattr(error, 'strerror', None) or error}",
            place=f"{host}:{port}",
            hint="another server may hold it: --port or K2_SERVE_PORT names another",
        ) from error


@contextlib.contextmanager
def _quiet_signals() -> Iterator[None]:
    # uvicorn stops at SIGINT and SIGTERM and then raises them once more: the process would die
    # before its reader is closed, or with a traceback.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    before = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
