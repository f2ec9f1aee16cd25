"""Everything on one machine: which parts run, and when they can be used."""

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from k2.cli.supervise import Part
from k2.errors import Unavailable

_LOOK_SECONDS: Final = 0.1


def parts_of(home: Path, feeds: Sequence[str], host: str, port: int) -> list[Part]:
    """The parts of K2 on `home`: a process for each feed, the writer, the server.

    They end with this process, even if it is killed.
    """
    # A killed supervisor must not leave a writer or a server behind that nobody sees.
    k2 = (sys.executable, "-m", "k2", "--end-with", str(os.getpid()), "--home", str(home))
    numbered = [f"feed {n}" for n in range(1, len(feeds) + 1)] if len(feeds) > 1 else ["feed"]
    return [
        *(Part(name, (*k2, "feed", "--", url)) for name, url in zip(numbered, feeds, strict=False)),
        Part("writer", (*k2, "ingest")),
        Part("server", (*k2, "serve", "--host", host, "--port", str(port))),
    ]


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
