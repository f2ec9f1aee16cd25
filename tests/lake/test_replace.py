"""Files in the place of others: one snapshot, rows and commits as they were, whoever commits."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from k2.errors import Conflict
from k2.lake import DataFileRef, Lake, LakeTable, WrittenFile, open_lake
from k2.lake.files import write_new
from k2.lake.stage import MERGE_AT
from tests.lake.make import DAY, append, at, stored


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake")
    yield lake
    lake.close()


def stranger(lake: Lake) -> Table:
    catalog = SqlCatalog("k2", uri=f"sqlite:///{lake.folder}/catalog.db", warehouse="file:///tmp")
    return catalog.load_table("market.trades")


def again(table: LakeTable, files: tuple[DataFileRef, ...]) -> WrittenFile:
    """The rows of these files in one, each with the commit that brought it."""
    parts = []
    for file in files:
        rows = pq.ParquetFile(file.path).read().cast(table.definition.arrow)
        at_column = rows.schema.get_field_index("commit_sequence")
        commits = pc.coalesce(rows["commit_sequence"], pa.scalar(file.sequence, pa.int64()))
        parts.append(rows.set_column(at_column, "commit_sequence", commits))
    return table.write(pa.concat_tables(parts), DAY)


def as_of(lake: Lake, commit: int) -> list[Any]:
    """Rows that were there by that commit, read as the index tells."""
    found = []
    for file in lake.table("trades").snapshot().files.select(as_of=commit):
        rows = pq.ParquetFile(file.path).read(["trade_id", "commit_sequence"])
        brought = pc.coalesce(rows["commit_sequence"], pa.scalar(file.sequence, pa.int64()))
        found += rows.filter(pc.less_equal(brought, commit))["trade_id"].to_pylist()
    return sorted(found)


def test_other_engines_see_the_same_rows_and_every_commit_stays(lake: Lake) -> None:
    table = lake.table("trades")
    for _ in range(4):
        append(table, 50)
    before, rows = [as_of(lake, n) for n in range(1, 5)], stored(lake)
    old = table.snapshot().files.select()[1:3]

    done = table.replace([file.path for file in old], [again(table, old)])

    assert (done.sequence, len(done.files), done.files.rows, done.offsets) == (5, 3, 200, at(200))
    assert [as_of(lake, n) for n in range(1, 5)] == before
    assert stored(lake) == rows
    seen = stranger(lake)
    assert seen.scan().to_arrow().num_rows == 200
    summary = seen.current_snapshot().summary  # type: ignore[union-attr]
    assert summary is not None
    assert summary.operation.value == "replace"
    assert (summary["total-records"], summary["total-data-files"]) == ("200", "3")
    assert all(Path(file.path).exists() for file in old)
    # Older snapshots go on naming the older files.
    first = seen.snapshots()[3].snapshot_id
    assert seen.scan(snapshot_id=first).to_arrow().num_rows == 200
    assert lake.commits_of("trades")["rows"].to_pylist() == [50, 50, 50, 50, 0]


def test_commits_go_on_and_manifests_of_nothing_are_let_go(lake: Lake) -> None:
    table = lake.table("trades")
    for _ in range(2 * MERGE_AT):
        append(table, 5)
    old = table.snapshot().files.select()
    table.replace([file.path for file in old], [again(table, old)])
    append(table, 5)
    assert all(m["added_files_count"] + m["existing_files_count"] for m in table.head().manifests)
    for _ in range(2 * MERGE_AT - 1):
        append(table, 5)
    assert table.snapshot().files.rows == 20 * MERGE_AT
    assert stranger(lake).scan().to_arrow().num_rows == 20 * MERGE_AT
    assert len(table.head().manifests) < 2 * MERGE_AT


def test_a_commit_in_between_stays(lake: Lake, tmp_path: Path) -> None:
    table = lake.table("trades")
    append(table, 50)
    old = table.snapshot().files.select()
    file = again(table, old)
    other = open_lake(tmp_path / "lake")
    append(other.table("trades"), 30)

    assert table.replace([f.path for f in old], [file]).files.rows == 80
    assert append(other.table("trades"), 20).files.rows == 100
    other.close()


def test_lost_races_write_no_manifest_a_second_time(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.table("trades")
    for _ in range(5):
        append(table, 10)
    old = table.snapshot().files.select()
    file = again(table, old)
    other = open_lake(tmp_path / "lake")
    swap, lost = table.catalog.swap, iter(range(6))
    written: list[str] = []

    def swap_late(name: str, before: str, after: str, ready: Callable[[], bool]) -> bool:
        if next(lost, None) is not None:
            append(other.table("trades"), 10)
        return swap(name, before, after, ready)

    def counted(path: Path, content: bytes) -> None:
        written.append(path.name)
        write_new(path, content)

    monkeypatch.setattr(table.catalog, "swap", swap_late)
    monkeypatch.setattr("k2.lake.stage.write_new", counted)
    done = table.replace([f.path for f in old], [file])
    monkeypatch.undo()
    other.close()

    manifests = [name for name in written if "-m" in name]
    # The other's commits write one each, each of ours one for the new file; five are rewritten.
    assert len(manifests) == 6 + 7 + 5
    assert (done.files.rows, len(done.files)) == (110, 7)
    assert stranger(lake).scan().to_arrow().num_rows == 110
    seen = stranger(lake)
    named = {m.manifest_path for s in seen.snapshots() for m in s.manifests(seen.io)}
    assert {f"file://{path}" for path in table.metadata_folder.glob("*-m*.avro")} == named
    assert append(table, 10).files.rows == 120


def test_of_two_replacements_one_wins(lake: Lake) -> None:
    table = lake.table("trades")
    append(table, 50)
    old = table.snapshot().files.select()
    first, second = again(table, old), again(table, old)
    table.replace([f.path for f in old], [first])

    with pytest.raises(Conflict, match="no longer in the table"):
        table.replace([f.path for f in old], [second])

    assert [f.path for f in table.snapshot().files.select()] == [first.path]
