"""`k2` as a process of its own, whose lines on stderr are read as they come."""

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PARTS = ("feed", "ingest", "maintain", "serve", "venue")


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


def parts(parent: int) -> Mapping[int, list[str]]:
    """A supervisor's children: the words that each was called with behind `k2`, by pid."""
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_text().rstrip("\0").split("\0")
            except (OSError, UnicodeDecodeError):
                continue
            if "--end-with" in words and words[words.index("--end-with") + 1] == str(parent):
                first = next(n for n, word in enumerate(words) if word in PARTS)
                found[int(entry.name)] = words[first:]
    return found


def commands(parent: int) -> list[str]:
    """The commands that a supervisor's children run, sorted."""
    return sorted(words[0] for words in parts(parent).values())


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body
