"""`k2 load`: files to tables, the fate of each record, and what is wrong with a file."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from k2.cli.commands import load
from k2.feeds.mapping import KINDS
from tests.cli.conftest import K2, Ended
from tests.feeds.databento import dbn, head, mapped, quote, trade
from tests.feeds.databento import write as write_dbn

GOOD = """\
03/10/2014,13:50:38.849,1.11,3667,0,,
03/10/2014,13:55:41.879,1.12,1633,0,,
03/10/2014,13:55:41.879,1.12,1633,0,,
"""
BROKEN = GOOD.replace("1.11", '"1,11"')


@pytest.fixture(params=["log", "direct"])
def k2(k2: K2, request: pytest.FixtureRequest) -> K2:
    """Loads go through the log, or straight into the tables: all that is told is the same."""

    def run(*arguments: str) -> Ended:
        if arguments[0] == "load" and request.param == "direct":
            arguments = ("load", "--direct", *arguments[1:])
        return k2(*arguments)

    return run


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
        (("load", "trades.csv", "--kind", "trades"), "--mapping"),
        (("load", "trades.csv", "--mapping", "asx"), "--kind"),
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


def test_a_dbn_file_needs_no_mapping(k2: K2, tmp_path: Path) -> None:
    start = head(dbn.Schema.TBBO, mapped("ABC", 7))
    events = [quote(n, action=dbn.Action.TRADE, price=10**9 * (n + 1)) for n in range(3)]
    path = write_dbn(tmp_path / "x.dbn.zst", start, events)
    first = json.loads(k2("load", str(path), "--json").out)
    assert (first["read"], first["committed"], first["rejected"]) == (6, 6, 0)
    again = json.loads(k2("load", str(path), "--kind", "quotes", "--json").out)
    assert (again["read"], again["duplicate"]) == (3, 3)
    rows = json.loads(k2("trades", "ABC", "--json").out)["data"]
    assert [(row["price"], row["exchange"]) for row in rows] == [
        ("1", "XNAS"),
        ("2", "XNAS"),
        ("3", "XNAS"),
    ]


def test_a_refused_instrument_is_told_of(k2: K2, tmp_path: Path) -> None:
    start = head(dbn.Schema.TRADES, mapped("ABC", 7))
    path = write_dbn(tmp_path / "x.dbn", start, [trade(1), trade(2, price=10**9 + 1)])
    ended = k2("load", str(path), "--strict", "--json")
    counts = json.loads(ended.out)
    assert (ended.code, counts["committed"], counts["rejected"]) == (1, 1, 1)
    assert "price 1.000000001 in record 2 is no multiple of 0.00000001" in ended.talk


BINANCE = "5100000001,91250.10000000,0.00420000,383.25042000,1767600000121455,True,True\n"


def archive(folder: Path) -> tuple[Path, str]:
    """An archive as data.binance.vision has them, and its SHA-256."""
    path = folder / "BTCUSDT-trades-2026-01-05.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{path.stem}.csv", BINANCE)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checksum_beside_a_file_is_verified(k2: K2, tmp_path: Path) -> None:
    path, digest = archive(tmp_path)
    ask = ("load", str(path), "--kind", "trades", "--mapping", "binance", "--json")
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{digest}  {path.name}\n")
    ended = k2(*ask)
    counts = json.loads(ended.out)
    assert (counts["committed"], counts["verified"]) == (1, [path.name])
    assert f"{path.name}: SHA-256 verified" in ended.talk


@pytest.mark.parametrize("told", ["0" * 64, "no sum at all", ""])
def test_a_file_that_is_not_its_checksum_s_is_refused(k2: K2, tmp_path: Path, told: str) -> None:
    path, digest = archive(tmp_path)
    path.with_name(f"{path.name}.CHECKSUM").write_text(told)
    ended = k2("load", str(path), "--kind", "trades", "--mapping", "binance")
    assert (ended.code, ended.out) == (2, "")
    if told.startswith("0"):
        assert f"SHA-256 {digest}" in ended.talk
        assert f"SHA-256 {told}" in ended.talk
    assert json.loads(k2("rejected", "--json").out)["data"] == []
    assert json.loads(k2("audit", "--json").out)["partitions"] == []
