"""The supervisor: what dies comes back, what ends by itself stays ended, nothing is left over."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from k2.cli.supervise import Part, Patience, Supervisor

QUICK = Patience(first_wait=0.05, longest_wait=0.2, healthy_after=60, grace=5)
SLEEPER = "print('here', flush=True); import time; time.sleep(600)"


def part(name: str, program: str) -> Part:
    return Part(name, [sys.executable, "-c", program])


def wait_for(what: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Run:
    supervisor: Supervisor
    lines: list[str]
    stop: threading.Event = field(default_factory=threading.Event)
    code: int | None = None


@contextmanager
def running(*parts: Part, patience: Patience = QUICK) -> Iterator[Run]:
    lines: list[str] = []

    def told(part: str, line: str) -> None:
        lines.append(f"{part}: {line}")

    run = Run(Supervisor(parts, told, os.environ, patience), lines)

    def supervise() -> None:
        run.code = run.supervisor.run(run.stop.is_set)

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        yield run
    finally:
        run.stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_a_killed_part_comes_back_and_the_others_go_on() -> None:
    with running(part("one", SLEEPER), part("two", SLEEPER)) as run:
        wait_for(lambda: run.lines.count("one: here") and run.lines.count("two: here"))
        before = dict(run.supervisor.pids)
        os.kill(before["one"], signal.SIGKILL)
        wait_for(lambda: run.lines.count("one: here") == 2)
        after = dict(run.supervisor.pids)
        assert after["one"] != before["one"]
        assert after["two"] == before["two"]
        assert "one: was killed by signal 9; starting it again in 0.05 s" in run.lines
    assert run.code == 0
    assert not any("does not end" in line for line in run.lines)
    assert run.supervisor.pids == {}
    assert not any(is_alive(pid) for pid in after.values())


def test_waits_between_restarts_double_up_to_a_bound() -> None:
    with running(part("bad", "raise SystemExit(1)")) as run:
        wait_for(lambda: len(run.lines) >= 5)
    waits = [line.rpartition(" in ")[2] for line in run.lines[:5]]
    assert waits == ["0.05 s", "0.1 s", "0.2 s", "0.2 s", "0.2 s"]


def test_a_part_that_lived_long_enough_starts_with_a_short_wait_again() -> None:
    patience = Patience(first_wait=0.01, longest_wait=9, healthy_after=0, grace=5)
    with running(part("bad", "raise SystemExit(1)"), patience=patience) as run:
        wait_for(lambda: len(run.lines) >= 4)
    assert {line.rpartition(" in ")[2] for line in run.lines} == {"0.01 s"}


def test_all_ended_by_themselves_is_the_end() -> None:
    with running(part("one", "print('a')"), part("two", "print('b')")) as run:
        wait_for(lambda: run.code is not None)
    assert run.code == 0
    assert sorted(run.lines) == ["one: a", "one: done", "two: b", "two: done"]


def test_wrong_usage_ends_all_of_it() -> None:
    with running(part("one", SLEEPER), part("bad", "print('no!'); raise SystemExit(2)")) as run:
        wait_for(lambda: run.code is not None)
    assert run.code == 2
    assert "bad: no!" in run.lines
    assert run.supervisor.pids == {}


def test_a_part_that_will_not_end_is_killed() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER
    patience = Patience(first_wait=1, longest_wait=1, healthy_after=1, grace=0.2)
    with running(part("deaf", deaf), patience=patience) as run:
        wait_for(lambda: "deaf: here" in run.lines)
        pid = run.supervisor.pids["deaf"]
    assert not is_alive(pid)
    assert "deaf: does not end within 0.2 s, killed" in run.lines


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can")
def test_parts_end_with_a_supervisor_that_is_killed() -> None:
    program = (
        "import os, subprocess, sys, time\n"
        "child = 'from k2.cli.supervise import end_with_parent; import time;'"
        "        f'end_with_parent({os.getpid()}); print(1, flush=True); time.sleep(600)'\n"
        "found = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE)\n"
        "found.stdout.readline()\n"
        "print(found.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_alive(pid) or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    # In a container without an init that reaps, a dead orphan keeps its pid.
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
