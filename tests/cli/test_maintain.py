"""`k2 maintain`: fewer files, the same answers; told, done once, or done again and again."""

import json
import os
import signal
from pathlib import Path

import pytest

from k2.cli.commands import maintain
from k2.lake import LEDGERS, RECORD_TABLES, open_lake
from tests.cli.conftest import K2
from tests.cli.running import running, wait_for


@pytest.fixture
def home(k2: K2, tmp_path: Path) -> Path:
    """A home with 600 trades in four files of a day that is long over."""
    for count in (100, 300, 450, 600):
        k2("feed", f"simulator:?rate=max&kinds=trades&count={count}")
        k2("ingest", "--until-caught-up")
    return tmp_path / "home"


def files(home: Path) -> list[Path]:
    lake = open_lake(home / "lake", read_only=True)
    found = [Path(file.path) for file in lake.table("trades").snapshot().files.select()]
    lake.close()
    return found


def test_tables_are_those_there_are() -> None:
    assert maintain.TABLES == RECORD_TABLES
    assert maintain.LEDGERS == LEDGERS


def test_files_become_few_and_answers_stay(k2: K2, home: Path, tmp_path: Path) -> None:
    before = k2("trades", "--csv").out
    bars = k2("bars", "--interval", "1m", "--csv", "SYM1").out
    snapshots = json.loads(k2("snapshots", "trades", "--json").out)["data"]
    middle = str(snapshots[2]["snapshot_id"])
    then = k2("trades", "--as-of", middle, "--csv").out
    old = files(home)
    assert len(old) == 4

    dry = json.loads(k2("maintain", "--dry-run", "--json").out)
    trades = next(row for row in dry["tables"] if row["table"] == "trades")
    assert dry["dry_run"]
    assert (trades["files_before"], trades["files"], trades["commits"]) == (4, 4, 1)
    assert trades["rows_rewritten"] == 600
    assert files(home) == old

    ended = k2("maintain", "trades", "--json")
    assert ended.code == 0
    (row,) = json.loads(ended.out)["tables"]
    assert (row["files_before"], row["files"], row["commits"]) == (4, 1, 1)
    assert k2("trades", "--csv").out == before
    assert k2("bars", "--interval", "1m", "--csv", "SYM1").out == bars
    assert k2("trades", "--as-of", middle, "--csv").out == then
    assert k2("audit").code == 0
    assert all(path.exists() for path in old)
    # A commit brought nothing new: the ledger says what it was.
    newest = json.loads(k2("snapshots", "trades", "--json").out)["data"][0]
    assert (newest["operation"], newest["rows"]) == ("replace", 0)


def test_a_file_that_nothing_needs_stays_for_readers_first(
    k2: K2, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K2_SNAPSHOTS_KEPT", "1")
    monkeypatch.setenv("K2_REMOVE_AFTER_SECONDS", "0.5")
    old = files(home)
    k2("maintain", "trades")
    k2("feed", "simulator:?rate=max&kinds=trades&count=700")
    k2("ingest", "--until-caught-up")
    k2("feed", "simulator:?rate=max&kinds=trades&count=800")
    k2("ingest", "--until-caught-up")
    ended = k2("maintain", "trades")
    assert "4 files that nothing needs stay for now" in ended.talk
    assert all(path.exists() for path in old)
    header, row = k2("maintain", "trades").out.splitlines()[:2]
    told = dict(zip(header.split(), row.split(), strict=True))
    assert int(told["removed_files"]) + int(told["waiting_files"]) >= 4


def test_the_buckets_of_later_days_are_chosen(k2: K2, home: Path) -> None:
    assert k2("maintain", "trades", "--buckets", "32").code == 0
    lake = open_lake(home / "lake", read_only=True)
    assert (lake.table("trades").buckets, lake.table("quotes").buckets) == (32, 16)
    lake.close()


def test_wrong_usage(k2: K2, home: Path, tmp_path: Path) -> None:
    assert k2("maintain", "--buckets", "0").code == 2
    assert k2("maintain", "--buckets", "8", "--dry-run").code == 2
    assert k2("maintain", "--follow", "--dry-run").code == 2
    assert k2("maintain", "nothing").code == 2
    assert k2("--home", str(tmp_path / "no"), "maintain").code == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_following_it_maintains_until_it_is_told_to_end(home: Path) -> None:
    settings = {"K2_MAINTAIN_SECONDS": "0.2"}
    with running("--home", str(home), "maintain", "--follow", **settings) as run:
        wait_for(lambda: len(files(home)) == 1, run)
        os.kill(run.process.pid, signal.SIGTERM)
        assert run.process.wait(30) == 0, run.lines
