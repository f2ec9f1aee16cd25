"""The kept index: what a start reads in place of manifests, and never trusts too far."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from k2.lake import Lake, LakeTable, open_lake
from k2.lake import manifest as manifests
from k2.lake import snapshot as reading
from k2.lake.index_file import read_index
from tests.lake.make import DAY, append, stored


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake")
    yield lake
    lake.close()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The manifests that were read as such."""
    found: list[str] = []
    live: Callable[..., Any] = manifests.live

    def told(raw: bytes, manifest: dict[str, Any]) -> Any:
        found.append(manifest["manifest_path"])
        return live(raw, manifest)

    monkeypatch.setattr(reading, "live", told)
    return found


def filled(lake: Lake) -> LakeTable:
    table = lake.table("trades")
    for n in range(12):
        append(table, 30, day=DAY + timedelta(days=n % 3), symbols=n + 1)
    return table


def opened(lake: Lake) -> tuple[Any, ...]:
    """What a new process finds in the table."""
    other = open_lake(lake.folder)
    index = other.table("trades").snapshot().files
    found = (
        index.select(),
        index.select(symbols=["SYM003"]),
        index.select(dates=(DAY, DAY)),
        index.select(trade_ids=("100", "120")),
        index.select(as_of=5),
        index.rows,
        index.bytes,
    )
    other.close()
    return found


def test_a_start_reads_only_manifests_that_were_not_kept(lake: Lake, parsed: list[str]) -> None:
    table = filled(lake)
    cold = opened(lake)
    assert len(parsed) >= len(table.head().manifests)
    table.keep_index()
    parsed.clear()
    assert opened(lake) == cold
    assert parsed == []
    append(table, 10)
    parsed.clear()
    assert opened(lake)[5] == 370
    assert len(parsed) == 1


@pytest.mark.parametrize("spoilt", [b"", b"ARROW1\0\0 and no more", b"x" * 5000])
def test_one_that_is_torn_is_passed_over(lake: Lake, spoilt: bytes) -> None:
    table = filled(lake)
    cold = opened(lake)
    table.keep_index()
    path = table.metadata_folder.parent / "index.arrow"
    path.write_bytes(spoilt)
    assert opened(lake) == cold
    whole = path.parent / "index.arrow"
    table.keep_index()
    raw = whole.read_bytes()
    for at in range(0, len(raw), max(len(raw) // 40, 1)):
        whole.write_bytes(raw[:at])
        assert opened(lake) == cold, at
        whole.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        assert opened(lake) == cold, at


def test_an_empty_table_keeps_nothing(lake: Lake) -> None:
    table = lake.table("trades")
    table.keep_index()
    assert read_index(table.metadata_folder.parent) == {}
    append(table, 5)
    table.keep_index()
    assert stored(lake) == [(0, n) for n in range(5)]
