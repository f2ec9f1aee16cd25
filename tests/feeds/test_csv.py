"""Real files of three equities, read whole: counts, traps, a plain reading beside the columns."""

import csv
import gzip
import zipfile
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from k2.errors import BadInput
from k2.feeds import open_feed
from k2.feeds.csv import open_file
from k2.model import latest
from tests.feeds.reading import NOON, Whole, read_all, read_file

SYDNEY = ZoneInfo("Australia/Sydney")
IDS = {"BHP": "7078", "DVN": "7181", "MWR": "3153"}


@pytest.fixture(scope="module")
def bhp(asx: Path) -> Whole:
    return read_asx(asx, "trades", "BHP")


def read_asx(asx: Path, kind: str, symbol: str) -> Whole:
    path = asx / kind / f"{IDS[symbol]}.csv"
    return read_file(path, "asx", kind, instruments=asx / "reference" / "company_info.csv")


@pytest.mark.parametrize(
    ("kind", "symbol", "count"),
    [
        ("trades", "BHP", 91_631),
        ("trades", "DVN", 232),
        ("trades", "MWR", 11),
        ("quotes", "BHP", 77_849),
        ("quotes", "DVN", 549),
        ("quotes", "MWR", 60),
    ],
)
def test_every_line_is_a_record(asx: Path, kind: str, symbol: str, count: int) -> None:
    found = read_asx(asx, kind, symbol)
    assert found.records.num_rows == count
    assert found.rejects.num_rows == 0
    for name, value in (
        ("symbol", symbol),
        ("exchange", "ASX"),
        ("source", "asx"),
        ("currency", "AUD"),
        ("asset_class", "equities"),
        ("ingestion_timestamp", NOON),
    ):
        assert found.distinct(name) == {value}


@pytest.mark.parametrize("kind", ["trades", "quotes"])
def test_tables_are_those_of_the_model(asx: Path, kind: str) -> None:
    path = asx / kind / "7181.csv"
    for table in read_all(open_file(path, "asx", kind, symbol="DVN", clock=lambda: NOON)).values():
        assert table.schema.equals(latest(kind).arrow)
        table.validate(full=True)


def _utc(day: str, time: str) -> datetime:
    """Sydney was 11 hours ahead all that month."""
    month, day_, year = day.split("/")
    return datetime.fromisoformat(f"{year}-{month}-{day_}T{time}+11:00")


def test_trades_equal_a_plain_reading_line_by_line(asx: Path, bhp: Whole) -> None:
    seen: dict[tuple[str, ...], int] = {}
    wanted: dict[str, list[Any]] = {name: [] for name in _READ}
    with (asx / "trades" / "7078.csv").open(newline="") as file:
        for row in csv.reader(file):
            day, time, price, volume, qualifier, venue, buyer = row
            vendor = {"venue": venue, "buyer_id": buyer}
            inside = ",".join(f'"{k}":"{v}"' for k, v in vendor.items() if v)
            # Equal prices may be spelt in two ways: 36.5 and 36.50.
            key = (day, time, str(Decimal(price).normalize()), volume, qualifier, venue, buyer)
            values = (
                _utc(day, time),
                Decimal(price),
                Decimal(volume),
                qualifier,
                venue != "X" and qualifier not in ("1", "3", "9"),
                f"{{{inside}}}" if inside else None,
                seen.get(key, 0),
            )
            seen[key] = seen.get(key, 0) + 1
            for name, value in zip(_READ, values, strict=True):
                wanted[name].append(value)
    for name in _READ:
        assert bhp.column(name) == wanted[name], name


_READ = (
    *("timestamp", "price", "quantity", "conditions", "price_forming"),
    *("vendor_data", "occurrence"),
)


def test_lines_that_equal_another_are_told_apart(bhp: Whole) -> None:
    names = bhp.records.schema.names
    content = bhp.records.drop_columns("occurrence").group_by(
        [n for n in names if n != "occurrence"]
    )
    assert bhp.records.num_rows - content.aggregate([]).num_rows == 3_193
    assert bhp.records.group_by(names).aggregate([]).num_rows == bhp.records.num_rows


def test_trades_that_form_prices(bhp: Whole) -> None:
    """BHP on 11 March 2014, in the exchange's own time zone."""
    begin = datetime(2014, 3, 11, tzinfo=SYDNEY)
    day = [
        (price, quantity, forming)
        for time, price, quantity, forming in zip(
            *map(bhp.column, ("timestamp", "price", "quantity", "price_forming")), strict=True
        )
        if begin <= time < begin + timedelta(days=1)
    ]
    assert len(day) == 21_681
    assert max(price for price, _, _ in day) == 42
    assert sum(quantity for _, quantity, _ in day) == 8_919_376
    forming = [(price, quantity) for price, quantity, forms in day if forms]
    prices = [price for price, _ in forming]
    assert len(forming) == 21_653
    assert (prices[0], max(prices), min(prices), prices[-1]) == tuple(
        map(Decimal, ("35.95", "36.45", "35.84", "35.95"))
    )
    assert sum(quantity for _, quantity in forming) == 6_705_250


def test_quotes_equal_a_plain_reading_line_by_line(asx: Path) -> None:
    found = read_asx(asx, "quotes", "BHP")
    names = ("bid_price", "ask_price", "bid_quantity", "ask_quantity")
    wanted: list[tuple[Any, ...]] = []
    with (asx / "quotes" / "7078.csv").open(newline="") as file:
        for day, time, *numbers in csv.reader(file):
            bid, ask, bid_size, ask_size = map(Decimal, numbers)
            sides: list[Decimal | None] = [bid, ask, bid_size, ask_size]
            if not bid and not bid_size:
                sides[0] = sides[2] = None
            if not ask and not ask_size:
                sides[1] = sides[3] = None
            wanted.append((_utc(day, time), *sides))
    assert list(zip(*map(found.column, ("timestamp", *names)), strict=True)) == wanted
    assert wanted[0][2] is None  # the first of a day has no ask
    bids, asks = found.column("bid_price"), found.column("ask_price")
    assert (
        sum(b is not None and a is not None and b > a for b, a in zip(bids, asks, strict=True))
        == 323
    )


def test_reference_data(asx: Path) -> None:
    reference = asx / "reference"
    instruments = read_file(reference / "company_info.csv", "asx", "instruments")
    assert instruments.column("symbol") == ["MWR", "BHP", "DVN", "RIO"]
    assert instruments.column("isin")[1] == "AU000000BHP4"
    assert instruments.column("name")[1] == "BHP BILLITON LTD"
    assert instruments.column("valid_from")[1] == date(2008, 5, 7)
    more = {"instruments": reference / "company_info.csv"}
    dividends = read_file(reference / "dividends.csv", "asx", "dividends", **more)
    assert dividends.column("symbol") == ["BHP", "RIO"]
    assert dividends.column("ex_date") == [date(2014, 3, 3), date(2014, 3, 5)]
    assert dividends.column("gross_amount") == [Decimal("0.842857"), Decimal("1.716286")]
    assert dividends.column("currency") == ["USD", "AUD"]
    splits = read_file(reference / "stock_splits.csv", "asx", "splits", **more)
    assert (splits.records.num_rows, splits.rejects.num_rows) == (0, 0)


def test_a_company_that_nobody_knows_is_rejected(asx: Path, tmp_path: Path) -> None:
    text = (asx / "reference" / "dividends.csv").read_text()
    path = tmp_path / "dividends.csv"
    path.write_text(text.replace("7458,", "9999,"))
    found = read_file(path, "asx", "dividends", instruments=asx / "reference" / "company_info.csv")
    assert found.column("symbol") == ["BHP"]
    assert found.refused() == [
        (
            3,
            "company id",
            'company id "9999" stands for no symbol, or several, in company_info.csv',
        )
    ]


def test_three_broken_lines_are_rejected_and_the_rest_goes_on(asx: Path, tmp_path: Path) -> None:
    lines = (asx / "trades" / "7078.csv").read_bytes().splitlines(keepends=True)
    broken = {
        17: b'03/10/2014,10:00:00.000,"12,5",100,0,,\r\n',
        60_001: b"02/30/2014,10:00:00.000,36.5,100,0,,\r\n",
        91_631: b"03/14/2014,16:00:00.000,36.5\r\n",
    }
    for number, line in broken.items():
        lines[number - 1] = line
    path = tmp_path / "mended soon.csv"
    path.write_bytes(b"".join(lines))
    found = read_file(path, "asx", "trades", symbol="BHP")
    assert found.records.num_rows == 91_628
    assert found.refused() == [
        (17, "price", 'price "12,5" is no decimal number'),
        (60_001, "date, time", 'date, time "02/30/2014 10:00:00.000" is no time'),
        (91_631, None, "the line has 3 columns, not 7"),
    ]
    rejects = found.rejects.to_pylist()
    assert [r["raw"] for r in rejects] == [line[:-2] for line in broken.values()]
    assert {r["file"] for r in rejects} == {"mended soon.csv"}
    assert {(r["exchange"], r["kind"], r["source"]) for r in rejects} == {("ASX", "trades", "asx")}
    assert all(r["expected"] for r in rejects)
    assert found.rejects.schema.equals(latest("rejects").arrow)


def _compressed(folder: Path, data: bytes) -> dict[str, Path]:
    paths = {name: folder / f"7181.csv.{name}" for name in ("gz", "zst", "zip", "unnamed")}
    paths["gz"].write_bytes(gzip.compress(data[:5_000]) + gzip.compress(data[5_000:]))
    paths["zst"].write_bytes(pa.compress(data, "zstd", asbytes=True))
    with zipfile.ZipFile(paths["zip"], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/inside.csv", data)
    paths["unnamed"].write_bytes(gzip.compress(data))
    return paths


@pytest.mark.parametrize("how", ["gz", "zst", "zip", "unnamed"])
def test_compressed_files_equal_plain_ones(asx: Path, tmp_path: Path, how: str) -> None:
    plain = asx / "trades" / "7181.csv"
    more: dict[str, Any] = {"symbol": "DVN", "block_bytes": 512}
    done: list[tuple[int, int]] = []
    path = _compressed(tmp_path, plain.read_bytes())[how]
    found = read_file(path, "asx", "trades", progress=lambda *at: done.append(at), **more)
    assert found.records.equals(read_file(plain, "asx", "trades", **more).records)
    size = path.stat().st_size
    assert {total for _, total in done} == {size}
    assert [at for at, _ in done] == sorted(at for at, _ in done)
    assert 0 < done[-1][0] <= size


def test_line_ends_make_no_difference(asx: Path, tmp_path: Path) -> None:
    data = (asx / "trades" / "7181.csv").read_bytes()
    assert b"\r\n" in data
    unix = tmp_path / "7181.csv"
    unix.write_bytes(data.replace(b"\r\n", b"\n").removesuffix(b"\n"))
    found = read_file(unix, "asx", "trades", symbol="DVN")
    wanted = read_file(asx / "trades" / "7181.csv", "asx", "trades", symbol="DVN")
    assert found.records.equals(wanted.records)


def test_the_symbol_comes_from_one_place(asx: Path, tmp_path: Path) -> None:
    reference = asx / "reference" / "company_info.csv"
    path = tmp_path / "9999.csv"
    path.write_bytes((asx / "trades" / "3153.csv").read_bytes())
    for more, message in (
        ({}, "companies by their id"),
        ({"instruments": reference}, "company id '9999' stands for no symbol"),
    ):
        with pytest.raises(BadInput, match=message) as caught:
            read_file(path, "asx", "trades", **more)
        assert "--symbol" in (caught.value.hint or "")
    assert set(read_file(path, "asx", "trades", symbol="MWR").column("symbol")) == {"MWR"}
    with pytest.raises(BadInput, match="names its symbols itself"):
        read_file(reference, "asx", "instruments", symbol="BHP")
    dividends = asx / "reference" / "dividends.csv"
    with pytest.raises(BadInput, match="companies by their id"):
        read_file(dividends, "asx", "dividends")


def test_another_exchange_may_be_named(asx: Path) -> None:
    path = asx / "trades" / "3153.csv"
    feed = open_file(path, "asx", "trades", symbol="MWR", exchange="CHIX", clock=lambda: NOON)
    assert [(e.name, e.zone) for e in feed.exchanges] == [("CHIX", "Australia/Sydney")]
    assert set(read_all(feed)["trades"].column("exchange").to_pylist()) == {"CHIX"}


def test_a_url_opens_a_file(asx: Path) -> None:
    url = f"csv:{asx}/trades/3153.csv?mapping=asx&kind=trades&symbol=MWR"
    feed = open_feed(url, None, lambda: NOON)
    assert read_all(feed)["trades"].num_rows == 11
    for wrong, message in (
        ("csv:x.csv?mapping=asx", "needs kind"),
        ("csv:x.csv?mapping=asx&kind=trades&speed=1", "no option 'speed'"),
        ("cvs:x.csv", "no feed called 'cvs'"),
        ("port:x", "no feed called 'port'"),
        ("x.csv", "no feed called"),
    ):
        with pytest.raises(BadInput, match=message):
            open_feed(wrong, None, lambda: NOON)
