"""Data files that nothing needs: noted first, removed after a while, never one that is needed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2.errors import Conflict
from k2.lake import Commit, Lake, LakeTable, maintain, open_lake
from k2.lake.remove import Removed, remove_unneeded
from k2.model import Exchange
from tests.lake.make import DAY, append, at, rejected, stored, trades

HOUR = timedelta(hours=1)


@pytest.fixture
def now() -> list[datetime]:
    return [datetime(2026, 11, 21, 12, tzinfo=UTC)]


@pytest.fixture
def lake(tmp_path: Path, now: list[datetime]) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake", clock=lambda: now[0], keep_snapshots=3)
    yield lake
    lake.close()


def on_disk(table: LakeTable) -> set[str]:
    return {str(path) for path in (table.metadata_folder.parent / "data").rglob("*.parquet")}


def named(table: LakeTable) -> set[str]:
    return {file.path for file in table.snapshot().files.select()}


def filled(lake: Lake) -> LakeTable:
    """A table of three small files of a day that is over, and two commits behind them."""
    table = lake.table("trades")
    exchange = Exchange("sim", "crypto", "UTC")
    table.commit(Commit((), {}, at(0), exchanges=(exchange,)))
    for _ in range(3):
        append(table, 20)
    return table


def test_a_file_stays_while_a_kept_snapshot_names_it_and_an_hour_longer(
    lake: Lake, now: list[datetime]
) -> None:
    table = filled(lake)
    old = named(table)
    assert maintain(lake, "trades").commits == 1
    now[0] += 2 * HOUR
    # The snapshots before the compaction are kept yet, for other engines.
    assert remove_unneeded(lake, "trades") == Removed(0, 0, 0, 0)
    for _ in range(4):
        append(table, 20)
        lake.absorb("trades")
    append(table, 20)

    found = remove_unneeded(lake, "trades")
    assert (found.files, found.waiting) == (0, 3)
    now[0] += HOUR - timedelta(seconds=1)
    assert remove_unneeded(lake, "trades").files == 0
    assert old < on_disk(table)
    now[0] += timedelta(seconds=1)
    assert remove_unneeded(lake, "trades", dry_run=True).files == 3
    assert old < on_disk(table)
    assert remove_unneeded(lake, "trades").files == 3
    assert not old & on_disk(table)
    assert remove_unneeded(lake, "trades") == Removed(0, 0, 0, 0)
    assert [offset for _, offset in stored(lake)] == list(range(160))


def test_what_was_never_committed_is_removed_and_a_frozen_writer_starts_anew(
    lake: Lake, now: list[datetime]
) -> None:
    table = filled(lake)
    head = table.snapshot()
    late = table.write(trades(20, first_offset=60), DAY)
    beside = rejected(lake, 80)
    commit = Commit((late,), head.offsets, at(81), outbox=(beside,))
    assert remove_unneeded(lake, "trades").waiting == 1
    assert remove_unneeded(lake, "rejected").waiting == 1
    now[0] += HOUR
    assert remove_unneeded(lake, "rejected").files == 1
    # Of its rows one ledger's file is gone: neither may count.
    with pytest.raises(Conflict, match="not there"):
        table.commit(commit)
    assert remove_unneeded(lake, "trades").files == 1
    with pytest.raises(Conflict, match="not there"):
        table.commit(commit)
    assert append(table, 20).files.rows == 80


def test_a_file_that_is_named_in_the_meantime_is_needed(lake: Lake, now: list[datetime]) -> None:
    table = filled(lake)
    head = table.snapshot()
    late = table.write(trades(20, first_offset=60), DAY)
    remove_unneeded(lake, "trades")
    table.commit(Commit((late,), head.offsets, at(80)))
    now[0] += HOUR
    assert remove_unneeded(lake, "trades") == Removed(0, 0, 0, 0)
    assert late.path in on_disk(table)


def test_a_commit_between_the_look_and_the_removal_is_seen(
    lake: Lake, now: list[datetime], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = filled(lake)
    head = table.snapshot()
    late = table.write(trades(20, first_offset=60), DAY)
    remove_unneeded(lake, "trades")
    now[0] += HOUR
    other = open_lake(tmp_path / "lake")
    exclusive = table.catalog.exclusive

    def later() -> object:
        monkeypatch.undo()
        other.table("trades").commit(Commit((late,), head.offsets, at(80)))
        return exclusive()

    monkeypatch.setattr(table.catalog, "exclusive", later)
    assert remove_unneeded(lake, "trades").files == 0
    assert late.path in on_disk(table)
    assert table.snapshot().files.rows == 80
    other.close()


def test_a_ledgers_file_is_needed_from_the_outbox_to_the_ledger(
    lake: Lake, now: list[datetime]
) -> None:
    table = filled(lake)
    head = table.snapshot()
    file = rejected(lake, 60)
    table.commit(Commit((), head.offsets, at(61), outbox=(file,)))
    for _ in range(2):
        assert remove_unneeded(lake, "rejected", timedelta(0)) == Removed(0, 0, 0, 0)
        lake.absorb("trades")
    append_after(table, 61)
    assert table.snapshot().outbox == ()
    assert remove_unneeded(lake, "rejected", timedelta(0)) == Removed(0, 0, 0, 0)


def append_after(table: LakeTable, offset: int) -> None:
    head = table.snapshot()
    file = table.write(trades(5, first_offset=offset), DAY)
    table.commit(Commit((file,), head.offsets, at(offset + 5)))


def test_torn_notes_begin_the_wait_anew(lake: Lake, now: list[datetime]) -> None:
    table = filled(lake)
    table.write(trades(20, first_offset=60), DAY)
    assert remove_unneeded(lake, "trades").waiting == 1
    (table.metadata_folder.parent / "unneeded.json").write_text('{"/a', "utf-8")
    now[0] += HOUR
    assert remove_unneeded(lake, "trades").waiting == 1
    now[0] += HOUR
    assert remove_unneeded(lake, "trades").files == 1
