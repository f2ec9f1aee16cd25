"""Rows made again from the log: the same ones, whatever was broken, whoever commits meanwhile."""

import os
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.encode import FORMATS
from k2.errors import BadInput, Broken, Conflict, Refused
from k2.feeds import open_feed
from k2.ingest import Rebuilt, Wanted, audit, rebuild
from k2.lake import DataFileRef, open_lake
from k2.log import EXCHANGES_TOPIC, Append, Producer, open_log, open_registry
from k2.model import Exchange, Topic, encode, versions
from k2.query import Selection, open_reader
from tests.ingest.test_exact import START as MOMENT
from tests.ingest.test_exact import actions
from tests.ingest.test_exact import append as append_made
from tests.journeys.home import Home, now, open_home, processes
from tests.log.adapters import adapters, fresh

EXCHANGE = Exchange("venue", "crypto", "UTC")
TOPIC = Topic("crypto", "trades", "venue")
START = datetime(2026, 1, 5, 6, tzinfo=UTC)
DAYS = [date(2026, 1, 5) + timedelta(days=n) for n in range(3)]
STEPS = ("files", "commit", "answer")
COMMITS = 6
MIDNIGHT = MOMENT.date()


def records(first: int, count: int, version: int) -> pa.Table:
    """Trades of three days in turn; of ten one is rejected and one, in version 2, a duplicate."""
    schema = versions("trades")[version - 1]
    rows = []
    for n in range(first, first + count):
        when = START + timedelta(days=n % 3, milliseconds=n)
        row = {
            "symbol": "AB"[n // 7 % 2],
            "exchange": EXCHANGE.name,
            "timestamp": when,
            "price": Decimal(n + 1) / 8,
            "quantity": Decimal(-1 if n % 10 == 4 else 3),
            "ingestion_timestamp": when,
            "trade_id": str(n - 14 if n % 10 == 7 else n),
            "side": "BUY",
            "price_forming": True,
            "id_space": "",
            "timestamp_nanos": 0,
        }
        rows.append({f.name: row.get(f.name) for f in schema.arrow})
    return pa.table(
        {f.name: [row[f.name] for row in rows] for f in schema.arrow}, schema=schema.arrow
    )


def append(home: Home, first: int, count: int, version: int = 2) -> None:
    schema = versions("trades")[version - 1]
    table = records(first, count, version)
    schema_id = home.registry.register(TOPIC.subject, schema.avro)
    for number, symbol in enumerate("AB"):
        mine = table.filter(pa.array([s == symbol for s in table["symbol"].to_pylist()]))
        home.log.append([Append(str(TOPIC), number, schema_id, encode(mine, schema))])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `copy` beside the `home` that it is a copy of: a lake cannot be moved.

    Six commits of 70 trades each, versions in turn, in two partitions, of three days each.
    """
    folder = tmp_path_factory.mktemp("rebuild")
    (folder / "home").mkdir()
    with open_home(folder / "home") as opened:
        opened.log.put(EXCHANGES_TOPIC, EXCHANGE.name, EXCHANGE.to_json())
        for version in (1, 2):
            opened.registry.register(TOPIC.subject, versions("trades")[version - 1].avro)
        opened.log.create(str(TOPIC), 2)
        for number in range(COMMITS):
            append(opened, 70 * number, 70, 1 + number % 2)
            opened.catch_up()
    (folder / "home").rename(folder / "copy")
    return folder


@pytest.fixture
def home(made: Path) -> Iterator[Home]:
    """What `made` made, as if nothing had happened to it."""
    folder = made / "home"
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(made / "copy", folder)
    with open_home(folder) as opened:
        yield opened


def again(home: Home, *days: date, step: Callable[[str], None] = lambda step: None) -> Rebuilt:
    wanted = Wanted("trades", *((days[0], days[-1]) if days else ()))
    return rebuild(home.log, home.registry, home.lake, wanted, on_step=step)


def files(home: Home, *days: date) -> tuple[DataFileRef, ...]:
    dates = (days[0], days[-1]) if days else None
    return home.lake.table("trades").snapshot().files.select(dates=dates)


def answers(folder: Path, commits: int = COMMITS) -> list[bytes]:
    """All rows as of each commit, in full, as a user gets them."""
    with open_reader(folder) as reader:
        ids = reader.snapshots("trades").table.sort_by("commit")["snapshot_id"].to_pylist()
        return [
            b"".join(
                FORMATS["csv"].parts(reader.records("trades", Selection(), as_of=str(snapshot)))
            )
            for snapshot in ids[:commits]
        ]


def content(home: Home) -> list[dict[str, object]]:
    """Every row with the commit that brought it, in the order of the log."""
    found = [
        row | {"commit": row.pop("commit_sequence") or file.sequence}
        for file in files(home)
        for row in pq.read_table(file.path).to_pylist()
    ]
    return sorted(found, key=lambda r: (int(str(r["log_partition"])), int(str(r["log_offset"]))))


def assert_sound(home: Home) -> None:
    found = audit(home.log, home.lake)
    assert found.ok, [p.problem for p in found.partitions]
    for part in found.partitions:
        assert min(part.committed, part.duplicate, part.rejected) > 0


def on_disk(home: Home) -> set[Path]:
    return set((home.folder / "lake" / "tables" / "trades" / "data").rglob("*.parquet"))


def test_a_deleted_file_is_mended_and_every_past_answer_is_the_same(home: Home) -> None:
    before = answers(home.folder)
    assert len(set(before)) == COMMITS
    (gone, *_) = files(home, DAYS[1])
    others = [f.path for day in DAYS[::2] for f in files(home, day)]
    Path(gone.path).unlink()
    assert gone.path in str(audit(home.log, home.lake).partitions[0].problem)

    done = again(home, DAYS[1])

    assert done.unreadable == (gone.path,)
    assert (done.files_before, done.files, done.commit) == (COMMITS, 1, COMMITS + 1)
    assert done.rows == done.rows_before > 0
    assert_sound(home)
    assert answers(home.folder) == before
    assert [f.path for day in DAYS[::2] for f in files(home, day)] == others
    (last,) = home.lake.commits_of("trades").to_pylist()[COMMITS:]
    assert (last["rows"], last["operation"]) == (0, "replace")


def test_a_writer_that_meets_the_damage_says_what_mends_it(home: Home) -> None:
    Path(files(home, DAYS[1])[0].path).unlink()
    append(home, 0, 70)
    with pytest.raises(Broken) as caught:
        home.catch_up()
    assert "k2 rebuild" in str(caught.value.hint)
    again(home, DAYS[1])
    home.catch_up()
    assert_sound(home)


def test_a_whole_table_of_damaged_files(home: Home) -> None:
    before = answers(home.folder)
    for number, file in enumerate(files(home)):
        path = Path(file.path)
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.write_bytes(path.read_bytes()[:-20])

    done = again(home)

    assert len(done.unreadable) == 2 * len(files(home, DAYS[0])) * COMMITS
    assert (done.files_before, done.files) == (3 * COMMITS, 3)
    assert_sound(home)
    assert answers(home.folder) == before
    # What was made again once can be made again, and broken, again.
    (second, *_) = files(home, DAYS[2])
    Path(second.path).unlink()
    assert again(home, DAYS[1], DAYS[2]).rows == sum(f.rows for f in files(home)[1:])
    assert_sound(home)
    assert answers(home.folder) == before


def test_versions_duplicates_and_rejects_keep_their_fate(home: Home) -> None:
    before, ledgers = content(home), audit(home.log, home.lake)
    again(home)
    assert content(home) == before
    assert audit(home.log, home.lake) == ledgers
    # And what is appended afterwards is known, or new, as ever.
    append(home, 350, 140)
    home.catch_up()
    part = audit(home.log, home.lake).partitions
    assert_sound(home)
    assert sum(p.committed for p in part) - len(before) == 70 - 2 * 7


def test_a_row_that_counts_twice_is_mended(home: Home) -> None:
    before = answers(home.folder)
    table = home.lake.table("trades")
    (file, *_) = files(home, DAYS[0])
    rows = pq.ParquetFile(file.path).read().cast(table.definition.arrow)
    table.replace([], [table.write(rows, file.exchange_date)])
    assert "2 fates" in str(audit(home.log, home.lake).partitions[0].problem)
    again(home, DAYS[0])
    assert_sound(home)
    assert answers(home.folder) == before


def test_a_dry_run_changes_nothing(home: Home) -> None:
    disk, sequence = on_disk(home), home.lake.table("trades").snapshot().sequence
    wanted = Wanted("trades", DAYS[0], DAYS[0])
    found = rebuild(home.log, home.registry, home.lake, wanted, dry_run=True)
    assert (found.files_before, found.files, found.commit) == (COMMITS, None, None)
    assert found.offsets == sum(home.log.end_offset(str(TOPIC), p) for p in (0, 1))
    assert (on_disk(home), home.lake.table("trades").snapshot().sequence) == (disk, sequence)
    nothing = again(home, date(2020, 1, 1))
    assert (nothing.files_before, nothing.offsets, nothing.commit) == (0, 0, None)


def test_what_cannot_be_asked_for() -> None:
    for table in ("gaps", "rejected", "nothing"):
        with pytest.raises(BadInput):
            Wanted(table)
    with pytest.raises(BadInput):
        Wanted("trades", DAYS[1], DAYS[0])


def test_a_log_that_was_trimmed_is_refused_where_rows_are_older(home: Home) -> None:
    append(home, 420, 3)  # one more of each day: the log begins behind all others
    home.catch_up()
    start = home.log.trim(str(TOPIC), 0, home.log.end_offset(str(TOPIC), 0) - 1)
    assert start > 0
    disk = on_disk(home)
    with pytest.raises(Refused, match=rf"venue\[0\] offsets 0 to \d+: the log has {start} to"):
        again(home, DAYS[0])
    # The same where a file cannot say what it holds.
    newest = files(home, DAYS[0])[-1]
    Path(files(home, DAYS[0])[0].path).unlink()
    with pytest.raises(Refused, match="offsets 0 to"):
        again(home, DAYS[0])
    assert newest.path in {f.path for f in files(home)}
    assert len(on_disk(home)) == len(disk) - 1
    # A day that is wholly behind it can be made again.
    late = START + timedelta(days=9)
    schema = versions("trades")[1]
    table = records(500, 1, 2)
    for name in ("timestamp", "ingestion_timestamp"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array([late], schema.arrow.field(name).type))
    schema_id = home.registry.register(TOPIC.subject, schema.avro)
    home.log.append([Append(str(TOPIC), 0, schema_id, encode(table, schema))])
    home.catch_up()
    (file,) = files(home, late.date())
    Path(file.path).unlink()
    assert again(home, late.date()).rows == 1


def test_a_topic_made_anew_is_refused(home: Home) -> None:
    with sqlite3.connect(home.folder / "log.db") as database:
        for table in ("batches", "partitions", "topics"):
            database.execute(f"DELETE FROM {table}")
    with open_home(home.folder) as other:
        with pytest.raises(Refused, match="the topic is gone"):
            again(other)
        other.log.create(str(TOPIC), 2)
        with pytest.raises(Refused, match="made anew"):
            again(other, DAYS[0])


def test_a_ledger_that_is_gone_stops_it(home: Home) -> None:
    home.lake.absorb("trades")
    (file, *_) = home.lake.ledger_files("duplicates")
    Path(file.path).unlink()
    disk = on_disk(home)
    with pytest.raises(Broken, match="ledger"):
        again(home)
    assert on_disk(home) == disk


def test_a_row_of_no_record_stops_it(home: Home) -> None:
    """Nothing is taken out that cannot be made again: a row that a ledger calls rejected."""
    table = home.lake.table("trades")
    (file, *_) = files(home, DAYS[0])
    rows = pq.ParquetFile(file.path).read().cast(table.definition.arrow).slice(0, 1)
    at = rows.schema.get_field_index("log_offset")
    (first, *_) = home.lake.ledger_files("rejected")
    ledger = pq.read_table(first.path, columns=["log_partition", "log_offset"]).to_pylist()
    partition = rows["log_partition"][0].as_py()
    offset = next(e["log_offset"] for e in ledger if e["log_partition"] == partition)
    rows = rows.set_column(at, "log_offset", pa.array([offset], pa.int64()))
    table.replace([], [table.write(rows, file.exchange_date)])
    disk = on_disk(home)
    with pytest.raises(Broken, match="know of none"):
        again(home)
    assert on_disk(home) == disk


def test_a_writer_commits_beside_it(home: Home) -> None:
    before = answers(home.folder)
    ended = threading.Event()
    writer = threading.Thread(target=home.writer().run, args=(ended.is_set,))
    writer.start()
    try:
        committed: list[int] = []
        for number in range(4):
            append(home, 70 * (COMMITS + number), 70)
            with open_home(home.folder) as other:
                committed.append(again(other, DAYS[0]).commit or 0)
    finally:
        ended.set()
        writer.join()
    home.catch_up()
    assert_sound(home)
    assert committed == sorted(set(committed))
    assert answers(home.folder) == before
    total = sum(f.rows for f in files(home))
    assert total == sum(p.committed for p in audit(home.log, home.lake).partitions)


def test_a_commit_between_its_files_and_its_own(home: Home) -> None:
    def step(name: str) -> None:
        if name == "commit":
            append(home, 420, 70)
            home.catch_up()

    rows = sum(f.rows for f in files(home))
    done = again(home, step=step)
    assert done.rows == rows
    assert sum(f.rows for f in files(home)) > rows
    assert_sound(home)


def test_of_two_at_once_one_wins_and_the_other_leaves_nothing(home: Home) -> None:
    kept: list[set[Path]] = []

    def step(name: str) -> None:
        if name == "commit" and not kept:
            kept.append(set())
            again(home, DAYS[0])
            kept[0] = {Path(f.path) for f in files(home)}

    disk = on_disk(home)
    with pytest.raises(Conflict):
        again(home, step=step)
    assert on_disk(home) == disk | kept[0]
    assert_sound(home)


def _killed(folder: Path, at: str) -> None:
    def step(name: str) -> None:
        if name == at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10)

    with open_home(folder) as home:
        again(home, step=step)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_can_be_done_again(home: Home, step: str) -> None:
    before = answers(home.folder)
    Path(files(home, DAYS[2])[4].path).unlink()
    child = processes.Process(target=_killed, args=(home.folder, step), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert audit(home.log, home.lake).ok == (step == "answer")
    again(home)
    assert_sound(home)
    assert answers(home.folder) == before


@pytest.mark.parametrize("name", adapters("open_log"))
def test_from_every_log(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    feed = open_feed("simulator:?rate=max&kinds=trades&symbols=8&chunk=400", None, now)
    (sent,) = feed.read()
    with (
        closing(open_log(fresh(request, name, tmp_path))) as log,
        closing(open_registry(tmp_path / "registry.db")) as registry,
        closing(open_lake(tmp_path / "lake")) as lake,
    ):
        home = Home(tmp_path, log, registry, lake)
        producer = Producer(log, registry, 2)
        for first in (0, 200):
            producer.send(feed.exchanges[0], "trades", sent.table.slice(first, 200))
            home.catch_up()
        Path(files(home)[0].path).unlink()
        assert not audit(log, lake).ok
        assert again(home).rows == 400
        assert audit(log, lake).ok
        Path(files(home)[0].path).unlink()
        topic = "market.crypto.trades.simulated"
        log.trim(topic, 1, log.end_offset(topic, 1))
        with pytest.raises(Refused, match=r"simulated\[1\] offsets 0 to"):
            again(home)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=actions, days=st.sampled_from([(None, None), (0, 0), (1, 9), (None, 0)]))
def test_whatever_was_appended_is_made_again_as_it_was(
    script: list[object], days: tuple[int | None, int | None]
) -> None:
    first, last = (None if n is None else MIDNIGHT + timedelta(days=n) for n in days)
    with tempfile.TemporaryDirectory() as folder, open_home(Path(folder)) as home:
        home.log.put(EXCHANGES_TOPIC, EXCHANGE.name, EXCHANGE.to_json())
        home.registry.register(TOPIC.subject, versions("trades")[0].avro)
        home.log.create(str(TOPIC), 1)
        for action in [*script, "commit"]:
            if isinstance(action, list):
                append_made(home, action)
            elif action == "commit":
                home.catch_up()
        before, sound = content(home), audit(home.log, home.lake)
        for number, file in enumerate(files(home)):
            of = file.exchange_date
            chosen = of and (first is None or of >= first) and (last is None or of <= last)
            if chosen and number % 2 == 0:
                Path(file.path).unlink()
        wanted = Wanted("trades", first, last)
        rebuild(home.log, home.registry, home.lake, wanted)
        assert content(home) == before
        assert audit(home.log, home.lake) == sound
        assert sound.ok
