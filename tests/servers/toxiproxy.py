"""Network faults between a client and a server, without root: Toxiproxy."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers.install import place

from tests.servers.process import Server, free_port, listens


class Toxiproxy(Server):
    """The proxy server; each route through it is a `Proxy`."""

    def __init__(self, folder: Path) -> None:
        super().__init__("toxiproxy", folder)
        self._port = free_port()

    def start(self) -> None:
        """Start it; it knows no routes yet."""
        command = [str(place("toxiproxy") / "toxiproxy"), "-host", "127.0.0.1"]
        self._spawn([*command, "-port", str(self._port)], {"LOG_LEVEL": "warn"})
        self._wait(lambda: listens(self._port))

    def route(self, name: str, upstream: str, listen: str | None = None) -> "Proxy":
        """A way to `upstream` (HOST:PORT), without faults yet; `listen` is where it begins."""
        listen = listen or f"127.0.0.1:{free_port()}"
        self.ask("POST", "/proxies", {"name": name, "listen": listen, "upstream": upstream})
        return Proxy(self, name, listen)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        """One request to the server's own interface."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            json.dumps(body).encode() if body is not None else None,
            {"Content-Type": "application/json", "User-Agent": "tests"},
            method=method,
        )
        urllib.request.urlopen(request, timeout=10).close()


class Proxy:
    """One route: `address` is where clients connect."""

    def __init__(self, server: Toxiproxy, name: str, address: str) -> None:
        self._server = server
        self._name = name
        self.address = address

    def cut(self) -> None:
        """Close every connection and accept no more."""
        self._server.ask("POST", f"/proxies/{self._name}", {"enabled": False})

    def mend(self) -> None:
        """Accept connections again."""
        self._server.ask("POST", f"/proxies/{self._name}", {"enabled": True})

    @contextmanager
    def fault(self, kind: str, stream: str = "downstream", **attributes: int) -> Iterator[None]:
        """Have a fault for a while: `latency` (latency=ms), `timeout` (timeout=0: silence) …

        `downstream` is from the server to the client, `upstream` the other way.
        """
        toxic = {"name": f"{kind}-{stream}", "type": kind, "stream": stream, "toxicity": 1.0}
        path = f"/proxies/{self._name}/toxics"
        self._server.ask("POST", path, {**toxic, "attributes": attributes})
        try:
            yield
        finally:
            self._server.ask("DELETE", f"{path}/{toxic['name']}")
