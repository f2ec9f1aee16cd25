"""Another engine rewrites files: rows stay, and what was there before is refused, never guessed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from k2.errors import Broken
from k2.lake import Commit, Lake, LakeTable, maintain, open_lake
from k2.model import Exchange
from tests.lake.make import append, at, stored


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    later = datetime(2026, 11, 22, tzinfo=UTC)
    lake = open_lake(tmp_path / "lake", clock=lambda: later, keep_snapshots=2)
    yield lake
    lake.close()


def filled(lake: Lake) -> LakeTable:
    table = lake.table("trades")
    table.commit(Commit((), {}, at(0), exchanges=(Exchange("sim", "crypto", "UTC"),)))
    for _ in range(4):
        append(table, 50)
    return table


def rewrite(lake: Lake) -> None:
    """Write all rows anew by PyIceberg, which keeps what the columns say, and knows no commits."""
    catalog = SqlCatalog("k2", uri=f"sqlite:///{lake.folder}/catalog.db")
    theirs = catalog.load_table("market.trades")
    theirs.overwrite(theirs.scan().to_arrow())


def test_a_foreign_rewrite_is_noticed_for_good(lake: Lake) -> None:
    table = filled(lake)
    middle = table.snapshot().sequence - 2
    table.snapshot().check_past(middle)
    rewrite(lake)

    snapshot = table.snapshot()
    assert [offset for _, offset in stored(lake)] == list(range(200))
    assert snapshot.foreign
    with pytest.raises(Broken, match="another engine has rewritten") as caught:
        snapshot.check_past(middle)
    assert "k2 rebuild" in str(caught.value.hint)
    snapshot.check_past(snapshot.sequence)
    # Its snapshots expire, and it is known nevertheless.
    lake.absorb("trades")
    for _ in range(5):
        append(table, 10)
        lake.absorb("trades")
    kept = {s["sequence-number"] for s in table.head().metadata["snapshots"]}
    assert not kept & set(table.snapshot().foreign)
    with pytest.raises(Broken, match="another engine has rewritten"):
        table.snapshot().check_past(middle)
    table.snapshot().check_past(table.snapshot().sequence - 1)


def test_its_files_are_not_compacted_with_a_commit_that_is_none(lake: Lake) -> None:
    table = filled(lake)
    rewrite(lake)
    before = {file.path for file in table.snapshot().files.select()}
    maintain(lake, "trades")
    assert {file.path for file in table.snapshot().files.select()} == before


def test_what_others_append_came_with_their_commit(lake: Lake) -> None:
    table = filled(lake)
    catalog = SqlCatalog("k2", uri=f"sqlite:///{lake.folder}/catalog.db")
    theirs = catalog.load_table("market.trades")
    theirs.append(theirs.scan(limit=10).to_arrow())
    snapshot = table.snapshot()
    assert (snapshot.files.rows, snapshot.foreign) == (210, ())
    snapshot.check_past(2)


def test_a_compacted_table_loses_nothing_by_a_foreign_rewrite(lake: Lake) -> None:
    table = filled(lake)
    maintain(lake, "trades")
    rewrite(lake)
    # Every row had its commit written out, and keeps it.
    assert table.snapshot().foreign
    table.snapshot().check_past(3)
