"""Lines that are none, files that are none, and places: numbers, bytes and positions stay exact."""

import gzip
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.feeds import EndOfFeed
from k2.feeds.csv import open_file
from k2.feeds.mapped import lines
from k2.feeds.mapping import parse_mapping
from tests.feeds.reading import NOON, PLAIN, Whole, plain, read_file

GOOD = b"2026-03-02 10:00:00.000,1.5,10"


_COLUMNS = 'columns = ["time", "price", "quantity"]'


def read(folder: Path, data: bytes, *changes: tuple[str, str], **more: Any) -> Whole:
    path = folder / "x.csv"
    path.write_bytes(data)
    return read_file(path, plain(*changes), "trades", **more)


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (b"2026-03-02 10:00:00.000,1.5", None, "the line has 2 columns, not 3"),
        (b"2026-03-02 10:00:00.000,1.5,10,9", None, "the line has 4 columns, not 3"),
        (b"   ", None, "the line has 1 column, not 3"),
        (b"2026-03-02 10:00:00.000,12,5,10", None, "the line has 4 columns, not 3"),
        (b'2026-03-02 10:00:00.000,"12,5",10', "price", 'price "12,5" is no decimal number'),
        (b"2026-03-02 10:00:00.000,,10", "price", "price is empty"),
        (b"2026-03-02 10:00:00.000,NaN,10", "price", 'price "NaN" is no decimal number'),
        (b"2026-03-02 10:00:00.000,1e5,10", "price", 'price "1e5" is no decimal number'),
        (b"2026-03-02 10:00:00.000, 1.5,10", "price", 'price " 1.5" is no decimal number'),
        (
            b"2026-03-02 10:00:00.000,1.123456789,10",
            "price",
            'price "1.123456789" has more than 8 decimals',
        ),
        (
            b"2026-03-02 10:00:00.000,1.5,1234567890123456789",
            "quantity",
            'quantity "1234567890123456789" has more than 10 digits before the decimal mark',
        ),
        (b",1.5,10", "time", "time is empty"),
        (b"2026-02-30 10:00:00.000,1.5,10", "time", 'time "2026-02-30 10:00:00.000" is no time'),
        (b"2026-03-02 24:00:00.000,1.5,10", "time", 'time "2026-03-02 24:00:00.000" is no time'),
        (b"2026-03-02 10:00:00.000,\xff1.5,10", None, "the line is no UTF-8 text"),
        (b"2026-03-02 10:00:00.000,\x001.5,10", None, "a NUL byte stands in the line"),
        (b"2026-03-02 10:00:00.000,1.5\r,10", None, "a carriage return stands inside the line"),
        (b'2026-03-02 10:00:00.000,"1.5,10', None, lines._QUOTES),
        (b'2026-03-02 10:00:00.000,"1"5,10', None, lines._QUOTES),
        (b'2026-03-02 10:00:00.000,""1.5,10', None, lines._QUOTES),
        (b"1,2," + b"9" * 70_000, None, "the line has 70,004 bytes"),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_that_is_none_is_kept_whole(
    tmp_path: Path, line: bytes, column: str | None, reason: str, end: bytes
) -> None:
    line = line.replace(b"\n", b"")
    found = read(tmp_path, end.join([GOOD, line, GOOD, line, b"", line]))
    assert found.records.num_rows == 2
    assert found.refused() == [(n, column, reason) for n in (2, 4, 6)]
    for reject in found.rejects.to_pylist():
        assert reject["raw"] == line
        assert reject["expected"] or "is empty" in reason
        assert reject["file"] == "x.csv"


def test_a_line_longer_than_any_block_is_cut(tmp_path: Path) -> None:
    endless = b"9" * (3 * lines.MAX_KEPT_BYTES)
    long = (2, None, "the line has 3,145,728 bytes, of which the first 1,048,576 are kept")
    for last, more in (
        (b"", []),
        (b"\n" + GOOD + b"\nx", [(4, None, "the line has 1 column, not 3")]),
    ):
        found = read(tmp_path, GOOD + b"\n" + endless + last)
        assert found.records.num_rows == 1 + bool(last)
        assert found.refused() == [long, *more]
        assert found.rejects.column("raw")[0].as_py() == endless[: lines.MAX_KEPT_BYTES]


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"time,price,quantity", b"# nothing\n"]
)
def test_a_file_may_hold_nothing(tmp_path: Path, data: bytes) -> None:
    changes = (("header = false", 'header = true\ncomment = "#"'),)
    found = read(tmp_path, data, *changes)
    assert (found.records.num_rows, found.rejects.num_rows) == (0, 0)


def test_a_header_is_found_by_name(tmp_path: Path) -> None:
    header = (("header = false", 'header = true\ncomment = "#"'), (_COLUMNS, ""))
    text = '\ufeff# made by hand\n\nextra, Quantity ,"Price",time\n'
    text += "x,10,1.5,2026-03-02 10:00:00.000\nx,10\n"
    found = read(tmp_path, text.encode(), *header)
    assert found.column("price") == [Decimal("1.5")]
    assert found.refused() == [(5, None, "the line has 2 columns, not 4")]
    with pytest.raises(BadInput, match="no column 'price'") as caught:
        read(tmp_path, b"time,quantity\n" + GOOD, *header)
    assert caught.value.found == "time, quantity"


def test_a_header_is_told_by_its_letters(tmp_path: Path) -> None:
    auto = ("header = false", 'header = "auto"')
    for first, n in ((b"time,price,quantity", 1), (GOOD, 2), (b"T,p,Q", 1)):
        assert read(tmp_path, first + b"\n" + GOOD, auto).records.num_rows == n


def test_comments_and_sentinels_say_nothing(tmp_path: Path) -> None:
    change = ("header = false", 'header = false\ncomment = "#"\nskip_lines = ["-- none --"]')
    data = b"#1,2,3\n-- none --\n" + GOOD + b"\n# end\n-- none -- or\n" + GOOD + b" # no comment"
    found = read(tmp_path, data, change)
    assert found.records.num_rows == 1
    assert [(line, column) for line, column, _ in found.refused()] == [(5, None), (6, "quantity")]


def test_other_delimiters_and_blanks_around_values(tmp_path: Path) -> None:
    data = b'2026-03-02 10:00:00.000 ;\t1.5; "10"\n' + GOOD
    found = read(tmp_path, data, ("header = false", 'header = false\ndelimiter = ";"\ntrim = true'))
    assert found.records.num_rows == 0
    assert [column for _, column, _ in found.refused()] == ["quantity", None]
    found = read(
        tmp_path,
        b"2026-03-02 10:00:00.000 |\t1.5| 10 \n",
        ("header = false", 'header = false\ndelimiter = "|"\ntrim = true'),
    )
    assert found.column("quantity") == [Decimal(10)]


def test_a_side_is_empty_where_price_and_quantity_are_zero(tmp_path: Path) -> None:
    quotes = PLAIN.replace("[trades", "[quotes").replace('"price", "q', '"b", "bq", "a", "aq", "q')
    quotes = quotes.replace("header =", "zero_side_is_empty = true\nheader =")
    names = {"bid_price": "b", "bid_quantity": "bq", "ask_price": "a", "ask_quantity": "aq"}
    fields = "\n".join(f'{name} = "{column}"' for name, column in names.items())
    fields = quotes.replace('price = "price"\nquantity = "quantity"', fields)
    path = tmp_path / "x.csv"
    path.write_text(
        "".join(f"{GOOD.decode()[:23]},{row},\n" for row in ("0.0,0,5,0", "1,7,00.0,-0", "0,7,5,1"))
    )
    found = read_file(path, parse_mapping(fields, "quotes.toml"), "quotes")
    assert found.column("bid_price") == [None, 1]
    assert found.column("bid_quantity") == [None, 7]
    assert found.column("ask_price") == [5, None]
    assert found.column("ask_quantity") == [0, None]
    ((line, column, reason),) = found.refused()
    assert (line, column) == (3, "b")
    assert reason.startswith('b "0" is not above zero')


def test_quotes_may_be_known_by_the_venue_s_number(tmp_path: Path) -> None:
    quotes = PLAIN.replace("[trades", "[quotes").replace(
        'price = "price"\nquantity = "quantity"', ""
    )
    quotes = quotes.replace("header =", 'identity = "source_sequence"\nheader =')
    sides = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    fields = "".join(f'{name} = "price"\n' for name in sides)
    path = tmp_path / "x.csv"
    path.write_bytes(GOOD + b"\n" + GOOD + b"\n" + GOOD + b".5\n")
    mapping = parse_mapping(f'{quotes}{fields}source_sequence = "quantity"\n', "quotes.toml")
    found = read_file(path, mapping, "quotes")
    assert found.column("source_sequence") == [10, 10]
    assert found.column("occurrence") == [None, None]
    assert found.refused() == [(3, "quantity", 'quantity "10.5" is no whole number')]
    for wrong in ("", 'source_sequence = { column = "quantity", optional = true }\n'):
        with pytest.raises(BadInput, match="each line must have it"):
            parse_mapping(f"{quotes}{fields}{wrong}", "quotes.toml")


def test_quoted_values(tmp_path: Path) -> None:
    conditions = (
        ('columns = ["time",', 'columns = ["code", "time",'),
        (
            'price = "price"',
            'price = "price"\nconditions = { column = "code", optional = true }',
        ),
    )
    data = (
        b'"a,b","2026-03-02 10:00:00.000","1.5","10"\n"say ""no""",'
        + GOOD
        + b"\n"
        + b'5" x,'
        + GOOD
    )
    found = read(tmp_path, data, *conditions)
    assert found.column("conditions") == ["a,b", 'say "no"', '5" x']


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text('a1",\r é', max_size=12), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_no_line_is_lost_or_counted_twice(texts: list[str], end: str) -> None:
    data = "".join(text.rstrip("\r") + end for text in texts).encode()
    if not data:
        return
    block = lines.Block(data, 1)
    shape = lines.Shape(",", None, ())
    keep, faults = lines.sift(block, shape)
    cells = lines.split_lines(block, keep, 2, [0, 1], shape)
    blank = [n for n, text in enumerate(texts) if not text.rstrip("\r")]
    places = [*cells.lines.tolist(), *(f.row for f in faults + cells.faults), *blank]
    assert sorted(set(places)) == list(range(len(texts)))
    good = set(cells.lines.tolist())
    assert good.isdisjoint(f.row for f in faults + cells.faults)
    for at, first in zip(cells.lines, cells.columns[0].to_pylist(), strict=True):
        if '"' not in texts[at]:
            assert first == texts[at].split(",")[0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([GOOD, b"", b"x", b"1,2,3", GOOD + b"\r"]), max_size=40), st.data())
def test_blocks_of_any_size_hold_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    text = b"\n".join(rows)
    size = data.draw(st.integers(1, 200))
    whole, parts = read(folder, text), read(folder, text, block_bytes=size)
    assert parts.records.equals(whole.records)
    assert parts.refused() == whole.refused()


def test_reading_goes_on_after_the_last_line_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(
        b"".join(b"2026-03-02 10:00:00.%03d,1.5,10\nbad\n" % (n // 2) for n in range(50))
    )

    def rows(position: str | None, reads: int) -> tuple[list[tuple[object, ...]], str]:
        """Records and rejects of so many reads, and the position behind them."""
        found: list[tuple[object, ...]] = []
        feed = open_file(
            path, plain(), "trades", clock=lambda: NOON, position=position, block_bytes=300
        )
        try:
            for _ in range(reads):
                for records in feed.read():
                    names = ("line",) if records.kind == "rejects" else ("timestamp", "occurrence")
                    columns = (records.table.column(name).to_pylist() for name in names)
                    found += list(zip(*columns, strict=True))
        except EndOfFeed:
            pass
        finally:
            feed.close()
        return found, feed.position()

    whole, end = rows(None, 99)
    assert len(whole) == 100
    assert end.startswith("line 100 of ")
    for reads in range(12):
        before, position = rows(None, reads)
        assert before + rows(position, 99)[0] == whole
    path.write_bytes(path.read_bytes() + b"more\n")
    assert len(rows(end, 99)[0]) == 101, "another file is read from its start"
    for wrong in ("", "12", "line x of 1-2"):
        with pytest.raises(BadInput, match="no position"):
            rows(wrong, 1)


def _zip(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, GOOD)

    return write


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("x.csv", lambda path: None, "cannot be opened: No such file"),
        ("x.csv", lambda path: path.mkdir(), "cannot be opened: Is a directory"),
        ("x.gz", lambda path: path.write_bytes(GOOD), "compressed file is broken"),
        ("x.zst", lambda path: path.write_bytes(GOOD), "compressed file is broken"),
        ("x.zip", lambda path: path.write_bytes(GOOD), "compressed file is broken"),
        ("x.zip", _zip(), "holds 0 files"),
        ("x.zip", _zip("a", "b"), "holds 2 files"),
        ("x.csv", lambda path: path.write_bytes("é".encode("utf-16")), "UTF-16"),
    ],
)
def test_a_file_that_is_none(
    tmp_path: Path, name: str, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(BadInput, match=message) as caught:
        read_file(tmp_path / name, plain(), "trades")
    assert str(tmp_path / name) in (caught.value.place or "")


@pytest.mark.parametrize("how", ["gz", "zst"])
def test_a_compressed_file_that_breaks_off_gives_what_it_holds(tmp_path: Path, how: str) -> None:
    data = b"".join(b"2026-03-02 10:00:00.%03d,1.5,%d\n" % (n % 1000, n * n) for n in range(20_000))
    path = tmp_path / f"x.{how}"
    whole = gzip.compress(data) if how == "gz" else pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(whole[: -len(whole) // 3])
    feed = open_file(path, plain(), "trades", clock=lambda: NOON, block_bytes=1 << 14)
    rows = 0
    with pytest.raises(BadInput, match="compressed file is broken") as caught:  # noqa: PT012
        while True:
            rows += sum(records.table.num_rows for records in feed.read())
    feed.close()
    assert "about byte" in (caught.value.place or "")
    assert 1_000 < rows < 20_000


@pytest.mark.parametrize(
    ("data", "bad"),
    [(b"\xff\n", [1]), (b'"""\n\0\n', [1, 2]), (b"a\rb\rc", [1]), (b'\n\n"""\n', [3])],
)
def test_a_file_of_which_no_line_can_be_read_is_rejected_whole(
    tmp_path: Path, data: bytes, bad: list[int]
) -> None:
    found = read(tmp_path, data)
    assert found.records.num_rows == 0
    assert sorted(line for line, _, _ in found.refused()) == bad


def test_records_that_cannot_be_read_behind_a_header(tmp_path: Path) -> None:
    with_header = ("header = false", "header = true")
    header = b"time,price,quantity\n"
    found = read(tmp_path, header + b"\xff\n", with_header)
    assert [line for line, _, _ in found.refused()] == [2]
    assert read(tmp_path, header, with_header).refused() == []
    with pytest.raises(BadInput, match="no UTF-8 text") as caught:
        read(tmp_path, b"\n\xff\n", with_header)
    assert "x.csv line 2" in (caught.value.place or "")


def test_a_file_without_a_readable_record_that_names_its_exchange(tmp_path: Path) -> None:
    by_column = ('name = "X"', 'column = "venue"')
    columns = (_COLUMNS, _COLUMNS.replace('"time"', '"venue", "time"'))
    with pytest.raises(BadInput, match="a NUL byte") as caught:
        read(tmp_path, b"X,\0,1,2\n", by_column, columns)
    assert "x.csv line 1" in (caught.value.place or "")
    found = read(tmp_path, b"\0\nX," + GOOD, by_column, columns)
    assert (found.records.num_rows, len(found.refused())) == (1, 1)
