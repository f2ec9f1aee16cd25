"""`k2 replay`: every format, exact positions, signals, and a pace."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import K2, Ended

BOTH = ("--kind", "trades", "--kind", "quotes")


@pytest.fixture
def at(k2: K2, market: Path, monkeypatch: pytest.MonkeyPatch) -> K2:
    """Runs commands over the market."""
    monkeypatch.setenv("K2_HOME", str(market))
    return k2


def rows_of(ended: Ended) -> list[dict[str, object]]:
    assert ended.code == 0, ended.talk
    return [json.loads(line) for line in ended.out.splitlines()]


def test_records_are_those_of_the_other_commands_in_one_order(at: K2) -> None:
    rows = rows_of(at("replay", *BOTH, "--ndjson"))
    assert len(rows) == 4_500
    times = [str(row["timestamp"]) for row in rows]
    assert times == sorted(times)
    for kind in ("trades", "quotes"):
        alone = rows_of(at(kind, "--ndjson"))
        mine = [row for row in rows if row["kind"] == kind]
        assert [{name: row[name] for name in alone[0]} for row in mine] == alone
        one = rows_of(at("replay", "--kind", kind, "--ndjson"))
        assert [{name: row[name] for name in alone[0]} for row in one] == alone


def test_formats_hold_the_same(at: K2, tmp_path: Path) -> None:
    rows = rows_of(at("replay", *BOTH, "--ndjson"))
    told = json.loads(at("replay", *BOTH, "--json").out)
    assert told["data"] == rows
    assert (told["success"], told["meta"]["rows"]) == (True, 4_500)
    assert told["pagination"] == {"limit": None, "next": None}
    lines = at("replay", *BOTH, "--csv").out.splitlines()
    assert lines[0].split(",") == list(rows[0])
    assert len(lines) == 4_501
    stream = pa.ipc.open_stream(io.BytesIO(at("replay", *BOTH, "--arrow").raw))
    batch, metadata = stream.read_next_batch_with_custom_metadata()
    assert metadata["k2.position"]
    table = pa.concat_tables([pa.Table.from_batches([batch]), stream.read_all()])
    assert table["trade_id"].to_pylist() == [row["trade_id"] for row in rows]
    # The file is whole, or not there.
    assert at("replay", *BOTH, "-o", "all.parquet").code == 0
    assert pq.read_table(tmp_path / "all.parquet").equals(table)
    shown = at("replay", *BOTH).out.splitlines()
    assert shown[0].split()[:3] == ["kind", "symbol", "exchange"]
    assert len(shown) == 4_501
    assert "bid_price" not in at("replay").out.splitlines()[0]


@pytest.mark.parametrize("name", ["table", "json", "csv", "arrow", "parquet", "ndjson"])
def test_nothing_is_an_answer_too(at: K2, name: str) -> None:
    ended = at("replay", "NONE", f"--{name}")
    assert ended.code == 0
    assert "there is no symbol NONE" in ended.talk
    match name:
        case "json":
            assert json.loads(ended.out)["data"] == []
        case "csv" | "table":
            assert len(ended.out.splitlines()) == 1
        case "arrow":
            assert pa.ipc.open_stream(io.BytesIO(ended.raw)).read_all().num_rows == 0
        case "parquet":
            assert pq.read_table(io.BytesIO(ended.raw)).num_rows == 0
        case _:
            assert ended.raw == b""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--speed", "0"), "no speed"),
        (("--speed", "fast"), "no speed"),
        (("--kind", "bars"), "bars"),
        (("--after", "x"), "another replay"),
        (("--where", "colour=red"), "colour"),
        (("--from", "2026-01-06", "--to", "2026-01-05"), "empty"),
        (("--follow", "--as-of", "2026-01-06T00:00:00Z"), "past"),
    ],
)
def test_what_cannot_be(at: K2, arguments: tuple[str, ...], word: str) -> None:
    ended = at("replay", *arguments)
    assert ended.code == 2
    assert word in ended.talk


def test_a_position_kept_in_a_file_goes_on_behind_the_last_record(at: K2, tmp_path: Path) -> None:
    whole = rows_of(at("replay", "--ndjson"))
    kept = ("--position-file", str(tmp_path / "position"))
    assert rows_of(at("replay", "--ndjson", *kept)) == whole
    assert rows_of(at("replay", "--ndjson", *kept)) == []
    position = (tmp_path / "position").read_text().strip()
    assert rows_of(at("replay", "--ndjson", "--after", position)) == []


def command(market: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from k2.cli.main import main; main()", "replay", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "K2_HOME": str(market)},
    )


def test_stopped_and_gone_on_with_it_is_the_same_replay(at: K2, market: Path) -> None:
    whole = at("replay", *BOTH, "--ndjson").out.splitlines()
    # Some 45 seconds of records, at 20 times their speed.
    ran = command(market, *BOTH, "--ndjson", "--speed", "20")
    assert ran.stdout is not None
    first = [ran.stdout.readline() for _ in range(300)]
    # Ctrl-Z: while it is stopped nothing comes, and time stands still.
    ran.send_signal(signal.SIGTSTP)
    time.sleep(1.5)
    ran.send_signal(signal.SIGCONT)
    first += [ran.stdout.readline() for _ in range(100)]
    ran.send_signal(signal.SIGINT)
    assert ran.stderr is not None
    out, talk = ran.stdout.read(), ran.stderr.read()
    assert ran.wait(timeout=30) == 0, talk
    ran.stdout.close()
    ran.stderr.close()
    lines = b"".join([*first, out]).decode().splitlines()
    assert 400 <= len(lines) < len(whole)
    assert lines == whole[: len(lines)]
    position = talk.decode().split("--after ")[1].strip()
    rest = at("replay", *BOTH, "--ndjson", "--after", position).out.splitlines()
    assert lines + rest == whole


def test_what_arrives_follows(k2: K2, tmp_path: Path) -> None:
    url = "simulator:?symbols=3&rate=max&seed=7&nominal=100&kinds=trades&count="
    assert k2("feed", f"{url}500").code == 0
    ran = command(tmp_path / "home", "--ndjson", "--follow", "--position-file", "kept")
    assert ran.stdout is not None
    rows = [json.loads(ran.stdout.readline()) for _ in range(500)]
    assert k2("feed", f"{url}600").code == 0
    assert k2("ingest", "--until-caught-up").code == 0
    rows += [json.loads(ran.stdout.readline()) for _ in range(100)]
    ran.send_signal(signal.SIGTERM)
    assert ran.stderr is not None
    assert (ran.stdout.read(), ran.wait(timeout=30)) == (b"", 0)
    ran.stdout.close()
    ran.stderr.close()
    ids = [row["trade_id"] for row in rows_of(k2("trades", "--ndjson"))]
    assert sorted(str(row["trade_id"]) for row in rows) == sorted(map(str, ids))
    assert k2("feed", f"{url}610").code == 0
    kept = (tmp_path / "kept").read_text().strip()
    # The position is that of the stream: without --follow nothing is left of what was there.
    assert rows_of(k2("replay", "--ndjson", "--after", kept)) == []


def test_a_reader_that_leaves_ends_it(market: Path) -> None:
    ran = command(market, *BOTH, "--csv")
    assert ran.stdout is not None
    assert ran.stdout.readline().startswith(b"kind,")
    ran.stdout.close()
    assert ran.wait(timeout=30) == 0
    assert ran.stderr is not None
    assert b"Traceback" not in ran.stderr.read()
    ran.stderr.close()
