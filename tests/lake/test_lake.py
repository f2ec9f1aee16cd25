"""Opening, reading only, cleaning up, and what is said when something is wrong."""

import errno
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from k2.errors import BadInput, Broken, Conflict, NotFound, Refused, Unavailable
from k2.lake import LEDGERS, RECORD_TABLES, Commit, Lake, definition, open_lake
from k2.lake.files import unwritable
from tests.lake.make import DAY, append, at, rejected, stored, trades


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake", keep_snapshots=4)
    yield lake
    lake.close()


def test_a_lake_that_is_not_there_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        open_lake(tmp_path / "none", read_only=True)
    assert caught.value.hint == "load something first: k2 load"
    assert not (tmp_path / "none").exists()


def test_reading_only_makes_and_changes_nothing(lake: Lake) -> None:
    append(lake.table("trades"), 10)
    reader = open_lake(lake.folder, read_only=True)

    assert reader.tables() == ["trades"]
    assert not reader.has("quotes")
    with pytest.raises(NotFound, match="no table quotes yet"):
        reader.table("quotes")
    with pytest.raises(Refused, match="reading only"):
        reader.table("trades").write(trades(1), DAY)
    with pytest.raises(Refused, match="reading only"):
        reader.table("trades").commit(Commit((), at(10), at(11)))
    assert reader.table("trades").snapshot().files.rows == 10
    reader.close()


def test_a_reader_follows_a_writer_past_many_commits(lake: Lake) -> None:
    table = lake.table("trades")
    reader = open_lake(lake.folder, read_only=True).table("trades")
    for _ in range(15):
        append(table, 2)
        lake.absorb("trades")
    lake.clean("trades", timedelta(0))

    assert reader.snapshot() == table.snapshot() or reader.snapshot().files.rows == 30
    assert reader.snapshot().sequence == 15
    same = reader.snapshot()
    assert reader.snapshot() is same


def test_reading_imports_no_engine(lake: Lake) -> None:
    append(lake.table("trades"), 10)
    code = f"""
import sys
from pathlib import Path
from k2.lake import open_lake
print(open_lake(Path({str(lake.folder)!r}), read_only=True).table("trades").snapshot().files.rows)
print([m for m in ("pyiceberg", "sqlalchemy", "polars", "duckdb") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "10\n[]\n"


def test_a_table_that_is_none_of_k2_s(lake: Lake) -> None:
    with pytest.raises(NotFound) as caught:
        lake.table("candles")
    assert caught.value.expected == ", ".join((*RECORD_TABLES, *LEDGERS))


def test_only_the_table_s_columns_can_be_written(lake: Lake) -> None:
    table = lake.table("trades")
    with pytest.raises(BadInput, match="not the columns") as caught:
        table.write(trades(2).drop_columns(["price"]), DAY)
    assert caught.value.found == "without ['price'], with []"
    empty = pa.nulls(2, pa.decimal128(18, 8))
    rows = trades(2)
    with pytest.raises(BadInput, match="price must have a value"):
        table.write(rows.set_column(rows.schema.get_field_index("price"), "price", empty), DAY)
    with pytest.raises(BadInput, match="records have an exchange_date"):
        table.write(rows, None)
    assert not list((lake.folder / "tables/trades/data").rglob("*.parquet"))


@contextmanager
def files_no_larger_than(limit: int) -> Iterator[None]:
    """The kernel refuses to write files beyond this, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# In the first column, in a later one, in the footer.
@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_a_file_that_does_not_fit_leaves_nothing(lake: Lake, share: float) -> None:
    table = lake.table("trades")
    whole = table.write(trades(5_000), DAY)
    with files_no_larger_than(int(whole.bytes * share)), pytest.raises(Unavailable):
        table.write(trades(5_000), DAY)

    (left,) = (lake.folder / "tables/trades/data").rglob("*.parquet")
    assert str(left) == whole.path


def test_a_commit_that_does_not_fit_changes_nothing_and_goes_through_later(lake: Lake) -> None:
    table = lake.table("trades")
    commit = Commit((table.write(trades(10), DAY),), {}, at(10))
    with files_no_larger_than(500), pytest.raises(Unavailable):
        table.commit(commit)
    names = {path.name for path in (lake.folder / "tables/trades/metadata").iterdir()}
    assert len(names) == 1

    assert table.commit(commit).files.rows == 10


def test_a_full_disk_says_what_to_do() -> None:
    said = unwritable(Path("/data/x"), OSError(errno.ENOSPC, "No space left on device"))

    assert (said.message, said.place) == ("no space is left on the disk", "/data")
    assert said.hint == "make room; nothing is lost, the writer goes on where it was"


def test_a_locked_catalog_is_unavailable_and_the_commit_goes_through_later(tmp_path: Path) -> None:
    lake = open_lake(tmp_path, busy=timedelta(milliseconds=50))
    table = lake.table("trades")
    commit = Commit((table.write(trades(10), DAY),), {}, at(10))
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(Unavailable) as caught:
        table.commit(commit)
    assert caught.value.hint == "another process holds the catalog; try again"
    assert table.snapshot().sequence == 0

    other.execute("ROLLBACK")
    other.close()
    assert table.commit(commit).files.rows == 10
    assert len(list((tmp_path / "tables/trades/metadata").iterdir())) == 4
    lake.close()


def test_a_file_that_is_no_catalog_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"this is no database, however long it is " * 50)

    with pytest.raises(Unavailable, match="not a database"):
        open_lake(tmp_path)


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        open_lake(tmp_path / "file" / "lake")


def test_a_moved_lake_says_so(lake: Lake, tmp_path: Path) -> None:
    append(lake.table("trades"), 10)
    shutil.copytree(lake.folder, tmp_path / "moved")
    shutil.rmtree(lake.folder / "tables")
    moved = open_lake(tmp_path / "moved", read_only=True)

    with pytest.raises(NotFound) as caught:
        moved.table("trades").snapshot()
    assert caught.value.hint == "a lake cannot be moved: its files are named by their full path"
    moved.close()


def test_a_commit_without_its_file_is_refused(lake: Lake) -> None:
    table = lake.table("trades")
    file = table.write(trades(10), DAY)
    os.unlink(file.path)

    with pytest.raises(Conflict, match="not there"):
        table.commit(Commit((file,), {}, at(10)))


def test_a_lost_outbox_file_is_broken(lake: Lake) -> None:
    file = rejected(lake, 0)
    lake.table("trades").commit(Commit((), {}, at(1), (file,)))
    os.unlink(file.path)

    with pytest.raises(Broken, match="named is not there"):
        lake.absorb("trades")
    with pytest.raises(Broken, match="named is not there"):
        lake.ledger_files("rejected")


def test_cleaning_leaves_what_is_named_and_what_is_young(lake: Lake) -> None:
    table = lake.table("trades")
    for _ in range(20):
        append(table, 2)
        lake.absorb("trades")
    folder = lake.folder / "tables/trades/metadata"
    (folder / "killed-m0.avro").write_bytes(b"left behind")
    (folder / "statistics.puffin").write_bytes(b"another engine's")
    before = len(list(folder.iterdir()))

    assert lake.clean("trades") == 0
    gone = lake.clean("trades", timedelta(seconds=-1))

    assert gone > 20
    assert len(list(folder.iterdir())) == before - gone
    assert (folder / "statistics.puffin").exists()
    anew = open_lake(lake.folder, read_only=True)
    assert stored(anew) == [(0, n) for n in range(40)]
    assert len(table.head().metadata["snapshots"]) == 4
    anew.close()


def test_metadata_documents_do_not_pile_up(lake: Lake) -> None:
    for _ in range(20):
        append(lake.table("trades"), 1)

    documents = list((lake.folder / "tables/trades/metadata").glob("*.metadata.json"))
    assert len(documents) == 11


@pytest.mark.parametrize("name", [*RECORD_TABLES, *LEDGERS])
def test_every_table_takes_rows_of_its_definition(lake: Lake, name: str) -> None:
    table = lake.table(name)
    rows = definition(name).arrow.empty_table()
    day = DAY if definition(name).partitioned else None

    assert table.write(rows, day).rows == 0
    assert table.snapshot().field_ids.keys() == set(rows.column_names)


def test_looking_is_cheap_when_nothing_changed(lake: Lake) -> None:
    table = lake.table("trades")
    append(table, 10)
    fastest = 1.0
    for _ in range(200):
        begun = time.perf_counter()
        table.snapshot()
        fastest = min(fastest, time.perf_counter() - begun)

    assert fastest < 200e-6
