"""The documents are true: what they show to be typed runs, and prints what they say.

`tests/documents.py` says how a document is read.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k2.feeds.live.options import OPTIONS
from tests.documents import TYPED, alike, blocks, difference, run_document, runs, typed

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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
symbol,exchange,start,open,high,low,close,volume,trade_count,vwap,complete
ABC,ASX,2014-03-09T13:00:00.000000Z,1.11,1.12,1.11,1.12,5300,2,1.11308113,true
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


@pytest.mark.parametrize(("wanted", "got", "same"), ALIKE, ids=range(len(ALIKE)))
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


def test_every_option_of_a_live_feed_is_explained() -> None:
    table = (ROOT / "docs" / "venues.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [name for name in OPTIONS if not any(f"`{name}`" in row for row in rows)] == []
