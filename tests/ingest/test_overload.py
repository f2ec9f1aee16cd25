"""What counts as lag, and which symbols are shed last."""

import logging
from pathlib import Path

import pytest

from k2.errors import BadInput
from k2.ingest.degradation import Level
from k2.ingest.overload import Overload, OverloadOptions
from k2.ingest.tiers import TierFile, read_tiers

PLACE = ("market.crypto.trades.simulated", 0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def overload() -> Overload:
    return Overload(OverloadOptions(memory_bytes=1 << 40), Clock())


def look(overload: Overload, offset: int, end: int, place: tuple[str, int] = PLACE) -> Level:
    overload.look({place: (offset, end)}, 0)
    return overload.level


def test_what_stood_there_before_is_no_lag(overload: Overload) -> None:
    """A writer that was down for a quarter of an hour comes back, and sheds nothing."""
    end, offset = 18_000_000, 0
    assert look(overload, offset, end) is Level.NORMAL
    # 20,000 a second come in, 300,000 are worked off.
    while offset < end:
        end += 20_000
        offset = min(end, offset + 300_000)
        assert look(overload, offset, end) is Level.NORMAL
    assert look(overload, end, end + 100_000) is Level.SOFT


def test_a_backlog_that_grows_is_lag(overload: Overload) -> None:
    end, offset = 1_000_000, 0
    assert look(overload, offset, end) is Level.NORMAL
    seen = set()
    for _ in range(200):
        end += 60_000
        offset += 50_000
        seen.add(look(overload, offset, end))
    assert {Level.NORMAL, Level.AGGRESSIVE} <= seen


def test_a_partition_that_comes_later_has_a_backlog_of_its_own(overload: Overload) -> None:
    assert look(overload, 0, 0) is Level.NORMAL
    assert look(overload, 0, 5_000_000, ("market.crypto.trades.simulated", 1)) is Level.NORMAL
    assert look(overload, 0, 100_000) is Level.SOFT


def test_each_time_of_overload_has_its_own_id(overload: Overload) -> None:
    look(overload, 0, 0)
    assert overload.shedding() is None
    look(overload, 0, 500_000)
    first = overload.shedding()
    look(overload, 0, 1_000_000)
    second = overload.shedding()
    assert first is not None
    assert second is not None
    assert (first.id, first.kept, second.kept) == (second.id, 2, 1)


def test_bitcoin_and_ether_are_first_without_a_file() -> None:
    tiers = TierFile(None).tiers()
    first = ["BTCUSDT", "ETHUSDT", "BTC-USD", "XBT/EUR", "ETH/BTC", "BTCEUR"]
    assert tiers.of("binance", first).tolist() == [1] * len(first)
    assert tiers.of("kraken", ["ETHFIUSDT", "SOLUSDT", "BHP", ""]).tolist() == [3] * 4


def test_a_file_is_read_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tiers.toml"
    file = TierFile(path)
    built_in = file.tiers().version
    path.write_text('[ASX]\ntier_1 = ["BHP"]\ntier_2 = ["C*", "BHP"]\n["*"]\ntier_2 = ["*"]\n')
    tiers = file.tiers()
    assert tiers.version != built_in
    assert tiers.of("ASX", ["BHP", "CBA", "DVN"]).tolist() == [1, 2, 3]
    assert tiers.of("binance", ["BTCUSDT"]).tolist() == [2]
    with caplog.at_level(logging.ERROR):
        path.write_text("[ASX\n")
        assert file.tiers() is tiers
        assert file.tiers() is tiers
    assert len(caplog.records) == 1
    path.unlink()
    assert file.tiers() is tiers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tier_1 = []", "no table"),
        ("[ASX]\ntier_4 = []", "no 'tier_4'"),
        ("[ASX]\ntier_1 = 5", "no symbols"),
        ("[ASX]\ntier_1 = [5]", "no symbols"),
        ("[", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "tiers.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=words) as caught:
        read_tiers(path)
    assert "tiers.toml" in str(caught.value)


def test_a_partition_that_others_had_meanwhile_is_backlog_anew(overload: Overload) -> None:
    topic, partition = PLACE
    overload.own({topic: {partition}})
    assert look(overload, 0, 0) is Level.NORMAL
    overload.own({topic: {partition, 1}})
    assert look(overload, 0, 499_999) is Level.SOFT, "it was not away: that is lag"
    overload.own({topic: {1}})
    overload.own({topic: {partition, 1}})
    assert look(overload, 0, 5_000_000) is Level.SOFT


def test_who_has_all_partitions_loses_none(overload: Overload) -> None:
    overload.own(None)
    assert look(overload, 0, 0) is Level.NORMAL
    overload.own(None)
    assert look(overload, 0, 500_000) is Level.GRACEFUL
