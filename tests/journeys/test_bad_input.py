"""What is wrong is told with its place and what to do; nothing is lost and nothing falls over.

From the files and messages that come in; `test_bad_questions` has what is asked for, and
`test_bad_disk` what lies on the disk.
"""

import gzip
import json
import random
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from k2.feeds import open_feed
from k2.log import NOT_WIRE_FORMAT, Append, Log, Producer, open_log, open_registry
from k2.model import encode, latest
from tests.cli.conftest import K2

MAPPING = """
name = "plain"
[exchange]
name = "X"
asset_class = "equities"
zone = "Australia/Sydney"
[trades.fields]
symbol = "symbol"
timestamp = { column = "time", format = "%Y-%m-%dT%H:%M:%S.%fZ" }
price = "price"
quantity = "quantity"
"""
HEADER = "symbol,time,price,quantity"
GOOD = "ABC,2026-03-02T10:00:00.1Z,12.5,100"


@pytest.fixture
def load(k2: K2, tmp_path: Path) -> Callable[..., dict[str, int]]:
    """Loads a file of these bytes; gives what became of its records."""
    (tmp_path / "plain.toml").write_text(MAPPING)

    def run(data: bytes | str, name: str = "trades.csv") -> dict[str, int]:
        raw = data.encode() if isinstance(data, str) else data
        (tmp_path / name).write_bytes(raw)
        ended = k2("load", name, "--kind", "trades", "--mapping", "plain.toml", "--json")
        assert ended.code == 0, ended.talk
        counts: dict[str, int] = json.loads(ended.out)
        del counts["seconds"]
        return counts

    return run


def data(k2: K2, *arguments: str) -> list[dict[str, Any]]:
    ended = k2(arguments[0], "--json", *arguments[1:])
    assert ended.code == 0, ended.talk
    rows: list[dict[str, Any]] = json.loads(ended.out)["data"]
    return rows


def assert_exact(k2: K2) -> None:
    ended = k2("audit", "--json")
    assert ended.code == 0, ended.out
    assert json.loads(ended.out)["ok"] is True


CANNOT_BE_READ = {
    'ABC,2026-03-02T10:00:00.1Z,"12,5",100': 'price "12,5" is no decimal number',
    "ABC,2026-03-02T10:00:00.1Z,12,5,100": "the line has 5 columns, not 4",
    "ABC,2026-03-02T10:00:00.1Z": "the line has 2 columns, not 4",
    "ABC,2026-03-02T10:00:00.1Z,1234567890123456789,1": "more than 10 digits before",
    "ABC,2026-03-02T10:00:00.1Z,1.123456789,1": 'price "1.123456789" has more than 8 decimals',
    "ABC,2026-03-02T10:00:00.1Z,NaN,1": 'price "NaN" is no decimal number',
    "ABC,2026-03-02T10:00:00.1Z,1,Infinity": 'quantity "Infinity" is no decimal number',
    "ABC,2026-03-02T10:00:00.1Z,1e400,1": 'price "1e400" is no decimal number',
    "ABC,2026-03-02T10:00:00.1Z,١٢,1": 'price "١٢" is no decimal number',
    "ABC,2026-02-30T10:00:00.1Z,1,1": 'time "2026-02-30T10:00:00.1Z" is no time',
    "ABC,yesterday,1,1": 'time "yesterday" is no time',
    ",2026-03-02T10:00:00.1Z,1,1": "symbol is empty",
    'ABC,"2026-03-02T10:00:00.1Z,1,1': "quotation marks do not stand around a whole value",
    "A\0C,2026-03-02T10:00:00.1Z,1,1": "a NUL byte stands in the line",
}
CANNOT_BE = {
    "ABC,2026-03-02T10:00:00.1Z,12.5,-100": ("quantity", 'quantity "-100" is not above zero'),
    'ABC,2026-03-02T10:00:00.1Z,12.5,"0"': ("quantity", 'quantity "0" is not above zero'),
    "ABC,2026-03-02T10:00:00.1Z,0.00,1": ("price", 'price "0.00" is not above zero'),
    "ABC,2026-03-02T10:00:00.1Z,-0.5,1": ("price", 'price "-0.5" is not above zero'),
    "ABC,2126-03-02T10:00:00.1Z,12.5,1": (
        "time",
        'time "2126-03-02T10:00:00.1Z" lies more than 300 s after it was first seen',
    ),
    "ABC,1826-03-02T10:00:00.1Z,12.5,1": (
        "time",
        'time "1826-03-02T10:00:00.1Z" lies before 1900',
    ),
    "A\tC,2026-03-02T10:00:00.1Z,12.5,1": ("symbol", "is no symbol: nothing to print"),
}


def test_broken_lines_are_kept_whole_and_the_rest_goes_in(
    k2: K2, load: Callable[..., dict[str, int]]
) -> None:
    lines = [HEADER, GOOD, *CANNOT_BE_READ, *CANNOT_BE, GOOD]
    bad = len(CANNOT_BE_READ) + len(CANNOT_BE)
    counts = load("\n".join(lines))
    assert counts == {"read": bad + 2, "committed": 2, "duplicate": 0, "rejected": bad}
    rejected = data(k2, "rejected")
    by_line = {row["raw"]: row for row in rejected}
    assert set(by_line) == {*CANNOT_BE_READ, *CANNOT_BE}
    for line, row in by_line.items():
        assert (row["file"], row["line"]) == ("trades.csv", lines.index(line) + 1)
    for line, reason in CANNOT_BE_READ.items():
        assert reason in by_line[line]["reason"]
        assert by_line[line]["expected"] or "is empty" in reason
    for line, (column, reason) in CANNOT_BE.items():
        assert by_line[line]["column"] == column
        assert reason in by_line[line]["reason"]
    assert all(row["log_offset"] is not None for row in rejected)
    assert_exact(k2)
    # The mended file adds what was missing, and nothing else.
    again = load("\n".join([HEADER, GOOD, GOOD.replace("12.5", "12.6"), GOOD]))
    assert again == {"read": 3, "committed": 1, "duplicate": 2, "rejected": 0}
    assert_exact(k2)


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_rejected_line_by_line(
    k2: K2, load: Callable[..., dict[str, int]], seed: int
) -> None:
    chance = random.Random(seed)
    junk = [chance.randbytes(chance.randrange(1, 200)).replace(b"\n", b"") for _ in range(30)]
    junk = [line for line in junk if line.strip(b"\r")]
    counts = load(b"\n".join([HEADER.encode(), GOOD.encode(), *junk, GOOD.encode(), b""]))
    assert counts["committed"] == 2
    assert counts["rejected"] == len(junk)
    assert_exact(k2)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zip", "a.csv.zst"])
def test_empty_files_hold_nothing(k2: K2, load: Callable[..., dict[str, int]], name: str) -> None:
    nothing = {"read": 0, "committed": 0, "duplicate": 0, "rejected": 0}
    assert load(b"", name) == nothing
    if name.endswith(".csv"):
        assert load(f"{HEADER}\n", name) == nothing
    assert_exact(k2)


WRONG: dict[str, tuple[bytes | None, str, str, str]] = {
    # what the file holds, its name, the mapping, and words of the answer
    "no file": (None, "nosuch.csv", "plain.toml", "nosuch.csv: there is no such file"),
    "a folder": (None, ".", "plain.toml", "there is no such file"),
    "no mapping": (b"x", "x.csv", "nosuch", "asx, binance"),
    "no mapping file": (b"x", "x.csv", "nosuch.toml", "nosuch.toml: the mapping cannot be read"),
    "no header": (b"symbol,b\n1,2\n", "x.csv", "plain.toml", "has no column 'time'"),
    "no symbols": (b"time,price,quantity\n", "x.csv", "plain.toml", "has no column 'symbol'"),
    "cut": (gzip.compress(b"x" * 9)[:-4], "x.csv.gz", "plain.toml", "fetch the file again"),
    "UTF-16": (GOOD.encode("utf-16"), "x.csv", "plain.toml", "expected UTF-8"),
    "line ends of old": (f"{HEADER}\r{GOOD}".encode(), "x.csv", "plain.toml", "LF or CRLF"),
    "no text": (b"\xff\xfa\n", "x.csv", "plain.toml", "x.csv line 1: the line is no UTF-8"),
}


@pytest.mark.parametrize("what", WRONG)
def test_files_that_cannot_be_loaded_say_why(k2: K2, tmp_path: Path, what: str) -> None:
    content, name, mapping, words = WRONG[what]
    (tmp_path / "plain.toml").write_text(MAPPING)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ended = k2("load", name, "--kind", "trades", "--mapping", mapping)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.talk
    assert len(ended.talk.splitlines()) <= 4
    # Before or after, another file goes in.
    (tmp_path / "good.csv").write_text(f"{HEADER}\n{GOOD}\n")
    assert k2("load", "good.csv", "--kind", "trades", "--mapping", "plain.toml").code == 0
    assert_exact(k2)


def append(log: Log, topic: str, schema_id: int, values: list[bytes]) -> None:
    log.append([Append(topic, 0, schema_id, pa.array(values, pa.binary()))])


def test_poison_in_the_log_is_rejected_and_its_neighbours_go_in(k2: K2, tmp_path: Path) -> None:
    """Messages that another producer might send: broken Avro, unknown ids, no wire format."""
    chance = random.Random(12)
    home = tmp_path / "home"
    topic = "market.crypto.trades.simulated"
    with closing(open_log(f"sqlite:{home / 'log.db'}")) as log:
        with closing(open_registry(f"embedded:{home / 'registry.db'}")) as registry:
            feed = open_feed("simulator:?rate=max&kinds=trades&count=600", None, now)
            (records,) = feed.read()
            good = records.table
            producer = Producer(log, registry, 1)
            (exchange,) = feed.exchanges
            producer.send(exchange, "trades", good.slice(0, 200))
            (version,) = registry.versions(f"{topic}-value")
            strange = registry.register("elsewhere-value", latest("splits").avro)
        datum = encode(good.slice(200, 1), latest("trades")).to_pylist()[0]
        poison = [b"", b"\0", datum[:-1], datum + b"\0", chance.randbytes(80), b"\xff" * 500]
        append(log, topic, version.id, poison)
        producer.send(exchange, "trades", good.slice(200, 200))
        append(log, topic, 31_337, [datum, datum])
        append(log, topic, NOT_WIRE_FORMAT, [b"hello", b""])
        append(log, topic, strange, [datum])
        producer.send(exchange, "trades", good.slice(400, 200))
    assert k2("ingest", "--until-caught-up").code == 0
    assert_exact(k2)
    rows = data(k2, "trades")
    assert [row["trade_id"] for row in rows] == good["trade_id"].to_pylist()
    rejected = sorted(data(k2, "rejected"), key=lambda row: row["log_offset"])
    places = [*range(200, 206), *range(406, 411)]
    assert [row["log_offset"] for row in rejected] == places
    shown = k2("rejected").out
    assert all(f" {topic}/0/{offset} " in shown for offset in places)
    assert all(row["reason"] for row in rejected)
    reasons = [row["reason"] for row in rejected[6:]]
    assert reasons[0] == "schema id 31337 is not known to the registry"
    assert "no Confluent wire format" in reasons[2]
    assert "describes no trades: it has no price" in reasons[4]
    with closing(open_log(f"sqlite:{home / 'log.db'}")) as log:
        (batch,) = [b for b in log.read(topic, 0, 200, 1) if 200 in b.offsets][:1]
        kept = batch.values.to_pylist()[:6]
    assert kept == poison


def test_a_clock_that_is_wrong_is_told_by_the_record_alone(k2: K2, tmp_path: Path) -> None:
    """A venue's clock ahead of ours by minutes is taken, by hours it is not, whenever decided."""
    home = tmp_path / "home"
    feed = open_feed("simulator:?rate=max&kinds=trades&count=3", None, now)
    (records,) = feed.read()
    times = [now() + timedelta(minutes=minutes) for minutes in (-60, 4, 6)]
    kind = records.table.schema.field("timestamp").type
    at = records.table.schema.get_field_index("timestamp")
    table = records.table.set_column(at, "timestamp", pa.array(times, kind))
    at = records.table.schema.get_field_index("ingestion_timestamp")
    table = table.set_column(at, "ingestion_timestamp", pa.array([now()] * 3, kind))
    with (
        closing(open_log(f"sqlite:{home / 'log.db'}")) as log,
        closing(open_registry(f"embedded:{home / 'registry.db'}")) as registry,
    ):
        Producer(log, registry, 1).send(feed.exchanges[0], "trades", table)
    tail = [row["trade_id"] for row in data(k2, "trades")]
    assert k2("ingest", "--until-caught-up").code == 0
    assert [row["trade_id"] for row in data(k2, "trades")] == tail
    assert len(tail) == 2
    (rejected,) = data(k2, "rejected")
    assert "a date or a clock is wrong" in rejected["reason"]


def now() -> datetime:
    return datetime.now(UTC)
