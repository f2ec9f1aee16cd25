"""The file of retention: what it may say, and how it is told what it may not."""

from pathlib import Path

import pytest

from k2.errors import BadInput
from k2.ingest.keep import Keep, Rule, read_keep

GOOD = """
# Ours.
[trades]
tier_1 = "forever"
tier_2 = 730
tier_3 = 90

[quotes]
tier_3 = 30

[trades.ASX]
tier_3 = "forever"
tier_2 = 5
"""


def read(folder: Path, text: str) -> Keep:
    path = folder / "retention.toml"
    path.write_text(text, "utf-8")
    return read_keep(path)


def test_an_exchange_says_otherwise_line_by_line(tmp_path: Path) -> None:
    keep = read(tmp_path, GOOD)
    assert keep.rule("trades", "sim", 1) is None
    assert keep.rule("trades", "sim", 2) == Rule(730, "[trades] tier_2 = 730")
    assert keep.rule("trades", "sim", 3) == Rule(90, "[trades] tier_3 = 90")
    assert keep.rule("trades", "ASX", 3) is None
    assert keep.rule("trades", "ASX", 2) == Rule(5, "[trades.ASX] tier_2 = 5")
    assert keep.rule("trades", "ASX", 1) is None
    assert keep.rule("quotes", "ASX", 3) == Rule(30, "[quotes] tier_3 = 30")
    assert keep.rule("quotes", "ASX", 1) is None
    assert keep.exchanges == {"ASX"}
    assert keep.retires("trades")
    assert not keep.retires("corrections")


def test_without_a_file_all_is_kept(tmp_path: Path) -> None:
    keep = read_keep(tmp_path / "retention.toml")
    assert keep == Keep()
    assert not keep.retires("trades")
    assert not read(tmp_path, "").retires("quotes")
    assert not read(tmp_path, '[quotes]\ntier_1 = "forever"\n').retires("quotes")


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("[trades]\ntier_1 = 0\n", "line 2: [trades] tier_1", "so many days"),
        ("[trades]\n\ntier_2 = 1.5\n", "line 3: [trades] tier_2", "so many days"),
        ("[trades]\ntier_3 = true\n", "line 2: [trades] tier_3", "so many days"),
        ('[trades]\ntier_3 = "90"\n', "line 2: [trades] tier_3", "so many days"),
        ("[trades]\ntier_3 = 40000\n", "line 2: [trades] tier_3", "so many days"),
        ("[trades]\ntier_4 = 9\n", "line 2: [trades] tier_4", "no 'tier_4'"),
        ("[trades.ASX]\ntier = 9\n", "line 2: [trades.ASX] tier", "no 'tier'"),
        ("[trades.ASX]\ntier_1 = -1\n", "line 2: [trades.ASX] tier_1", "so many days"),
        ("[trades]\n[trade]\ntier_1 = 9\n", "line 2: trade", "no 'trade'"),
        ("[corrections]\ntier_1 = 9\n", "line 1: corrections", "no 'corrections'"),
        ("trades = 9\n", "line 1: trades", "no table"),
        ("[trades.ASX.more]\ntier_1 = 9\n", "[trades.ASX] more", "no 'more'"),
        ("[trades\n", "retention.toml", "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_line(
    tmp_path: Path, text: str, place: str, told: str
) -> None:
    with pytest.raises(BadInput) as error:
        read(tmp_path, text)
    assert place in str(error.value.place), error.value.place
    assert told in error.value.message
