"""Lines that can be read and whose record cannot be: told with the file's own columns and texts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k2.errors import BadInput
from k2.feeds.csv import open_feed, open_file
from k2.feeds.mapping import FileMapping, parse_mapping
from tests.feeds.reading import NOON, plain, read_all, read_file

GOOD = "2026-03-02 10:00:00.1,12.5,10"
PARTS = """
name = "parts"
[exchange]
name = "X"
asset_class = "{asset_class}"
zone = "Europe/London"
[trades]
trim = true
delimiter = ";"
[trades.fields]
symbol = "Id"
timestamp = {{ columns = ["Day", "Hour"], format = "%d.%m.%Y %H:%M:%S" }}
price = {{ column = "Px", unit = "0.01" }}
quantity = "Qty"
"""


def parts(asset_class: str = "equities") -> FileMapping:
    return parse_mapping(PARTS.format(asset_class=asset_class), "parts.toml")


def test_line_column_and_text_are_those_of_the_file(tmp_path: Path) -> None:
    lines = [
        "ID;Px;Qty;Hour;Day",
        "A;100;1;10:00:00;02.03.2026",
        'B; -1250 ;"1";10:00:00;02.03.2026',
        "C;100;0.0;10:00:00;02.03.2026",
        "D;100;1; 10:00:00;02.03.2126",
        f"{'E' * 129};100;1;10:00:00;02.03.2026",
        "F;100;1;10:00:00;02.03.1826",
        "G;x;0;10:00:00;02.03.2026",
        "",
        "H;100;-1;10:00:00;02.03.2026",
    ]
    path = tmp_path / "x.csv"
    path.write_text("\n".join(lines) + "\n")
    late = "lies more than 300 s after it was first seen: a date or a clock is wrong"
    wanted = [
        (3, "Px", 'Px "-1250" is not above zero'),
        (4, "Qty", 'Qty "0.0" is not above zero'),
        (5, "Day, Hour", f'Day, Hour "02.03.2126 10:00:00" {late}'),
        (6, "Id", f'Id "{"E" * 77}…" is no symbol: longer than 128 bytes'),
        (7, "Day, Hour", 'Day, Hour "02.03.1826 10:00:00" lies before 1900'),
        (8, "Px", 'Px "x" is no decimal number'),
        (10, "Qty", 'Qty "-1" is not above zero'),
    ]
    for block_bytes in (1 << 20, 70):
        found = read_file(path, parts(), "trades", block_bytes=block_bytes)
        assert found.column("symbol") == ["A"]
        assert found.refused() == wanted
        raw = found.rejects.column("raw").to_pylist()
        assert raw == [lines[line - 1].encode() for line, _, _ in wanted]
    # What is no fault elsewhere is none here: futures have traded below zero.
    found = read_file(path, parts("futures"), "trades")
    assert found.column("symbol") == ["A", "B"]


def test_a_field_that_no_column_holds_is_named_as_the_model_does(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{GOOD}\n")
    found = read_file(path, plain(('"ABC"', r'"A\tC"')), "trades")
    assert found.refused() == [(1, "symbol", 'symbol "A\tC" is no symbol: nothing to print')]


def test_how_far_ahead_a_time_may_lie_is_the_writer_s_setting(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{NOON + timedelta(seconds=301):%Y-%m-%d %H:%M:%S.0},1,1\n")
    skews = (timedelta(minutes=5), timedelta(seconds=301))
    counts = [len(read_file(path, plain(), "trades", skew=s).refused()) for s in skews]
    assert counts == [1, 0]
    mapping = tmp_path / "plain.toml"
    text = 'name = "plain"\nexchange = { name = "X", asset_class = "equities", zone = "UTC" }\n'
    text += '[trades]\nheader = false\ncolumns = ["t", "price", "quantity"]\n[trades.fields]\n'
    text += 'timestamp = { column = "t", format = "%Y-%m-%d %H:%M:%S.%f" }\n'
    mapping.write_text(text + 'price = "price"\nquantity = "quantity"\n')
    url = f"{path}?mapping={mapping}&kind=trades&symbol=ABC"
    for more, kinds in (("", {"rejects"}), ("&skew=300", {"rejects"}), ("&skew=301", {"trades"})):
        assert set(read_all(open_feed(url + more, None, lambda: NOON))) == kinds
    with pytest.raises(BadInput, match="skew"):
        open_feed(f"{url}&skew=5m", None, lambda: NOON)


def test_which_of_equal_records_is_which_hangs_on_no_clock(tmp_path: Path) -> None:
    """Equal records that are too far ahead in one block and no longer in the next."""
    now = datetime(2026, 3, 2, 10, tzinfo=UTC)
    ahead = now + timedelta(minutes=6)
    path = tmp_path / "x.csv"
    path.write_text("".join(f"{ahead:%Y-%m-%d %H:%M:%S.0},1,1\n" for _ in range(4)))

    def occurrences(later: timedelta) -> list[int]:
        """Those of the records taken, each block being read `later` than the one before."""
        times = iter(now + later * n for n in range(1000))
        feed = open_file(path, plain(), "trades", clock=lambda: next(times), block_bytes=60)
        tables = read_all(feed)
        found: list[int] = tables["trades"].column("occurrence").to_pylist()
        return found

    assert occurrences(timedelta(minutes=2)) == [2, 3]
    assert occurrences(timedelta(hours=1)) == [2, 3]


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_feed_that_goes_on_gives_a_rejected_line_once(tmp_path: Path, line: int) -> None:
    path = tmp_path / "x.csv"
    bad = GOOD.replace(",10", ",-10")
    path.write_text("\n".join([GOOD, bad, GOOD, bad]) + "\n")
    feed = open_file(path, plain(), "trades", clock=lambda: NOON, block_bytes=len(GOOD) + 1)
    for _ in range(line):
        feed.read()
    position = feed.position()
    feed.close()
    again = read_all(open_file(path, plain(), "trades", clock=lambda: NOON, position=position))
    read = int(position.split()[1])
    assert again["rejects"].column("line").to_pylist() == [n for n in (2, 4) if n > read]
    assert sum(table.num_rows for table in again.values()) == 4 - read
