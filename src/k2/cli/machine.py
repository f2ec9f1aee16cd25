"""Everything on one machine: which parts run, and when they can be used."""

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from k2.cli.supervise import Part
from k2.errors import Unavailable
from k2.settings import Settings

_LOOK_SECONDS: Final = 0.1


def parts_of(settings: Settings, feeds: Sequence[str], port: int) -> list[Part]:
    """The parts of K2 as the settings have them: a process for each feed, the writers, the server,
    and what keeps the tables quick.

    The server listens at `port`. They end with this process, even if it is killed.
    """
    metrics = settings.metrics
    server = ("--host", settings.serve.host, "--port", str(port))
    return [
        *_numbered(settings.home, "feed", "feed", metrics.feed_port, [("--", f) for f in feeds]),
        *_numbered(settings.home, "writer", "ingest", metrics.ingest_port, [()] * settings.writers),
        Part("server", (*k2_program(settings.home), "serve", *server)),
        Part("maintenance", (*k2_program(settings.home), "maintain", "--follow")),
    ]


def k2_program(home: Path) -> tuple[str, ...]:
    """The start of a command line of K2's own, as a part that ends with this process."""
    # A killed supervisor must not leave a writer or a server behind that nobody sees.
    return (sys.executable, "-m", "k2", "--end-with", str(os.getpid()), "--home", str(home))


def _numbered(
    home: Path, name: str, command: str, port: int | None, arguments: Sequence[Sequence[str]]
) -> Iterator[Part]:
    """Parts that run the same command, each with metrics at the port after the one before."""
    for n, each in enumerate(arguments):
        # 0 is any port: there is no next one.
        metrics = () if port is None else ("--metrics-port", str(port + n if port else 0))
        called = f"{name} {n + 1}" if len(arguments) > 1 else name
        yield Part(called, (*k2_program(home), command, *metrics, *each))


def url_of(host: str, port: int) -> str:
    """The URL of the server."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def wait_until_ready(url: str, given_up: Callable[[float], bool]) -> bool:
    """Wait until the server at `url` can answer queries; False once `given_up` says so.

    `given_up` is asked again and again, with the seconds that it may take for its answer.
    """
    while not given_up(_LOOK_SECONDS):
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            # Not there yet, or there and not ready yet (503).
            continue
    return False


def check_port(host: str, port: int) -> None:
    """Raises `Unavailable` if another process listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise Unavailable(
            f"the server cannot listen there: {error.strerror}",
            place=url_of(host, port),
            hint="--port or K2_SERVE_PORT names another port",
        ) from error


def free_port(host: str, wanted: int) -> int:
    """`wanted`, or any port that is free if another process has that one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (wanted, 0):
        try:
            with socket.create_server((host, port), family=family) as found:
                return int(found.getsockname()[1])
        except OSError:
            continue
    return wanted
