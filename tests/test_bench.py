"""Benchmarks run: what they call is what the rooms offer now. Their figures are not looked at."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bench.plot import Line, Panel, write_svg
from bench.torrent import first_names, template

from k2.log.wire import from_wire
from k2.model import decode, latest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "backlog",
        "codec",
        "direct",
        "export",
        "freshness",
        "ingest",
        "join",
        "maintain",
        "parsing",
        "queries",
        "size",
        "week",
        "windows",
    ],
)
def test_a_benchmark_prints_its_table(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "┃" in done.stdout


def test_ready_messages_are_trades_with_ids_and_times_of_their_own() -> None:
    now, first = datetime(2026, 11, 30, 12, 0, 0, 123_456, tzinfo=UTC), 10**14
    made = template(1, 7, seed=1, first_share=0.05)
    messages = [*made.values(2_000, first, now), *made.values(2_000, first + 2_000, now)]
    ids, datums = from_wire(pa.array(messages, pa.binary()))
    assert set(ids.tolist()) == {7}
    schema = latest("trades")
    decoded = decode(datums, schema.avro, schema)
    assert not decoded.errors
    rows = decoded.table
    assert rows["trade_id"].to_pylist() == [str(first + number) for number in range(4_000)]
    assert set(rows["timestamp"].to_pylist()) == {now}
    assert set(rows["ingestion_timestamp"].to_pylist()) == {now}
    is_first = pc.is_in(rows["symbol"].cast(pa.string()), pa.array(first_names(1)))
    assert 0.03 < pc.sum(is_first).as_py() / 4_000 < 0.07


def test_a_plot_has_a_line_for_each_series(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    lines = [Line("<lag>", [0.0, 1.0, 2.0], [0, 5, 1]), Line("shed", [0.0, 2.0], [3, 0])]
    steps = Line("level", [0.0, 1.0], [0, 4], steps=True)
    write_svg(path, "10 x", [Panel("records", lines), Panel("level", [steps])])
    root = ElementTree.parse(path).getroot()
    drawn = [p.get("d") for p in root.iter("{http://www.w3.org/2000/svg}path")]
    assert sum(path is not None and path.count(" ") > 2 for path in drawn) == 2
    assert "<lag>" in [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
