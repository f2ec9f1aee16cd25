"""Which files get decoded copies, how many bytes these take, and when they go."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k2.query import Reader, Selection, open_reader
from k2.query import copies as keeping
from k2.query.copies import Copies
from k2.query.evidence import CERTIFICATE
from k2.query.view import View
from tests.query.make import random_trades, view_of
from tests.query.test_reader import NOW, Market, until

START = datetime(2024, 3, 5, tzinfo=UTC)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _disks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_SPARE_BYTES", 0)


def view(folder: Path, *counts: int) -> View:
    """A view of a file of so many rows for each count."""
    return view_of(folder, [random_trades(n, count) for n, count in enumerate(counts)])


def on_disk(folder: Path) -> list[str]:
    there = folder / "decoded-1"
    return sorted(path.name for path in there.iterdir()) if there.is_dir() else []


def ask(copies: Copies, of: View, *numbers: int) -> list[int]:
    """Ask for the files of these numbers at once; those of which there are copies."""
    files = of.select()
    found = copies.of(of, [files[n] for n in numbers])
    return [n for n in numbers if files[n].path in found]


def test_what_is_asked_for_again_is_copied(tmp_path: Path) -> None:
    of = view(tmp_path, 50, 60)
    copies = Copies(tmp_path, 10**6)
    assert ask(copies, of, 0, 1) == []
    assert copies.work() == 0
    assert ask(copies, of, 0) == []
    assert copies.work() == 1
    assert ask(copies, of, 0, 1) == [0]
    assert copies.work() == 1
    assert ask(copies, of, 0, 1) == [0, 1]
    assert copies.bytes == sum((tmp_path / "decoded-1" / name).stat().st_size
                               for name in on_disk(tmp_path))  # fmt: skip


def test_an_earlier_process_leaves_its_copies(tmp_path: Path) -> None:
    of = view(tmp_path, 50, 60)
    first = Copies(tmp_path, 10**6)
    for _ in range(2):
        ask(first, of, 0, 1)
    first.work()
    left = on_disk(tmp_path)
    assert len(left) == 2
    torn = tmp_path / "decoded-1" / left[0]
    torn.write_bytes(torn.read_bytes()[:-8] + bytes(8))
    (tmp_path / "decoded-1" / "old.part").write_bytes(b"half")
    os.utime(tmp_path / "decoded-1" / "old.part", (1, 1))
    (tmp_path / "decoded-1" / "young.part").write_bytes(b"half")
    second = Copies(tmp_path, 10**6)
    second.work()
    assert on_disk(tmp_path) == sorted([left[1], "young.part"])
    assert len(ask(second, of, 0, 1)) == 1


def test_copies_of_files_that_are_gone_go(tmp_path: Path) -> None:
    of = view(tmp_path, 50, 60)
    copies = Copies(tmp_path, 10**6)
    for _ in range(2):
        ask(copies, of, 0, 1)
    copies.work()
    files = of.select()
    found = copies.of(of, files)[files[0].path]
    Path(files[0].path).unlink()
    copies.remove_orphans()
    assert len(on_disk(tmp_path)) == 1
    assert ask(copies, of, 0, 1) == [1]
    # Whoever holds one reads it still.
    assert found.rows(0, 50, ["log_offset"]).num_rows == 50


def test_those_used_longest_ago_make_room(tmp_path: Path) -> None:
    of = view(tmp_path, 500, 500, 500, 500)
    sizer = Copies(tmp_path / "sizer", 10**9)
    for _ in range(2):
        ask(sizer, of, 0)
    sizer.work()
    copies = Copies(tmp_path, int(sizer.bytes * 2.5))
    for _ in range(2):
        ask(copies, of, 0)
        ask(copies, of, 1)
    assert copies.work() == 2
    ask(copies, of, 0)
    for _ in range(2):
        ask(copies, of, 2)
    assert copies.work() == 1
    assert ask(copies, of, 0, 1, 2) == [0, 2]
    assert copies.bytes <= sizer.bytes * 2.5
    assert len(on_disk(tmp_path)) == 2


def test_files_asked_for_in_turn_do_not_push_each_other_out(tmp_path: Path) -> None:
    of = view(tmp_path, 500, 500, 500)
    sizer = Copies(tmp_path / "sizer", 10**9)
    for _ in range(2):
        ask(sizer, of, 0)
    sizer.work()
    copies = Copies(tmp_path, int(sizer.bytes * 2.5))
    made = 0
    for _ in range(10):
        for n in range(3):
            ask(copies, of, n)
            made += copies.work()
    assert made == 2


def test_one_that_is_too_large_is_not_made(tmp_path: Path) -> None:
    of = view(tmp_path, 500)
    copies = Copies(tmp_path, 1000)
    for _ in range(5):
        ask(copies, of, 0)
        assert copies.work() == 0
    assert on_disk(tmp_path) == []


def test_a_full_disk_gets_no_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_SPARE_BYTES", 1 << 60)
    of = view(tmp_path, 50)
    copies = Copies(tmp_path, 10**6)
    for _ in range(3):
        ask(copies, of, 0)
    assert copies.work() == 0
    assert on_disk(tmp_path) == []


def test_a_damaged_file_is_left_to_whoever_reads_it(tmp_path: Path) -> None:
    of = view(tmp_path, 50)
    path = Path(of.select()[0].path)
    path.write_bytes(b"PAR1" + bytes(100))
    copies = Copies(tmp_path, 10**6)
    for _ in range(3):
        ask(copies, of, 0)
    assert copies.work() == 0
    assert on_disk(tmp_path) == []


def test_a_copy_with_other_columns_does_not_count(tmp_path: Path) -> None:
    of = view(tmp_path, 50)
    copies = Copies(tmp_path, 10**6)
    for _ in range(2):
        ask(copies, of, 0)
    copies.work()
    assert ask(copies, of, 0) == [0]
    grown = replace(of, columns=of.columns.append(of.columns.field("price").with_name("tax")))
    assert ask(copies, grown, 0) == []


def test_a_thread_makes_them(tmp_path: Path) -> None:
    of = view(tmp_path, 50)
    copies = Copies(tmp_path, 10**6)
    copies.start()
    try:
        until(lambda: ask(copies, of, 0) == [0])
    finally:
        began = time.monotonic()
        copies.stop()
    assert time.monotonic() - began < 5


def test_a_reader_answers_from_copies_as_from_files(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_LOOK_EVERY_SECONDS", 0.1)
    for n in range(3):
        market.append(random_trades(n, 400, exchanges=("sim", "ASX")))
        market.commit()
    market.append(random_trades(9, 50))
    selection = Selection(("A",), start=datetime(2024, 3, 4, 23, tzinfo=UTC))
    with (
        open_reader(market.folder, clock=lambda: NOW) as plain,
        open_reader(market.folder, clock=lambda: NOW, follow=True, decoded_bytes=10**8) as quick,
    ):
        ids = plain.snapshots().table["snapshot_id"].to_pylist()
        second = str(ids[1])

        def answers(reader: Reader) -> list[object]:
            found = [
                reader.records("trades", selection, certificate=True),
                reader.records("trades", selection, last=30),
                reader.records("trades", selection, as_of=second),
                first := reader.records("trades", selection, limit=70),
                reader.records("trades", selection, limit=70, after=first.next),
            ]
            return [(each.table, each.meta.get(CERTIFICATE), each.next) for each in found]

        expected = answers(plain)
        answers(quick)
        files = sorted((market.folder / "lake/tables/trades/data").rglob("*.parquet"))
        until(lambda: len(on_disk(market.folder)) == len(files))
        assert answers(quick) == expected
    # Files that maintenance removed take their copies with them.
    with open_reader(market.folder, clock=lambda: NOW, follow=True, decoded_bytes=10**8):
        files[0].unlink()
        until(lambda: len(on_disk(market.folder)) == len(files) - 1)
