"""Requests a second through HTTP, by how clients connect and how many there are; a mixture of
questions of 100 clients at once; and the memory of the server over all of it.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from bench.clients import Asked, How, ask
from bench.home import folder, k2, settled
from bench.lines import Aim, Line, show_lines
from bench.market import DAYS, SYMBOLS
from bench.memory import memory_of
from k2.cli.machine import free_port, wait_until_ready

CLIENTS: Final = 16
MANY: Final = 100
_DAY = f"start_time={DAYS[2]}&end_time={DAYS[2] + timedelta(days=1)}"
_NOON = f"{DAYS[2]}T12:00:00Z"
PATHS: Final = {
    "last 100 trades": f"/v1/trades?symbol={SYMBOLS[0]}&last=100",
    "1-min bars of a day": f"/v1/bars/1m?symbol={SYMBOLS[0]}&{_DAY}",
    "summary of a day": f"/v1/summary/{SYMBOLS[0]}/{DAYS[2]}",
    "health": "/health/live",
}
MIXED: Final = (
    *(f"/v1/trades?symbol={name}&last=100" for name in SYMBOLS[:8]),
    *(f"/v1/quotes?symbol={name}&last=100" for name in SYMBOLS[:4]),
    *(f"/v1/trades?symbol={name}&start_time={_NOON}&limit=1000" for name in SYMBOLS[:4]),
    *(f"/v1/bars/1m?symbol={name}&{_DAY}" for name in SYMBOLS[:4]),
    *(f"/v1/summary/{name}/{DAYS[2]}" for name in SYMBOLS[:4]),
    "/v1/symbols",
)
_WAYS: Final[dict[How, str]] = {
    "each": "a connection a request",
    "shared": "one connection",
    "pool": "a pool",
}
_AIMS: Final[Mapping[tuple[How, int], tuple[Aim, ...]]] = {
    ("pool", CLIENTS): (Aim("figure", least=1_000), Aim("ratio", least=1.0)),
    ("pool", MANY): (Aim("ratio", least=1.0),),
}
"""A connection that is kept is no slower than one made anew, and clients keep two cores busy."""
_MEMORY_AIM: Final = 1_024
_LOOK_SECONDS: Final = 0.25


def run(*, quick: bool = False, rows: int | None = None) -> None:
    """Serve tables of a million rows and ask."""
    with folder("serving") as home:
        settled(home, rows or (100_000 if quick else 1_000_000))
        show_lines("Serving", measure(home, 0.3 if quick else 5.0))


def measure(home: Path, seconds: float) -> list[Line]:
    """Lines of requests a second, each asked for so long, of latency, and of memory."""
    lines: list[Line] = []
    with server(home) as (url, process), watched(process) as most:
        for clients in (1, CLIENTS, MANY):
            lines += _ways(url, clients, seconds)
        for name, path in PATHS.items():
            found = ask("pool", CLIENTS, seconds, [url + path])
            lines.append(_rate(f"{name}, {CLIENTS} clients", found))
        lines += _mixed("mixed questions", url, seconds)
    with server(home, {"K2_ANSWERS_MEMORY": "0"}) as (url, _):
        lines += _mixed("mixed, no answers kept", url, seconds)
    aim = Aim("figure", most=_MEMORY_AIM)
    lines.append(Line("memory of the server at most", most[0] / 2**20, unit="MiB", aims=(aim,)))
    return lines


def _ways(url: str, clients: int, seconds: float) -> Iterator[Line]:
    """The last trades, by how so many clients connect, beside a connection a request."""
    base: float | None = None
    for how, called in _WAYS.items():
        found = ask(how, clients, seconds, [url + PATHS["last 100 trades"]])
        who = "1 client" if clients == 1 else f"{clients} clients"
        beside = None if base is None else (_WAYS["each"], base)
        base = base or found.per_second
        yield _rate(
            f"last 100 trades, {who}, {called}", found, beside, _AIMS.get((how, clients), ())
        )


def _rate(
    what: str,
    found: Asked,
    beside: tuple[str, float] | None = None,
    aims: tuple[Aim, ...] = (),
) -> Line:
    return Line(what, found.per_second, unit="requests/s", beside=beside, aims=aims)


def _mixed(what: str, url: str, seconds: float) -> list[Line]:
    """Many clients at once, each with one question after another, drawn from a mixture."""
    found = ask("pool", MANY, 2 * seconds, [url + path for path in MIXED])
    late = f"{what}, {MANY} clients at once ({found.put_off:,} put off)"
    return [
        _rate(f"{what}, {MANY} clients", found),
        Line(late, found.p50, found.p99, aims=(Aim("p99", most=500),)),
    ]


@contextmanager
def server(home: Path, environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """A server that is ready: its URL and its process."""
    port = free_port("127.0.0.1", 8642)
    url = f"http://127.0.0.1:{port}"
    with k2(home, "serve", "--port", str(port), environment=environment or {}) as process:
        wait_until_ready(url, threading.Event().wait)
        yield url, process.pid


@contextmanager
def watched(process: int) -> Iterator[list[int]]:
    """The most bytes that a process and its children hold at once meanwhile, as the only item."""
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            most[0] = max(most[0], sum(memory_of(process).values()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()
