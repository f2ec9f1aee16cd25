"""Many processes at once, killed and stopped at any moment: every offset is there once."""

import os
import random
import signal
import sqlite3
import time
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2.lake import Lake, open_lake
from tests.lake.child import (
    ROWS,
    absorb_forever,
    commit_forever,
    commit_once,
    context,
    race,
    start,
)
from tests.lake.make import TOPIC, stored


def check(lake: Lake) -> int:
    """Every offset has one fate: a row, or a line in the ledger; the next offset."""
    table = lake.table("trades")
    end = table.snapshot().offsets[TOPIC].next_offset[0] if table.snapshot().offsets else 0
    rows = [offset for _, offset in stored(lake)]
    refused = [
        offset
        for file in lake.ledger_files("rejected")
        for offset in pq.ParquetFile(file.path).read()["log_offset"].to_pylist()
    ]
    assert sorted(rows + refused) == list(range(end))
    assert len(refused) == end // ROWS
    commits = lake.commits_of("trades")
    assert commits["commit"].to_pylist() == list(range(1, end // ROWS + 1))
    return end


def test_of_two_racing_writers_one_wins_each_round(tmp_path: Path) -> None:
    open_lake(tmp_path).close()
    won = context().Queue()
    children = [start(race, tmp_path, 8, won) for _ in range(2)]
    wins = won.get(timeout=60) + won.get(timeout=60)
    for child in children:
        child.join(60)

    lake = open_lake(tmp_path)
    assert check(lake) == wins * ROWS
    assert lake.table("trades").snapshot().sequence == wins
    # The loser of a race takes away what it wrote.
    assert lake.clean("trades", timedelta(seconds=-1)) == 0
    lake.close()


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_writers_killed_at_any_moment_lose_and_double_nothing(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    lake = open_lake(tmp_path)
    for _ in range(kills):
        ready = context().Event()
        child = start(commit_forever, tmp_path, ready)
        assert ready.wait(60)
        time.sleep(chance.uniform(0, 0.12))
        child.kill()
        child.join(60)
        check(lake)
    for _ in range(3):
        assert commit_once(lake)
    assert lake.absorb("trades") > 0
    assert check(lake) >= 3 * ROWS
    assert lake.table("trades").snapshot().absorbed == {}
    assert lake.table("rejected").snapshot().files.rows == check(lake) // ROWS
    lake.close()


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_absorbers_killed_at_any_moment_absorb_once(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    lake = open_lake(tmp_path)
    for _ in range(kills):
        ready = [context().Event() for _ in range(2)]
        children = [start(absorb_forever, tmp_path, event) for event in ready]
        assert all(event.wait(60) for event in ready)
        for _ in range(3):
            commit_once(lake)
            time.sleep(chance.uniform(0, 0.02))
        for child in children:
            child.kill()
            child.join(60)
        check(lake)
    lake.absorb("trades")
    assert lake.absorb("trades") == 0
    check(lake)
    lake.close()


def test_a_stopped_writer_wakes_up_fenced(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    commit_once(lake)
    ready = context().Event()
    zombie = start(commit_forever, tmp_path, ready)
    assert ready.wait(60)
    assert zombie.pid is not None
    for _ in range(6):
        time.sleep(0.02)
        os.kill(zombie.pid, signal.SIGSTOP)
        if not _holds_catalog(tmp_path):
            commit_once(lake)
            check(lake)
        os.kill(zombie.pid, signal.SIGCONT)
    zombie.kill()
    zombie.join(60)
    check(lake)
    lake.close()


def _holds_catalog(folder: Path) -> bool:
    """Was the stopped process in the middle of a swap? Then nobody can commit before it wakes."""
    connection = sqlite3.connect(folder / "catalog.db", timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False
