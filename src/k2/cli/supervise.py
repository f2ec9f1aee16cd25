"""Parts of K2 as child processes: started, restarted when they die, and ended together."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_LOOK: Final = 0.05
_WRONG_USAGE: Final = 2


@dataclass(frozen=True)
class Part:
    """One child: its name, and the program with the arguments that it runs."""

    name: str
    program: Sequence[str]


@dataclass(frozen=True)
class Patience:
    """Seconds: before the first restart, at most before one (each wait doubles), what a part must
    live for the waits to begin anew, and what it gets to end by itself before it is killed.
    """

    first_wait: float = 0.25
    longest_wait: float = 15.0
    healthy_after: float = 10.0
    grace: float = 15.0


DEFAULT_PATIENCE: Final = Patience()


@dataclass
class _Child:
    """A part as it runs, or waits to run again."""

    part: Part
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None
    started: float = 0.0
    failures: int = 0
    again_at: float = 0.0
    ended: bool = False


class Supervisor:
    """Runs parts, with `environment`, until it is told to stop.

    `say` gets what they print and what befalls them, the part's name and a line each, from any
    thread. Nothing is left running when `run` returns.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        say: Callable[[str, str], None],
        environment: Mapping[str, str],
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        self._children = [_Child(part) for part in parts]
        self._say = say
        self._environment = dict(environment)
        self._patience = patience

    @property
    def pids(self) -> Mapping[str, int]:
        """Process ids of the parts that run now, by name."""
        running = [(child.part.name, child.process) for child in self._children]
        return {name: process.pid for name, process in running if process is not None}

    def run(self, stop: Callable[[], bool]) -> int:
        """Supervise until `stop()`, or until every part has ended by itself; returns 0.

        Returns 2 as soon as a part ends by wrong usage, which no restart would mend.
        """
        try:
            while not stop() and not all(child.ended for child in self._children):
                for child in self._children:
                    self._look_after(child)
                    if child.ended and child.failures:
                        return _WRONG_USAGE
                time.sleep(_LOOK)
            return 0
        finally:
            self._end()

    def _look_after(self, child: _Child) -> None:
        if child.ended:
            return
        if child.process is None:
            if time.monotonic() >= child.again_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        self._join_reader(child)
        child.process = None
        if code == 0:
            child.ended = True
            self._tell(child, "done")
            return
        if time.monotonic() - child.started >= self._patience.healthy_after:
            child.failures = 0
        child.failures += 1
        if code == _WRONG_USAGE:
            child.ended = True
            return
        wait = min(
            self._patience.first_wait * 2 ** (child.failures - 1), self._patience.longest_wait
        )
        child.again_at = time.monotonic() + wait
        how = f"ended with code {code}" if code > 0 else f"was killed by signal {-code}"
        self._tell(child, f"{how}; starting it again in {wait:g} s")

    def _start(self, child: _Child) -> None:
        # A session of its own: Ctrl-C reaches this process alone, which ends them in good order.
        child.process = subprocess.Popen(
            child.part.program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=self._environment,
        )
        child.started = time.monotonic()
        child.reader = threading.Thread(target=self._relay, args=(child, child.process))
        child.reader.start()

    def _relay(self, child: _Child, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._tell(child, line.rstrip())

    def _tell(self, child: _Child, line: str) -> None:
        self._say(child.part.name, line)

    def _end(self) -> None:
        running = [(child, child.process) for child in self._children if child.process is not None]
        for _, process in running:
            process.terminate()
        deadline = time.monotonic() + self._patience.grace
        for child, process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._tell(child, f"does not end within {self._patience.grace:g} s, killed")
                process.kill()
                process.wait()
            child.process = None
            self._join_reader(child)

    def _join_reader(self, child: _Child) -> None:
        if child.reader is not None:
            # A grandchild may hold the pipe open; nobody waits for its lines.
            child.reader.join(timeout=1.0)
            child.reader = None


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process (SIGTERM) once its parent, of that pid, is gone.

    Only Linux can; elsewhere a killed parent leaves its children running.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        # It was gone before the kernel knew.
        sys.exit(0)
