"""`k2 load`: files to tables, the fate of each record, and what is wrong with a file."""

import json
from pathlib import Path

import pytest

from k2.cli.commands import load
from k2.feeds.mapping import KINDS
from tests.cli.conftest import K2

GOOD = """\
03/10/2014,13:50:38.849,1.11,3667,0,,
03/10/2014,13:55:41.879,1.12,1633,0,,
03/10/2014,13:55:41.879,1.12,1633,0,,
"""
BROKEN = GOOD.replace("1.11", '"1,11"')


def write(folder: Path, text: str) -> str:
    path = folder / "trades.csv"
    path.write_text(text)
    return str(path)


def arguments(file: str, *more: str) -> tuple[str, ...]:
    return ("load", file, "--kind", "trades", "--mapping", "asx", "--symbol", "ABC", *more)


def test_the_kinds_are_those_that_a_mapping_may_have() -> None:
    assert load.KINDS == KINDS


def test_loading_twice_doubles_nothing(k2: K2, tmp_path: Path) -> None:
    ask = arguments(write(tmp_path, GOOD), "--json")
    first = json.loads(k2(*ask).out)
    assert first.pop("seconds") > 0
    assert first == {"read": 3, "committed": 3, "duplicate": 0, "rejected": 0}
    again = json.loads(k2(*ask).out)
    assert (again["read"], again["committed"], again["duplicate"]) == (3, 0, 3)
    assert k2("audit").code == 0


def test_a_broken_line_is_told_and_its_mended_copy_adds_it_alone(k2: K2, tmp_path: Path) -> None:
    ended = k2(*arguments(write(tmp_path, BROKEN), "--strict", "--json"))
    assert ended.code == 1
    counts = json.loads(ended.out)
    assert (counts["committed"], counts["rejected"]) == (2, 1)
    assert "trades.csv line 1: price" in ended.talk
    (rejected,) = json.loads(k2("rejected", "--json").out)["data"]
    assert (rejected["file"], rejected["line"], rejected["column"]) == ("trades.csv", 1, "price")
    header, row = k2("rejected").out.splitlines()
    assert header.split()[:4] == ["kind", "exchange", "place", "column"]
    assert row.split()[:4] == ["trades", "ASX", "trades.csv:1", "price"]
    mended = json.loads(k2(*arguments(write(tmp_path, GOOD), "--json")).out)
    assert (mended["committed"], mended["duplicate"]) == (1, 2)
    assert len(json.loads(k2("trades", "ABC", "--json").out)["data"]) == 3


def test_broken_lines_of_several_loads_are_kept_once_each(k2: K2, tmp_path: Path) -> None:
    other = BROKEN.replace('"1,11"', '"2,22"')
    for text in (BROKEN, other, BROKEN):
        assert k2(*arguments(write(tmp_path, text))).code == 0
    kept = json.loads(k2("rejected", "--json").out)["data"]
    assert sorted("1,11" in row["raw"] for row in kept) == [False, True]
    found = json.loads(k2("audit", "--json").out)
    assert found["ok"]
    assert all(part["in_flight"] == 0 for part in found["partitions"])


def test_the_table_of_fates(k2: K2, tmp_path: Path) -> None:
    ended = k2(*arguments(write(tmp_path, GOOD)))
    assert ended.code == 0
    header, counts = ended.out.splitlines()
    assert header.split() == ["read", "committed", "duplicate", "rejected", "seconds"]
    assert counts.split()[:4] == ["3", "3", "0", "0"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("load", "nosuch.csv", "--kind", "trades", "--mapping", "asx"), "nosuch.csv"),
        (("load", "trades.csv", "--kind", "trades", "--mapping", "nosuch"), "nosuch"),
        (("load", "trades.csv", "--kind", "candles", "--mapping", "asx"), "candles"),
        (("load", "trades.csv", "--kind", "trades"), "mapping"),
        (("load", "trades.csv", "--kind", "trades", "--mapping", "asx"), "--instruments"),
        (("load", ".", "--kind", "trades", "--mapping", "asx"), "."),
    ],
)
def test_wrong_usage_names_what_is_wrong(
    k2: K2, tmp_path: Path, change: tuple[str, ...], named: str
) -> None:
    write(tmp_path, GOOD)
    ended = k2(*change)
    assert (ended.code, ended.out) == (2, "")
    assert named in ended.talk


def test_an_empty_file_has_no_records(k2: K2, tmp_path: Path) -> None:
    counts = json.loads(k2(*arguments(write(tmp_path, ""), "--json")).out)
    assert (counts["read"], counts["committed"]) == (0, 0)
