"""Commits: exact offsets, one winner, nothing half done."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from k2.errors import Conflict, Fenced, NotFound, Refused, Unavailable
from k2.lake import Commit, Lake, LakeTable, Loss, ShedRange, definition, open_lake
from k2.lake.catalog import Catalog
from k2.model import Exchange
from tests.lake.make import DAY, TOPIC, append, at, trades

SIM = Exchange("sim", "crypto", "UTC")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake")
    yield lake
    lake.close()


def test_a_commit_brings_rows_and_offsets_together(lake: Lake) -> None:
    table = lake.table("trades")
    assert table.snapshot().sequence == 0

    file = table.write(trades(100), DAY)
    assert table.snapshot().files.rows == 0
    done = table.commit(Commit((file,), {}, at(100), exchanges=(SIM,)))

    assert (done.sequence, done.files.rows, done.offsets) == (1, 100, at(100))
    assert done.exchanges == {"sim": SIM}
    assert table.snapshot() == done


def test_an_empty_commit_is_a_snapshot(lake: Lake) -> None:
    done = lake.table("trades").commit(Commit((), {}, at(7)))

    assert (done.sequence, done.files.rows, done.offsets) == (1, 0, at(7))


def test_a_commit_sent_twice_is_one(lake: Lake) -> None:
    table = lake.table("trades")
    commit = Commit((table.write(trades(100), DAY),), {}, at(100))

    first, second = table.commit(commit), table.commit(commit)

    assert first.sequence == second.sequence == 1
    assert second.files.rows == 100


def test_a_zombie_is_fenced(lake: Lake, tmp_path: Path) -> None:
    zombie = open_lake(tmp_path / "lake").table("trades")
    stale = Commit((zombie.write(trades(50), DAY),), zombie.snapshot().offsets, at(50))
    append(lake.table("trades"), 100)

    with pytest.raises(Fenced) as caught:
        zombie.commit(stale)

    assert caught.value.place == "trades: market.crypto.trades.sim[0]"
    assert zombie.snapshot().files.rows == 100
    assert not left_over(lake)


def test_a_commit_on_other_partitions_is_a_conflict_and_can_be_sent_anew(lake: Lake) -> None:
    table = lake.table("trades")
    file = table.write(trades(50, partition=1), DAY)
    stale = Commit((file,), {}, at(50, 1))
    append(table, 100)

    with pytest.raises(Conflict) as caught:
        table.commit(stale)
    assert not isinstance(caught.value, Fenced)

    head = table.snapshot().offsets
    done = table.commit(replace(stale, start=head, end=at(50, 1, head)))
    assert done.files.rows == 150
    assert done.offsets[next(iter(done.offsets))].next_offset == {0: 100, 1: 50}


def test_an_exchange_cannot_be_declared_differently(lake: Lake) -> None:
    table = lake.table("trades")
    table.commit(Commit((), {}, {}, exchanges=(SIM,)))
    other = replace(SIM, day_roll=timedelta(hours=1))

    with pytest.raises(Refused, match="declared differently"):
        table.commit(Commit((), {}, {}, exchanges=(other,)))


class AnswerLost(Catalog):
    """A catalog whose swap happens, but the answer gets lost."""

    def swap(self, table: str, old: str, new: str, ready: Callable[[], bool]) -> bool:
        super().swap(table, old, new, ready)
        raise Unavailable("the answer was lost")


class Away(Catalog):
    """A catalog that is away once, before the swap."""

    away = True

    def swap(self, table: str, old: str, new: str, ready: Callable[[], bool]) -> bool:
        if self.away:
            self.away = False
            raise Unavailable("away")
        return super().swap(table, old, new, ready)


class OldNews(Catalog):
    """A catalog that once answers with the document before the present one."""

    stale: str | None = None

    def location(self, table: str) -> str | None:
        stale, self.stale = self.stale, None
        return stale or super().location(table)


def table_on(catalog: Catalog) -> LakeTable:
    return LakeTable(
        catalog,
        definition("trades"),
        clock=lambda: datetime.now(UTC),
        unique=uuid4,
        absorbed=lambda ledger: 0,
        keep_snapshots=100,
    )


def test_a_commit_whose_answer_was_lost_is_found_again(lake: Lake) -> None:
    lake.table("trades")
    catalog = AnswerLost(lake.folder / "catalog.db", read_only=False)
    table = table_on(catalog)

    done = table.commit(Commit((table.write(trades(10), DAY),), {}, at(10)))

    assert (done.sequence, done.files.rows) == (1, 10)
    assert lake.table("trades").snapshot().files.rows == 10
    assert append(lake.table("trades"), 10).files.rows == 20
    catalog.close()


def test_a_commit_that_did_not_happen_leaves_nothing_and_can_be_sent_again(lake: Lake) -> None:
    lake.table("trades")
    catalog = Away(lake.folder / "catalog.db", read_only=False)
    table = table_on(catalog)
    commit = Commit((table.write(trades(10), DAY),), {}, at(10))

    with pytest.raises(Unavailable, match="away"):
        table.commit(commit)
    assert not left_over(lake)
    assert lake.table("trades").snapshot().sequence == 0
    assert table.commit(commit).files.rows == 10
    catalog.close()


def test_a_swap_is_refused_when_what_it_names_is_gone(lake: Lake) -> None:
    location = lake.table("trades").head().location
    catalog = Catalog(lake.folder / "catalog.db", read_only=False)

    assert not catalog.swap("trades", location, "file:///new", lambda: False)
    assert not catalog.swap("trades", "file:///old", "file:///new", lambda: True)
    assert catalog.location("trades") == location
    catalog.close()


def test_a_reader_that_was_too_slow_reads_the_newest_document(lake: Lake) -> None:
    catalog = OldNews(lake.folder / "catalog.db", read_only=False)
    table = table_on(catalog)
    append(lake.table("trades"), 10)
    location = lake.table("trades").head().location
    document = Path(location.removeprefix("file://"))
    document.rename(lake.folder / "gone")
    with pytest.raises(NotFound, match="not there"):
        table.snapshot()
    (lake.folder / "gone").rename(document)
    for _ in range(12):
        append(lake.table("trades"), 10)
    catalog.stale = location

    assert not document.exists()
    assert table.snapshot().files.rows == 130
    catalog.close()


def left_over(lake: Lake) -> set[str]:
    """Metadata files that the present document does not name."""
    head = lake.table("trades").head()
    named = {head.location, *(e["metadata-file"] for e in head.metadata["metadata-log"])}
    named |= {s["manifest-list"] for s in head.metadata["snapshots"]}
    named |= {m["manifest_path"] for m in head.manifests}
    folder = lake.folder / "tables" / "trades" / "metadata"
    return {path.name for path in folder.iterdir()} - {uri.rsplit("/", 1)[1] for uri in named}


@pytest.mark.slow
def test_the_thousandth_commit_costs_what_the_tenth_did(lake: Lake) -> None:
    table = lake.table("trades")
    seconds = []
    for n in range(1000):
        head = table.snapshot().offsets
        file = table.write(trades(10, first_offset=10 * n), DAY)
        begun = time.process_time()
        table.commit(Commit((file,), head, at(10 * n + 10)))
        seconds.append(time.process_time() - begun)
        if n % 50 == 49:
            lake.absorb("trades")

    early, late = sorted(seconds[10:210]), sorted(seconds[800:])
    assert late[100] < 2 * early[100]
    assert late[198] < 3 * early[198]
    assert len(table.head().metadata["snapshots"]) == 100
    assert table.snapshot().files.rows == 10_000


def test_many_threads_look_while_one_commits(lake: Lake) -> None:
    table = lake.table("trades")
    append(table, 10)
    done = threading.Event()

    def look() -> list[tuple[int, int]]:
        seen = []
        while not done.is_set():
            snapshot = table.snapshot()
            seen.append((snapshot.sequence, snapshot.files.rows))
        return seen

    with ThreadPoolExecutor(4) as threads:
        watching = [threads.submit(look) for _ in range(4)]
        for _ in range(10):
            append(table, 10)
        done.set()
    for watcher in watching:
        seen = watcher.result()
        assert seen == sorted(seen)
        assert all(rows == 10 * sequence for sequence, rows in seen)


def test_what_a_writer_had_read_before_it_was_deleted_is_no_loss(lake: Lake) -> None:
    table = lake.table("trades")
    append(table, 10)
    lost = Loss(TOPIC, "log-1", 0, 10, 40)
    other = Loss(TOPIC, "log-1", 1, 0, 7)
    start = table.snapshot().offsets
    table.commit(Commit((), start, start, losses=(lost, other)))
    # It holds the first ten of these in memory.
    assert append(table, 10).losses == (replace(lost, first_offset=20), other)
    left = replace(lost, first_offset=20, accepted=True)
    head = table.snapshot().offsets
    done = table.commit(Commit((), head, at(40, others=head), losses=(left,)))
    assert set(done.losses) == {left, other}
    assert set(append(table, 10).losses) == {left, other}


def test_a_loss_that_was_none_at_all_is_forgotten(lake: Lake) -> None:
    table = lake.table("trades")
    append(table, 10)
    start = table.snapshot().offsets
    table.commit(Commit((), start, start, losses=(Loss(TOPIC, "log-1", 0, 10, 40),)))
    assert append(table, 30).losses == ()


def test_what_was_shed_and_came_in_meanwhile_is_looked_at(lake: Lake) -> None:
    table = lake.table("trades")
    shed = ShedRange("one", TOPIC, "log-1", 0, 0, 10, 10)
    base = table.commit(Commit((), {}, at(10), shed=(shed,)))
    batch = table.write(trades(5, first_offset=10), DAY)
    mine = Commit((batch,), base.offsets, at(15), start_shed=base.shed)
    other = table.write(trades(10), DAY)
    table.commit(Commit((other,), base.offsets, base.offsets, filled=(shed,)))

    with pytest.raises(Conflict, match="in between") as caught:
        table.commit(mine)

    assert "shed" in str(caught.value.place)
    assert table.commit(replace(mine, beside=lambda head: True)).files.rows == 15
