"""A Markdown document as a program: its blocks run, and what they print is compared.

How a document is read, block by block from the top, in an empty folder of its own:

- ```console (or ```sh): lines with `$ ` are typed, the lines below are what they print. A command
  with nothing below it must only succeed. `...` stands for any lines, or the rest of one; behind a
  command, `# ends with 1` is another exit code. `k2`, `curl`, `cat` and `make demo` are run; `cd`
  and `git clone` are passed over. What runs until Ctrl-C (`demo`, `up`, `serve`, `venue`) runs
  until the end of the document.
- ```python: is run; all of a document's blocks share their names.
- Any other block is a file, if the line above it ends with its name in backticks and a colon.

Times of now, ids, durations, ports and temporary folders may differ from what is written.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from k2.cli.machine import free_port

PORT = "8642"
TYPED = ("console", "sh")
NEVER_ENDING = ("demo", "up", "serve", "venue")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    above: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text("utf-8")
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        before = text[: match.start()].rstrip("\n")
        above = before.rpartition("\n")[2]
        found.append(Block(match[1], match[2], above, before.count("\n") + 2))
    return found


def runs(document: Path) -> bool:
    return any(block.language in (*TYPED, "python") for block in blocks(document))


@dataclass
class Typed:
    """A command of a document and the lines below it."""

    command: str
    line: int
    ends_with: int = 0
    prints: list[str] = field(default_factory=list)


def typed(block: Block) -> Iterator[Typed]:
    current: Typed | None = None
    going_on = False
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if going_on and current is not None:
            current.command += " " + line.strip().removesuffix("\\").strip()
            going_on = line.endswith("\\")
        elif line.startswith("$ "):
            if current is not None:
                yield current
            going_on = line.endswith("\\")
            command, _, code = line[2:].removesuffix("\\").partition("# ends with ")
            current = Typed(command.strip(), number, int(code or 0))
        elif current is not None:
            current.prints.append(line)
    if current is not None:
        while current.prints and not current.prints[-1].strip():
            current.prints.pop()
        yield current


# --- running


class Folder:
    """Where a document's commands run; what never ends by itself is ended with `close`."""

    def __init__(self, path: Path, stack: ExitStack, patience: float) -> None:
        self.path = path
        self._patience = patience
        self._stack = stack
        self._port = str(free_port("127.0.0.1", 0))
        self._bin = Path(sys.executable).parent
        self._names: dict[str, object] = {}

    def write(self, block: Block) -> None:
        named = re.search(r"`([\w.-]+\.\w+)`[^`]*:$", block.above)
        if named is not None:
            (self.path / named[1]).write_text(block.text, "utf-8")

    def execute(self, block: Block, name: str) -> None:
        code = block.text.replace(PORT, self._port)
        exec(compile(code, f"{name} line {block.line}", "exec"), self._names)

    def run(self, one: Typed) -> None:
        command = re.sub(r"^make demo\b", "k2 demo", one.command).replace(PORT, self._port)
        command = re.sub(r"^\S*/k2(?=\s|$)", "k2", command)
        first, *words = shlex.split(command)
        if first == "cd" or command.startswith("git clone"):
            return
        assert first in ("k2", "curl", "cat"), f"the tests cannot run {one.command!r}"
        if first == "k2" and any(word in NEVER_ENDING for word in words[:3]):
            self._start(one, [*words, *(["--no-browser"] if "demo" in words else [])])
            return
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.path,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            text=True,
            check=False,
        )
        assert done.returncode == one.ends_with, done.stdout
        if one.prints:
            wrong = difference(one.prints, done.stdout.splitlines())
            assert wrong is None, f"{one.command!r} printed another thing: {wrong}"

    def _start(self, one: Typed, words: list[str]) -> None:
        process = subprocess.Popen(
            [str(self._bin / "k2"), *words],
            cwd=self.path,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said: list[str] = []
        assert process.stdout is not None
        stream = process.stdout
        reader = threading.Thread(target=lambda: said.extend(iter(stream.readline, "")))
        reader.start()

        def end() -> None:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(60) == 0, said
            finally:
                process.kill()
                reader.join()
                stream.close()

        self._stack.callback(end)
        deadline = time.monotonic() + self._patience
        wanted = one.prints or ["...", "http://127.0.0.1:8642", "..."]
        while wrong := difference([*wanted, "..."], [line.rstrip("\n") for line in list(said)]):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, f"{one.command!r} printed another thing: {wrong}"
            time.sleep(0.05)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
        path = f"{self._bin}:{os.environ['PATH']}"
        return {**kept, "PATH": path, "K2_SERVE_PORT": self._port, "COLUMNS": "200"}


@contextmanager
def working_in(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def run_document(document: Path, path: Path, patience: float = 60) -> None:
    with ExitStack() as stack, working_in(path):
        folder = Folder(path, stack, patience)
        for block in blocks(document):
            if block.language in TYPED:
                for one in typed(block):
                    folder.run(one)
            elif block.language == "python":
                folder.execute(block, document.name)
            else:
                folder.write(block)


# --- comparing

_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
_TOKENS = re.compile(rf"{_TIME}|[0-9a-f]{{8}}-[0-9a-f-]{{27}}|/[\w./-]+|[\d,.]*\d|\w+|\S")
_UNITS = ("ms", "s", "seconds", "MB", "GB")
_VARIES = ("seconds", "milliseconds", "bytes", "snapshot_id")


def difference(wanted: list[str], got: list[str]) -> str | None:
    """The first line that differs, in words; None if there is none. `...` is any lines."""
    header: list[str] = []
    place = 0
    for number, line in enumerate(wanted):
        if line.strip() == "...":
            rest = wanted[number + 1 :]
            if not rest:
                return None
            starts = range(place, len(got) + 1)
            return next(
                (None for at in starts if difference(rest, got[at:]) is None),
                f"nowhere {rest[0]!r}, and what is below it, in {got[place:]}",
            )
        if place >= len(got):
            return f"{line!r} is missing"
        if not alike(line, got[place], header):
            return f"{got[place]!r} instead of {line!r}"
        if re.fullmatch(r"[a-z_ ]+", line):
            header = line.split()
        place += 1
    return f"{got[place]!r} besides" if any(line.strip() for line in got[place:]) else None


def alike(wanted: str, got: str, header: list[str]) -> bool:
    if header and len(header) == len(wanted.split()) == len(got.split()):
        cells = zip(header, wanted.split(), got.split(), strict=True)
        return all(name in _VARIES or alike(w, g, []) for name, w, g in cells)
    ours, theirs = (
        _TOKENS.findall(re.sub(r"\S*/k2(?=\s|$)", "k2", line)) for line in (wanted, got)
    )
    if wanted.endswith("..."):
        ours = ours[:-3]
        theirs = theirs[: len(ours)]
    if len(ours) != len(theirs):
        return False
    following = [*ours[1:], ""]
    before = ["", "", "", *ours]
    return all(
        w == g
        or (re.fullmatch(_TIME, w) and re.fullmatch(_TIME, g) and is_of_now(g))
        or (len(w) > 14 and len(g) > 14 and w.isdigit() and g.isdigit())
        or (len(w) == 36 == len(g) and w.count("-") == 4 == g.count("-"))
        or (w[0] == "/" == g[0] and "/tmp/" in g and len(g) > 1)
        or (w == PORT and g.isdigit() and before[i + 2] == ":")
        or (
            w[-1].isdigit() and g[-1].isdigit() and (following[i] in _UNITS or before[i] in _VARIES)
        )
        for i, (w, g) in enumerate(zip(ours, theirs, strict=True))
    )


def is_of_now(text: str) -> bool:
    when = datetime.fromisoformat(text)
    return abs(datetime.now(UTC) - when.replace(tzinfo=when.tzinfo or UTC)) < timedelta(hours=1)
