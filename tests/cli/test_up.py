"""`k2 up` and `k2 demo` as a user runs them: real processes, killed and ended from outside."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from k2.cli.machine import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc"),
]


@dataclass
class Run:
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def says(self, pattern: str) -> "re.Match[str] | None":
        return next((m for line in list(self.lines) if (m := re.search(pattern, line))), None)


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Run]:
    process = subprocess.Popen(
        [sys.executable, "-m", "k2", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    run = Run(process)

    def collect() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            run.lines.append(line.rstrip())

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield run
    finally:
        process.kill()
        process.wait()
        thread.join()
        assert process.stderr is not None
        process.stderr.close()


def wait_for(what: Callable[[], object], run: Run, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain:\n" + "\n".join(run.lines)
        time.sleep(0.05)


def parts(parent: int) -> Mapping[str, int]:
    """Pids of a supervisor's children, by the command that they run."""
    found: dict[str, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except (OSError, UnicodeDecodeError):
                continue
            if "--end-with" in words and words[words.index("--end-with") + 1] == str(parent):
                command = next(w for w in words if w in ("feed", "ingest", "serve"))
                found[command] = int(entry.name)
    return found


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def test_up_restarts_what_is_killed_and_ends_cleanly(tmp_path: Path) -> None:
    port = free_port("127.0.0.1", 0)
    feed = "simulator:?symbols=2&rate=100"
    with running(*("--home", str(tmp_path), "up", "--feed", feed), K2_SERVE_PORT=str(port)) as run:
        wait_for(lambda: run.says("K2 is ready"), run)
        before = parts(run.process.pid)
        assert set(before) == {"feed", "ingest", "serve"}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(parts(run.process.pid).keys() & before.keys()) == 3, run)
        assert not set(parts(run.process.pid).values()) & set(before.values())
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 0, run.lines
        assert parts(run.process.pid) == {}
    audit = subprocess.run(
        [sys.executable, "-m", "k2", "--home", str(tmp_path), "audit", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(audit.stdout)["ok"] is True


def test_parts_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with running(
        *("--home", str(tmp_path), "up", "--feed", "simulator:?rate=10"), K2_SERVE_PORT="0"
    ) as run:
        wait_for(lambda: len(parts(run.process.pid)) == 3, run)
        run.process.kill()
        wait_for(lambda: parts(run.process.pid) == {}, run)


def test_wrong_usage_of_a_part_ends_up(tmp_path: Path) -> None:
    with running(*("--home", str(tmp_path), "up", "--feed", "nosuch:x"), K2_SERVE_PORT="0") as run:
        assert run.process.wait(60) == 2
    assert run.says("nosuch")


def test_demo_shows_a_page_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with running("demo", "--no-browser", TMPDIR=str(tmp_path), K2_HOME="/no/such") as run:
        wait_for(lambda: run.says("K2 is running"), run)
        match = run.says(r"(http://\S+)")
        assert match is not None
        assert b"<html" in get(match[1]).lower()
        wait_for(lambda: json.loads(get(f"{match[1]}/v1/symbols"))["data"], run)
        assert len(list(tmp_path.iterdir())) == 1
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 0, run.lines
    assert list(tmp_path.iterdir()) == []
    assert not Path("/no/such").exists()
