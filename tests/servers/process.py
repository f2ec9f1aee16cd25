"""A real server as a process of this test session: started, killed, frozen, stopped; its ports."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 30.0
_JAVA_LEAST: Final = 17
_FAST: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# Below the range from which systems take the ports of outgoing connections: the port of a server
# that is down for a moment must still be free when it starts again.
_PORTS: Final = range(20_000, 32_000)
_random = random.Random(os.getpid() * 1_000_003 + time.time_ns())


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    while True:
        port = _random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@cache
def java() -> str | None:
    """Path of a Java that is new enough (17); None where there is none."""
    home = os.environ.get("JAVA_HOME")
    for path in (shutil.which("java", path=f"{home}/bin") if home else None, shutil.which("java")):
        if path and int(_java_version(path).partition(".")[0]) >= _JAVA_LEAST:
            return path
    return None


@cache
def _java_version(path: str) -> str:
    told = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "([\d.]+)', told)
    return found[1] if found else "0"


def java_command(heap: str, archive: Path | None, *, write: bool = False) -> list[str]:
    """The start of a command line: quick to start, its classes from `archive` if that is given.

    With `write` the archive is written when the process ends.
    """
    path = java()
    assert path is not None
    command = [path, f"-Xmx{heap}", *_FAST]
    if archive is not None:
        option = "ArchiveClassesAtExit" if write else "SharedArchiveFile"
        command += [f"-XX:{option}={archive}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
    return command


def class_archive(folder: Path, train: Callable[[Path], None]) -> Path:
    """The archive of a server's classes beside its installation, made if there is none.

    `train(path)` runs the server so that it writes the archive to `path`. Halves the time that
    each later start takes; an archive serves only the very Java that wrote it.
    """
    path = java()
    assert path is not None
    archive = folder / f"classes-{_java_version(path)}.jsa"
    if not archive.exists():
        # Several sessions may train at once: each archive is whole, and the last one stays.
        written = folder / f".{os.getpid()}.jsa"
        train(written)
        written.replace(archive)
    return archive


class Server:
    """A process with a port on the loopback address. Whoever makes it calls `stop` or `kill`.

    It can be started again after either, at the same port, with what it kept on disk.
    """

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.output = folder / f"{name}.out"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there (frozen or not)."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it at once, as a power cut would (SIGKILL); returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait; killed if it does not."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP): connections stay open, nothing answers."""
        if self.running:
            os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        if self.running:
            os.kill(self.pid, signal.SIGCONT)

    def _spawn(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        assert not self.running, f"{self.name} is running already"
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the tests, which then stop their servers.
                start_new_session=True,
                env=os.environ | (environment or {}),
            )

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready`, asked over and over, says so; an OSError means "not yet"."""
        end = time.monotonic() + START_SECONDS
        while True:
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                self._process = None
                raise AssertionError(f"{self.name} ended with {code}:\n{self._last_words()}")
            try:
                if ready():
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"{self.name} is not ready:\n{self._last_words()}")
            time.sleep(0.05)

    def _last_words(self) -> str:
        return self.output.read_text(errors="replace")[-4000:]


def listens(port: int) -> bool:
    """Whether something accepts connections there; OSError if not."""
    socket.create_connection(("127.0.0.1", port), 0.5).close()
    return True
