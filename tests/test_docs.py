"""The documents are true: what they show to be typed runs, and prints what they say.

How a document is read, block by block from the top, in an empty folder of its own:

- ```console (or ```sh): lines with `$ ` are typed, the lines below are what they print. A command
  with nothing below it must only succeed. `...` stands for any lines, or for the rest of one; `# ends
  with 1` behind a command for another exit code. `k2`, `curl`, `cat` and `make demo` are run; `cd`
  and `git clone` are passed over. What runs until Ctrl-C (`demo`, `up`, `serve`) runs until the end
  of the document.
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

import pytest

from k2.cli.machine import free_port

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PORT = "8642"
TYPED = ("console", "sh")
NEVER_ENDING = ("demo", "up", "serve")


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


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if runs(d)], ids=lambda path: path.name)
def test_what_is_typed_prints_what_is_shown(document: Path, tmp_path: Path) -> None:
    run_document(document, tmp_path)


SAMPLE = """
Say `a.csv` holds this:

```csv
03/10/2014,13:50:38.849,1.11,3667,0,,
03/10/2014,13:55:41.879,1.12,1633,0,,
```

```console
$ git clone https://example.org/k2 && cd k2
$ k2 load a.csv --kind trades --mapping asx \\
    --symbol ABC
read  committed  duplicate  rejected  seconds
   2          2          0         0     0.35
$ k2 bars ABC --interval 1d --csv
symbol,exchange,start,open,high,low,close,volume,trade_count,vwap
ABC,ASX,2014-03-09T13:00:00.000000Z,1.11,1.12,1.11,1.12,5300,2,1.11308113
...
$ k2 summary XYZ 2014-03-10   # ends with 1
k2: no trade of XYZ formed a price on 2014-03-10
...
$ make demo
starting a simulated market, the writer and the server
...
  K2 is running: http://127.0.0.1:8642
...
$ curl -s http://127.0.0.1:8642/health/live
{"success":true,...
```

```python
from k2.client import Client

client = Client("http://127.0.0.1:8642")
assert client.symbols().column_names[0] == "symbol"
```
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("", "", "nothing"),
        ("2          2", "2          1", "instead of"),
        ("ends with 1", "ends with 2", "no trade of XYZ"),
        ("running: http", "sleeping: http", "printed another thing"),
        ("health/live", "health/dead?", "printed another thing"),
    ],
)
def test_a_document_that_is_wrong_fails(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    document = tmp_path / "sample.md"
    document.write_text(SAMPLE.replace(right, wrong))
    folder = tmp_path / "folder"
    folder.mkdir()
    if right == wrong:
        run_document(document, folder)
        return
    with pytest.raises(AssertionError, match=told):
        run_document(document, folder, patience=5)


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


ALIKE = [
    ("3 rows in 12 ms", "3 rows in 7.5 ms", True),
    ("3 rows in 12 ms", "4 rows in 12 ms", False),
    ("price   36.1", "price 36.1", True),
    ("price 36.1", "price 36.125", False),
    ("at 2026-01-01T00:00:00Z", f"at {datetime.now(UTC).isoformat()}", True),
    ("at 2014-03-10T00:00:00Z", "at 2014-03-11T00:00:00Z", False),
    ('{"read":3,"seconds":0.1}', '{"read":3,"seconds":12.25}', True),
    ('{"read":3,"seconds":0.1}', '{"read":4,"seconds":0.1}', False),
    ("http://127.0.0.1:8642/x", "http://127.0.0.1:40001/x", True),
    ("http://127.0.0.1:8642/x", "http://127.0.0.2:40001/x", False),
    ("id 1234567890123456789", "id 9234567890123456780", True),
    ("k2 --home /tmp/k2-demo-a", ".venv/bin/k2 --home /tmp/k2-demo-b", True),
    ("k2 --home k2-home", "k2 --home other", False),
    ('{"success":true,...', '{"success":true,"data":[1]}', True),
    ('{"success":true,...', '{"success":false}', False),
]


@pytest.mark.parametrize(("wanted", "got", "same"), ALIKE)
def test_lines_are_compared(wanted: str, got: str, same: bool) -> None:
    assert alike(wanted, got, []) is same


def test_output_is_compared() -> None:
    table = ["read  seconds", "3  0.25"]
    assert difference(table, ["read  seconds", "   3     0.3", ""]) is None
    assert "instead of" in (difference(table, ["read  seconds", "4  0.25"]) or "")
    assert "missing" in (difference(table, table[:1]) or "")
    assert "besides" in (difference(table, [*table, "more"]) or "")
    assert difference(["a", "...", "d"], ["a", "b", "c", "d"]) is None
    assert difference(["a", "..."], ["a"]) is None
    assert "nowhere" in (difference(["a", "...", "e"], ["a", "b"]) or "")


# --- what else holds


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", document.read_text("utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if heading:
            assert heading in headings(there), target


def headings(document: Path) -> set[str]:
    found = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_stand_where_they_are_run(document: Path) -> None:
    """No block of commands hides under a language that no test runs."""
    for block in blocks(document):
        assert block.language, f"line {block.line}: a block must say its language"
        assert block.language not in ("bash", "shell", "zsh"), "say console, with `$ `"
        if block.language in TYPED:
            assert list(typed(block)), f"line {block.line}: nothing is typed here"


def lines_of(paths: Iterator[Path]) -> int:
    return sum(path.read_text("utf-8").count("\n") for path in paths)


def test_documents_stay_short() -> None:
    readme = ROOT / "README.md"
    assert readme.read_text("utf-8").count("\n") <= 120
    suffixes = (".py", ".js", ".css", ".html", ".sql", ".avsc", ".toml")
    source = (
        path
        for path in (ROOT / "src").rglob("*")
        if path.suffix in suffixes and "vendor" not in path.parts
    )
    assert lines_of(iter(DOCUMENTS)) * 3 < lines_of(source)


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.txt")), ids=lambda p: p.name)
def test_locks_name_versions_and_hashes_and_no_place(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"index-url|find-links|trusted-host|^-f |^-i ", text, re.M)
    pinned = re.findall(r"^[A-Za-z0-9][\w.\[\]-]*==\S+.*$", text, re.M)
    assert pinned
    assert text.count("--hash=sha256:") >= len(pinned)
