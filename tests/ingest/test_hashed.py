"""Ids that are no numbers: what was met is known, and a hash alone never makes a duplicate."""

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.ingest import audit, hashed, known
from k2.ingest.hashed import HashedIds, hashes_of_texts, repeated
from tests.ingest.numbered import send
from tests.journeys.home import Home, ledger, open_home

BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
Texts = list[str]


def named(ids: Texts, symbol: str = "BTC") -> list[dict[str, object]]:
    return [
        {
            "symbol": symbol,
            "exchange": "simulated",
            "price": Decimal(1),
            "quantity": Decimal(1),
            "id_space": "",
            "side": "BUY",
            "asset_class": "crypto",
            "price_forming": True,
            "timestamp_nanos": 0,
            "ingestion_timestamp": BEGAN,
            "timestamp": BEGAN + timedelta(milliseconds=n),
            "trade_id": name,
        }
        for n, name in enumerate(ids)
    ]


def counts(home: Home) -> tuple[int, int]:
    """Rows and duplicates, and the audit agrees."""
    found = audit(home.log, home.lake)
    assert all(part.problem is None for part in found.partitions)
    return sum(p.committed for p in found.partitions), sum(p.duplicate for p in found.partitions)


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(0, 3))
def test_equal_texts_have_equal_hashes_wherever_they_stand(texts: Texts, skipped: int) -> None:
    found = hashes_of_texts(pa.array(texts, pa.string()))
    assert len(set(found.tolist())) == len(set(texts))
    alone = [hashes_of_texts(pa.array([text]))[0] for text in texts]
    assert found.tolist() == alone
    sliced = pa.array(["x" * 11, *texts], pa.string()).slice(1 + skipped)
    assert hashes_of_texts(sliced).tolist() == alone[skipped:]


def test_hashes_of_many_ids_are_spread_evenly() -> None:
    found = hashes_of_texts(pa.array([f"{n:x}" for n in range(200_000)]))
    assert len(np.unique(found)) == len(found)
    for shift in (0, 28, 56):
        of_each = np.bincount(((found >> np.uint64(shift)) & np.uint64(255)).astype(np.int64))
        assert len(of_each) == 256
        # 781 are expected of each value; five times the deviation of chance is never reached.
        assert abs(of_each - 781.25).max() < 5 * 781.25**0.5


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 200), max_size=40), max_size=12), st.data())
def test_it_holds_what_was_added_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, added: list[list[int]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    ids = HashedIds(folder)
    met: set[int] = set()
    for values in added:
        ids.add(np.array(values, np.uint64))
        met |= set(values)
        if data.draw(st.booleans()):
            ids = HashedIds.kept(folder, ids.keep())
        held = ids.may_hold(np.arange(202, dtype=np.uint64))
        assert set(np.flatnonzero(held).tolist()) == met


def test_runs_are_merged_until_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashed, "_RUN_MAX", 4_000)
    ids = HashedIds(tmp_path)
    values = np.random.default_rng(1).permutation(20_000).astype(np.uint64)
    for part in np.split(values, 200):
        ids.add(part)
    assert ids.may_hold(values).all()
    lengths = list(ids.keep().values())
    assert sum(lengths) == 20_000
    assert max(lengths) <= 4_000
    assert len(lengths) < 20


def test_files_that_are_torn_or_gone_are_not_taken(tmp_path: Path) -> None:
    ids = HashedIds(tmp_path)
    ids.add(np.arange(100, dtype=np.uint64))
    kept = ids.keep()
    (file,) = tmp_path.glob("*.npy")
    whole = file.read_bytes()
    file.unlink()
    with pytest.raises(OSError):
        HashedIds.kept(tmp_path, kept)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError):
        HashedIds.kept(tmp_path, kept)
    # Whoever has them in memory writes them again once others cleared them away.
    file.unlink()
    assert HashedIds.kept(tmp_path, ids.keep()).may_hold(np.arange(100, dtype=np.uint64)).all()


def test_repeated() -> None:
    assert repeated(np.array([3, 1, 3, 3, 1], np.uint64)).tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("beside", ["kept", "torn", "gone"])
def test_an_hour_that_is_sent_again_is_recognised_whole_after_a_restart(
    tmp_path: Path, beside: str
) -> None:
    ids = [str(uuid.UUID(int=n * 7919 << 64 | n)) for n in range(3_600)]
    with open_home(tmp_path) as home:
        for first in range(0, 3_600, 1_200):
            send(home, "trades", named(ids[first : first + 1_200]))
        for file in (home.lake.folder / "tables").glob("*/marks/*"):
            if beside == "torn":
                content = file.read_bytes()
                file.unlink()
                file.write_bytes(content[: len(content) // 2])
            elif beside == "gone":
                file.unlink()
        send(home, "trades", named([*ids, "fresh", "fresh"]))
        assert counts(home) == (3_601, 3_601)


def test_another_symbol_or_id_space_is_another_trade(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        send(home, "trades", named(["a", "b"]) + named(["a", "b"], "ETH"))
        send(home, "trades", [row | {"id_space": "futures"} for row in named(["a", "b"])])
        assert counts(home) == (6, 0)


def test_a_hash_that_was_met_makes_no_duplicate_of_another_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(rows: pa.Table, id_column: str) -> hashed.Hashes:
        return hashed.hashes_of(rows, id_column) & np.uint64(1)

    monkeypatch.setattr(known, "hashes_of", coarse)
    ids = [f"trade-{n}" for n in range(300)]
    with open_home(tmp_path) as home:
        for first in range(0, 300, 50):
            # A third of each part was sent before; one is twice in it.
            again = ids[max(first - 25, 0) : first]
            send(home, "trades", named([*again, *ids[first : first + 50], ids[first]]))
        assert counts(home) == (300, 5 * 25 + 6)
        assert ledger(home, "duplicates")


def test_ids_that_are_numbers_are_not_hashed(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        send(home, "trades", named([str(n) for n in range(100)]))
        assert not list((home.lake.folder / "tables").glob("*/marks/*.npy"))
        send(home, "trades", named(["1" * 30]))  # too long for one
        assert list((home.lake.folder / "tables").glob("*/marks/*.npy"))
