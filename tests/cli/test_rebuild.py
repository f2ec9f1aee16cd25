"""`k2 rebuild`: a file that the audit misses is made again; what cannot be is said, and why."""

import json
from pathlib import Path

import pytest

from k2.cli.commands import rebuild
from k2.lake import RECORD_TABLES, open_lake
from k2.log import open_log
from tests.cli.conftest import K2
from tests.cli.test_shed import shed

TRADES = "market.crypto.trades.simulated"


def data_files(home: Path) -> list[Path]:
    lake = open_lake(home / "lake", read_only=True)
    found = [Path(file.path) for file in lake.table("trades").snapshot().files.select()]
    lake.close()
    return found


@pytest.fixture
def home(k2: K2, tmp_path: Path) -> Path:
    """A home with 300 trades, and nothing else."""
    k2("feed", "simulator:?rate=max&kinds=trades&count=300")
    k2("ingest", "--until-caught-up")
    return tmp_path / "home"


def test_tables_are_those_of_records() -> None:
    assert rebuild.TABLES == RECORD_TABLES


def test_what_the_audit_misses_is_made_again(k2: K2, home: Path) -> None:
    before = k2("trades", "--csv").out
    (gone,) = data_files(home)
    gone.unlink()
    assert k2("audit").code == 1

    dry = json.loads(k2("rebuild", "--dry-run", "--json").out)
    assert dry["dry_run"]
    assert k2("audit").code == 1
    ended = k2("rebuild", "trades", "--from", "2026-01-05", "--to", "2026-01-05", "--json")

    assert ended.code == 0
    (told,) = json.loads(ended.out)["tables"]
    assert (told["table"], told["rows"], told["commit"]) == ("trades", 300, 2)
    assert told["unreadable"] == [str(gone)]
    assert f"{gone} cannot be read" in ended.talk
    assert k2("audit").code == 0
    assert k2("trades", "--csv").out == before
    header, *rows = k2("rebuild").out.splitlines()
    assert header.split()[:3] == ["table", "files_before", "rows_before"]
    assert [row.split()[0] for row in rows][:2] == ["trades", "quotes"]


def test_what_the_log_no_longer_holds_is_refused(k2: K2, home: Path) -> None:
    log = open_log(home / "log.db")
    log.trim(TRADES, 0, log.end_offset(TRADES, 0))
    log.close()
    ended = k2("rebuild")
    assert ended.code == 1
    assert f"{TRADES}[0] offsets 0 to" in ended.talk
    assert "nothing was changed" in ended.talk


def test_wrong_usage(k2: K2, home: Path) -> None:
    assert k2("rebuild", "gaps").code == 2
    assert k2("rebuild", "--from", "2026-01-06", "--to", "2026-01-05").code == 2
    assert k2("rebuild", "--from", "soon").code == 2


def test_an_audit_tells_of_partitions_whose_own_records_are_right(k2: K2, home: Path) -> None:
    (gone,) = data_files(home)
    k2("feed", "simulator:?rate=max&kinds=trades&count=100&exchange=other")
    k2("ingest", "--until-caught-up")
    gone.unlink()
    ended = k2("audit")
    assert ended.code == 1
    assert "market.crypto.trades.simulated partition 0, offset 0: " in ended.talk
    assert "market.crypto.trades.other partition 0: the file" in ended.talk


def test_what_was_shed_waits_as_before_and_what_was_brought_in_comes_back(
    k2: K2, tmp_path: Path
) -> None:
    k2("feed", "simulator:?rate=max&kinds=trades&count=3000&symbols=8")
    left = shed(tmp_path / "home")
    for file in data_files(tmp_path / "home"):
        file.unlink()
    assert k2("audit").code == 1
    assert k2("rebuild", "trades").code == 0
    (part,) = json.loads(k2("audit", "--json").out)["partitions"]
    assert (part["committed"], part["shed"], part["problem"]) == (3000 - left, left, None)

    k2("shed", "backfill")
    before = k2("trades", "--csv", "--limit", "3000").out
    for file in data_files(tmp_path / "home"):
        file.unlink()
    assert k2("rebuild").code == 0
    assert k2("audit").code == 0
    assert k2("trades", "--csv", "--limit", "3000").out == before
