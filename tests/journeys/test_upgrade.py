"""A K2 that knows only the first version of trades and quotes, upgraded while records flow.

The old K2 is a copy of the package without the later schemas, run by its own command.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from pyiceberg.catalog.sql import SqlCatalog

import k2
from k2 import model
from k2.errors import Refused
from k2.feeds import open_feed
from k2.lake import open_lake
from k2.log import open_registry
from k2.query import Reader, Selection, open_reader
from tests.cli.conftest import K2
from tests.log.adapters import fresh

KINDS = ("trades", "quotes")
TOPIC = "market.crypto.trades.simulated"
V1 = model.versions("trades")[0].arrow.names
DEFAULTS = {"trade_id": None, "side": "UNKNOWN", "price_forming": True, "conditions": None}


class Copy:
    """A K2 as it was, or as it should not be: the package with other schemas."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder = folder
        self._home = home
        self.schemas = folder / "k2" / "model"
        shutil.copytree(
            Path(k2.__file__).parent,
            folder / "k2",
            ignore=shutil.ignore_patterns("__pycache__"),
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "k2", "--home", str(self._home), *arguments],
            env={**os.environ, "PYTHONPATH": str(self._folder)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, expect: int = 0) -> str:
        """What the command says on stderr."""
        with self.start(*arguments) as process:
            _, talk = process.communicate(timeout=120)
        assert process.returncode == expect, talk
        return talk


@pytest.fixture(params=["files", pytest.param("servers", marks=pytest.mark.servers)])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a home whose log and registry are its own files, or real servers."""
    if request.param == "servers":
        monkeypatch.setenv("K2_LOG", fresh(request, "kafka", tmp_path))
        monkeypatch.setenv("K2_REGISTRY", fresh(request, "confluent", tmp_path))
        monkeypatch.setenv("K2_LOG_PARTITIONS", "4")
    return tmp_path / "home"


def of_first_version(folder: Path, home: Path) -> Copy:
    """A K2 that knows no second version of anything."""
    copy = Copy(folder, home)
    for kind in KINDS:
        (copy.schemas / f"{kind}.v2.avsc").unlink()
    return copy


@pytest.fixture
def old(tmp_path: Path, home: Path) -> Copy:
    return of_first_version(tmp_path / "old", home)


def market(count: int) -> str:
    """The same market up to its record `count`: a longer run goes on after a shorter one."""
    return f"simulator:?rate=max&nominal=50&symbols=3&seed=4&count={count}"


def truth(count: int) -> dict[str, list[dict[str, Any]]]:
    """Every record of the market, by kind."""
    feed = open_feed(market(count), None, lambda: datetime.now(UTC))
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    while sum(map(len, found.values())) < count:
        for records in feed.read():
            found[records.kind] += records.table.to_pylist()
    feed.close()
    return found


def opened(home: Path) -> AbstractContextManager[Reader]:
    return open_reader(home, log=os.environ.get("K2_LOG"), registry=os.environ.get("K2_REGISTRY"))


def read(home: Path, kind: str) -> list[dict[str, Any]]:
    with opened(home) as reader:
        rows: list[dict[str, Any]] = reader.records(kind, Selection()).table.to_pylist()
        return rows


def files_of(home: Path) -> dict[Path, str]:
    """The tables' data files, and what is in them."""
    found = (home / "lake" / "tables").glob("*/data/**/*.parquet")
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def rows_committed(home: Path) -> int:
    """Rows in the tables, looked at without a change: to open them otherwise is to upgrade them."""
    if not (home / "lake" / "tables" / "trades").exists():
        return 0
    with closing(open_lake(home / "lake", read_only=True)) as lake:
        return sum(lake.table(kind).snapshot().files.rows for kind in KINDS if lake.has(kind))


def in_flight(audit: dict[str, Any]) -> int:
    assert audit["ok"], audit
    return sum(part["in_flight"] for part in audit["partitions"])


def same(got: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]], names: list[str]) -> None:
    """Both have these columns' values, in time order; when K2 first saw them may differ."""
    compared = [name for name in names if name != "ingestion_timestamp"]
    key = [[row[name] for name in compared] for row in wanted]
    assert [[row[name] for name in compared] for row in got] == key


@pytest.mark.slow
def test_a_writer_is_upgraded_between_two_versions(k2: K2, home: Path, old: Copy) -> None:
    old("feed", market(1_500))
    old("ingest", "--until-caught-up")
    before = files_of(home)
    assert before
    assert k2("feed", market(2_500)).code == 0
    old("feed", market(3_000))

    # Both versions stand in one topic, and the old writer leaves the whole topic to its successor.
    waiting = old("ingest", "--until-caught-up", expect=1)
    assert "has the field 'asset_class', which this version of K2 does not know" in waiting
    assert "upgrade K2" in waiting
    assert files_of(home) == before
    assert in_flight(json.loads(k2("audit", "--json").out)) == 1_500
    assert json.loads(k2("rejected", "--json").out)["data"] == []

    wanted = truth(3_000)
    with opened(home) as reader:
        # Nobody has committed the later records, but the new K2's readers see them already.
        assert reader.records("trades", Selection()).table.num_rows == len(wanted["trades"])
    assert k2("ingest", "--until-caught-up").code == 0

    after = files_of(home)
    assert {path: after[path] for path in before} == before
    assert in_flight(json.loads(k2("audit", "--json").out)) == 0
    for kind in KINDS:
        same(read(home, kind), wanted[kind], model.versions(kind)[0].arrow.names)
    trades = read(home, "trades")
    of_old = {row["trade_id"] is None for row in trades}
    assert of_old == {True, False}
    for got, meant in zip(trades, wanted["trades"], strict=True):
        # Records of the first version: the market's first 1,500 and its last 500.
        expected = DEFAULTS if got["trade_id"] is None else {name: meant[name] for name in DEFAULTS}
        assert {name: got[name] for name in DEFAULTS} == expected
    count = sum(row["trade_id"] is None for row in trades)
    assert count == len(trades) - (len(truth(2_500)["trades"]) - len(truth(1_500)["trades"]))
    strangers_agree(home, trades)


def strangers_agree(home: Path, trades: list[dict[str, Any]]) -> None:
    """Iceberg's own reader and two engines find the same rows, null where K2 has a default."""
    lake = home / "lake"
    catalog = SqlCatalog(
        "k2", uri=f"sqlite:///{lake}/catalog.db", warehouse=f"file://{lake}/tables"
    )
    table = catalog.load_table("market.trades")
    by_iceberg = table.scan().to_arrow().sort_by("timestamp").to_pylist()
    same(by_iceberg, trades, [*V1, "trade_id"])
    assert None in {row["price_forming"] for row in by_iceberg}
    paths = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    asked = "SELECT count(*), count(trade_id), sum(price), sum(quantity) FROM read_parquet($paths, "
    with duckdb.connect() as connection:
        by_duckdb = connection.execute(
            f"{asked} union_by_name = true, hive_partitioning = false)", {"paths": paths}
        ).fetchone()
    by_polars = pl.read_parquet(paths, hive_partitioning=False, missing_columns="insert")
    totals = (
        len(trades),
        sum(row["trade_id"] is not None for row in trades),
        sum(row["price"] for row in trades),
        sum(row["quantity"] for row in trades),
    )
    assert by_duckdb == totals
    assert (by_polars.height, by_polars["trade_id"].count()) == totals[:2]
    assert (by_polars["price"].sum(), by_polars["quantity"].sum()) == totals[2:]


@pytest.mark.slow
def test_an_old_writer_leaves_a_table_of_the_new_version_alone(
    k2: K2, home: Path, old: Copy
) -> None:
    old("feed", market(100))
    assert k2("feed", market(400)).code == 0
    assert k2("ingest", "--until-caught-up").code == 0
    old("feed", market(700))
    before = files_of(home)
    told = old("ingest", "--until-caught-up", expect=1)
    assert "has a column that this version does not know" in told
    assert "upgrade K2" in told
    assert files_of(home) == before
    assert k2("ingest", "--until-caught-up").code == 0
    assert in_flight(json.loads(k2("audit", "--json").out)) == 0
    same(read(home, "trades"), truth(700)["trades"], V1)


@pytest.mark.slow
def test_an_old_writer_that_runs_on_waits_and_ends_cleanly(k2: K2, home: Path, old: Copy) -> None:
    old("feed", market(200))
    with old.start("ingest") as writer:
        try:
            while rows_committed(home) < 200:
                assert writer.poll() is None, writer.communicate()
                time.sleep(0.02)
            assert k2("feed", market(500)).code == 0
            assert k2("ingest", "--until-caught-up").code == 0
            assert writer.poll() is None, writer.communicate()
            assert in_flight(json.loads(k2("audit", "--json").out)) == 0
            writer.terminate()
            _, talk = writer.communicate(timeout=60)
            assert (writer.returncode, "Traceback" in talk) == (0, False), talk
        finally:
            writer.kill()
    same(read(home, "trades"), truth(500)["trades"], V1)
    assert in_flight(json.loads(k2("audit", "--json").out)) == 0


def changed(schema: model.Schema, name: str, **change: object) -> dict[str, Any]:
    """The schema with one field changed, or without it if nothing is said."""
    fields = [dict(field) for field in schema.avro["fields"]]
    if change:
        fields = [{**f, **change} if f["name"] == name else f for f in fields]
    else:
        fields = [f for f in fields if f["name"] != name]
    return {**schema.avro, "fields": fields}


INCOMPATIBLE = {
    "a field less": ("quantity", {}),
    "another type": ("quantity", {"type": "string"}),
    "may no longer be null": ("conditions", {"type": "string", "default": ""}),
}


@pytest.mark.parametrize("name", INCOMPATIBLE)
def test_an_incompatible_schema_is_refused_by_its_field(k2: K2, home: Path, name: str) -> None:
    assert k2("feed", market(50)).code == 0
    field, change = INCOMPATIBLE[name]
    wrong = changed(model.latest("trades"), field, **change)
    registry = open_registry(os.environ.get("K2_REGISTRY", f"embedded:{home / 'registry.db'}"))
    with pytest.raises(Refused, match=f"field {field} ") as told:
        registry.register(f"{TOPIC}-value", wrong)
    assert told.value.hint
    assert [v.version for v in registry.versions(f"{TOPIC}-value")] == [1]
    registry.close()
    file = home / "next.avsc"
    file.write_text(json.dumps(wrong))
    for subject in ("trades", f"{TOPIC}-value"):
        ended = k2("schema", "check", str(file), subject)
        assert ended.code == 1
        assert f"field {field} " in ended.talk


@pytest.mark.slow
def test_a_k2_with_an_incompatible_schema_appends_nothing(
    k2: K2, tmp_path: Path, home: Path
) -> None:
    assert k2("feed", market(50)).code == 0
    wrong = Copy(tmp_path / "wrong", home)
    avro = changed(model.latest("trades"), "source_sequence")
    (wrong.schemas / "trades.v2.avsc").write_text(json.dumps(avro))
    told = wrong("feed", market(100), expect=1)
    assert "field source_sequence is removed" in told
    audit = json.loads(k2("audit", "--json").out)
    ends = [part["end_offset"] for part in audit["partitions"] if part["topic"] == TOPIC]
    assert sum(ends) == len(truth(50)["trades"])
