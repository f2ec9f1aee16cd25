"""So many clients that ask one server over and over, in a process of their own.

`python -m bench.clients HOW CLIENTS SECONDS URL…` prints JSON: requests a second, p50 and p99 in
milliseconds, and how many were told to come again. Each client asks one URL after the other.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, cast
from urllib.parse import urlsplit

import numpy as np
import uvloop

How = Literal["each", "shared", "pool"]
"""A connection for each request, one for all clients, or a pool with one for each client."""

_BUSY: Final = (429, 503)


@dataclass(frozen=True)
class Asked:
    """Requests answered a second, milliseconds that they took, and how often one was put off.

    One that is put off waits as long as it was told and asks again: all of it is its time.
    """

    per_second: float
    p50: float
    p99: float
    put_off: int


def ask(how: How, clients: int, seconds: float, urls: Sequence[str]) -> Asked:
    """Let so many clients ask for so long. Raises `CalledProcessError` where an answer is wrong."""
    command = [sys.executable, "-m", "bench.clients", how, str(clients), str(seconds), *urls]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Asked(**json.loads(done.stdout))


class _Connection:
    """One connection to the server, for a client at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, *, keep: bool) -> tuple[int, float]:
        """Status of the answer, and the seconds after which to ask again (0 for an answer)."""
        async with self._lock:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._where)
            reader, writer = self._streams
            kept = "keep-alive" if keep else "close"
            head = f"GET {path} HTTP/1.1\r\nHost: {self._where[0]}\r\nConnection: {kept}\r\n\r\n"
            writer.write(head.encode())
            status, fields = _head(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(int(fields["content-length"]))
            if not keep:
                self.close()
            return status, float(fields.get("retry-after", 1)) if status in _BUSY else 0.0

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = head.decode().rstrip().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split()[1]), fields


async def _run(how: How, clients: int, seconds: float, urls: Sequence[str]) -> Asked:
    parts = [urlsplit(url) for url in urls]
    host, port = parts[0].hostname or "", parts[0].port or 80
    paths = [f"{part.path}?{part.query}" if part.query else part.path for part in parts]
    shared = _Connection(host, port)
    connections = [shared if how == "shared" else _Connection(host, port) for _ in range(clients)]
    took: list[float] = []
    put_off: list[int] = []
    for path in paths:
        # A first answer reads files that the later ones find read.
        await _answered(shared, path, keep=False)
    began = time.perf_counter()

    async def client(number: int) -> None:
        order = random.Random(number)
        while time.perf_counter() < began + seconds:
            start = time.perf_counter()
            path = order.choice(paths)
            put_off.append(await _answered(connections[number], path, keep=how != "each"))
            took.append(time.perf_counter() - start)

    await asyncio.gather(*(client(number) for number in range(clients)))
    rate = len(took) / (time.perf_counter() - began)
    for connection in connections:
        connection.close()
    p50, p99 = np.percentile(took, [50, 99])
    return Asked(rate, float(p50) * 1e3, float(p99) * 1e3, sum(put_off))


async def _answered(connection: _Connection, path: str, *, keep: bool) -> int:
    """Ask until there is an answer; how often it was put off."""
    put_off = 0
    while True:
        status, wait = await connection.get(path, keep=keep)
        if status == 200:
            return put_off
        if not wait:
            raise AssertionError(f"{path} was answered with {status}")
        put_off += 1
        await asyncio.sleep(wait)


if __name__ == "__main__":
    _how, _clients, _seconds, *_urls = sys.argv[1:]
    assert _how in ("each", "shared", "pool")
    _found = uvloop.run(_run(cast(How, _how), int(_clients), float(_seconds), _urls))
    sys.stdout.write(json.dumps(asdict(_found)))
