"""The ledger of pins: a name is given once, whoever else pins; nothing in it is ever lost."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2.errors import Conflict, NotFound, Refused
from k2.lake import Dataset, Lake, keep_pin, open_lake, pin_of, pins_of, remove_pin
from tests.lake.make import START, append

PIN = Dataset(
    name="one",
    pinned_at=START,
    author="ada",
    note=None,
    table="trades",
    commit=3,
    snapshot_id=None,
    corrections_commit=0,
    question="{}",
    fields="[]",
    schema_id=0,
    offsets="{}",
    rows=5,
    days="{}",
    hash="ab",
    hash_definition=1,
)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake")
    yield lake
    lake.close()


def events(lake: Lake) -> list[tuple[str, str]]:
    found = [
        (row["name"], row["event"])
        for file in lake.ledger_files("pins")
        for row in pq.read_table(file.path).to_pylist()
    ]
    return sorted(found)


def test_what_is_pinned_stands_until_it_is_removed(lake: Lake) -> None:
    assert pins_of(lake) == {}
    kept = keep_pin(lake, PIN)
    assert replace(kept, id="") == PIN
    keep_pin(lake, replace(PIN, name="0", note="why"))
    assert list(pins_of(lake)) == ["0", "one"]
    assert remove_pin(lake, "one", at=START, author="bob", note="done") == kept
    with pytest.raises(NotFound) as caught:
        pin_of(lake, "one")
    assert caught.value.expected == "0"
    with pytest.raises(NotFound):
        remove_pin(lake, "one", at=START)
    # By a clock that stands still, it is another pin all the same.
    again = keep_pin(lake, replace(PIN, rows=6))
    assert pin_of(lake, "one") == again
    assert events(lake) == [
        ("0", "pinned"), ("one", "pinned"), ("one", "pinned"), ("one", "removed"),
    ]  # fmt: skip


def test_the_same_rows_are_the_same_pin(lake: Lake) -> None:
    kept = keep_pin(lake, PIN)
    later = replace(PIN, pinned_at=START + timedelta(days=1), author="bob", snapshot_id=7)
    assert keep_pin(lake, later) == kept
    for other in ({"rows": 6}, {"hash": "cd"}, {"commit": 4}, {"fields": "[1]"}, {"table": "x"}):
        with pytest.raises(Refused, match="taken"):
            keep_pin(lake, replace(PIN, **other))
    assert len(events(lake)) == 1


def test_many_pin_at_once(lake: Lake) -> None:
    append(lake.table("trades"), 1)
    lakes = [open_lake(lake.folder) for _ in range(4)]
    refused: list[int] = []

    def pin(number: int) -> None:
        try:
            keep_pin(lakes[number], replace(PIN, rows=number))
        except Refused:
            refused.append(number)
        keep_pin(lakes[number], replace(PIN, name=f"mine-{number}"))

    threads = [threading.Thread(target=pin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in lakes:
        each.close()
    assert len(refused) == 3
    assert list(pins_of(lake)) == [*(f"mine-{n}" for n in range(4)), "one"]
    assert len(events(lake)) == 5
    folder = lake.folder / "tables" / "pins" / "data"
    assert len(list(folder.glob("*.parquet"))) == 5  # what lost its race left nothing behind


def test_one_lets_go_and_the_other_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_pin(lake, PIN)
    ledger = lake.table("pins")
    apply = ledger.apply
    with_other = open_lake(lake.folder)

    def late(change: object) -> object:
        monkeypatch.undo()
        remove_pin(with_other, "one", at=START)
        return apply(change)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "apply", late)
    with pytest.raises(NotFound, match="somebody else"):
        remove_pin(lake, "one", at=START)
    with_other.close()
    assert events(lake) == [("one", "pinned"), ("one", "removed")]


def test_a_lake_that_is_only_read_tells_its_pins(lake: Lake) -> None:
    keep_pin(lake, PIN)
    reading = open_lake(lake.folder, read_only=True)
    assert list(pins_of(reading)) == ["one"]
    with pytest.raises((Refused, Conflict)):
        keep_pin(reading, replace(PIN, name="two"))
    reading.close()
