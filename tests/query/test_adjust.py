"""Adjusted bars beside fractions in plain Python, and what is heeded when."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from k2.errors import BadInput
from k2.model import latest
from k2.query import Reader, Selection, open_reader
from tests.query.make import EXCHANGES, Row, trade
from tests.query.test_reader import Market

TODAY = datetime(2024, 4, 1, tzinfo=UTC)
FIRST = date(2024, 3, 1)
PRICES = ("open", "high", "low", "close", "vwap")


class Acting(Market):
    """A home that takes corporate actions as well."""

    def act(self, kind: str, rows: list[Row]) -> None:
        schema = latest(kind).arrow
        plain = [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]
        for row in rows:
            of = EXCHANGES[row.get("exchange", "sim")]
            made = dict.fromkeys(schema.names) | {"exchange": of.name, "ingestion_timestamp": TODAY}
            table = pa.Table.from_pylist([made | row], schema=pa.schema(plain)).cast(schema)
            self._producer.send(of, kind, table)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Acting]:
    made = Acting(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(market: Acting) -> Iterator[Reader]:
    with open_reader(market.folder, clock=lambda: TODAY) as opened:
        yield opened


def days(market: Acting, symbol: str, prices: list[str], exchange: str = "sim") -> None:
    """Two trades a day from the first of March on: at the price, and a tenth above it."""
    rows = []
    for n, price in enumerate(prices):
        noon = datetime(2024, 3, 1 + n, 3, tzinfo=UTC)
        for minutes, more in ((0, "0"), (90, "0.1")):
            at = noon + timedelta(minutes=minutes)
            rows.append(trade(symbol, at, Decimal(price) + Decimal(more), "3", exchange=exchange))
    market.append(rows)


def split(symbol: str, day: date, ratio: str, **more: Any) -> Row:
    return {"symbol": symbol, "effective_date": day, "ratio": Decimal(ratio), **more}


def dividend(symbol: str, day: date, amount: str, **more: Any) -> Row:
    return {"symbol": symbol, "ex_date": day, "net_amount": Decimal(amount), **more}


def closes(reader: Reader, symbol: str, **more: Any) -> list[str]:
    bars = reader.bars(Selection((symbol,)), "1d", **more).table
    return [f"{price.normalize():f}" for price in bars["close"].to_pylist()]


def rounded(value: Fraction) -> Decimal:
    return Decimal(round(value * 10**8)).scaleb(-8)


def test_a_split_changes_what_is_before_it(market: Acting, reader: Reader) -> None:
    days(market, "A", ["10", "12", "4", "5"])
    market.act("splits", [split("A", date(2024, 3, 3), "3")])
    plain = reader.bars(Selection(("A",)), "1d").table
    made = reader.bars(Selection(("A",)), "1d", adjusted="splits")
    assert closes(reader, "A", adjusted="splits") == ["3.36666667", "4.03333333", "4.1", "5.1"]
    assert made.table["volume"].to_pylist() == [18, 18, 6, 6]
    assert made.table["trade_count"].equals(plain["trade_count"])
    assert "adjusted by 1 split" in str(made.meta["notes"])
    # Minutes of the same days, by their exchange date.
    minutes = reader.bars(Selection(("A",)), "1m", adjusted="splits").table
    assert minutes["close"].to_pylist()[:5] == [
        *(Decimal("3.33333333"), Decimal("3.36666667"), Decimal("4")),
        *(Decimal("4.03333333"), Decimal("4")),
    ]
    assert closes(reader, "A") == ["10.1", "12.1", "4.1", "5.1"]


def test_a_dividend_goes_by_the_close_before_it(market: Acting, reader: Reader) -> None:
    days(market, "A", ["9.9", "19.9", "18"])
    market.act("dividends", [dividend("A", date(2024, 3, 3), "1")])
    assert closes(reader, "A", adjusted="all") == ["9.5", "19", "18.1"]
    assert closes(reader, "A", adjusted="splits") == closes(reader, "A")
    market.act("splits", [split("A", date(2024, 3, 2), "2")])
    assert closes(reader, "A", adjusted="all") == ["4.75", "19", "18.1"]


@pytest.mark.parametrize("seed", range(5))
def test_factors_are_products_of_fractions(market: Acting, reader: Reader, seed: int) -> None:
    r = np.random.default_rng(seed)
    prices = [str(Decimal(int(r.integers(500, 90_000))).scaleb(-2)) for _ in range(20)]
    days(market, "A", prices)
    days(market, "B", ["7"] * 5)
    splits = {int(day): Decimal(int(r.integers(1, 40))).scaleb(-1) for day in r.integers(1, 20, 3)}
    paid = {int(day): Decimal(int(r.integers(1, 400))).scaleb(-2) for day in r.integers(1, 20, 4)}
    at = [FIRST + timedelta(days=n) for n in range(20)]
    market.act("splits", [split("A", at[n], str(ratio)) for n, ratio in splits.items()])
    market.act("dividends", [dividend("A", at[n], str(much)) for n, much in paid.items()])
    if seed % 2:
        market.commit()
    plain = reader.bars(Selection(), "1d").table.to_pylist()
    made = reader.bars(Selection(), "1d", adjusted="all").table.to_pylist()
    mine = [row for row in plain if row["symbol"] == "A"]
    for n, (before, after) in enumerate(zip(plain, made, strict=True)):
        price = quantity = Fraction(1)
        if before["symbol"] == "A":
            for day, ratio in splits.items():
                if day > n:
                    price, quantity = price / Fraction(ratio), quantity * Fraction(ratio)
            for day, much in paid.items():
                if day > n:
                    price *= 1 - Fraction(much) / Fraction(mine[day - 1]["close"])
        price, quantity = (Fraction(round(f * 10**12), 10**12) for f in (price, quantity))
        for name in PRICES:
            assert after[name] == rounded(Fraction(before[name]) * price), (n, name)
        assert after["volume"] == rounded(Fraction(before["volume"]) * quantity)


def test_what_counts_is_what_has_happened(market: Acting, reader: Reader) -> None:
    days(market, "A", ["10", "10", "5"])
    market.act("splits", [split("A", date(2024, 3, 3), "2")])
    # Announced, and yet to come.
    market.act("splits", [split("A", TODAY.date() + timedelta(days=1), "7")])
    assert closes(reader, "A", adjusted="splits") == ["5.05", "5.05", "5.1"]
    before = "2024-03-02T12:00:00Z"
    assert closes(reader, "A", adjusted="splits", as_known_at=before) == ["10.1", "10.1"]


def test_days_are_those_of_the_exchange(market: Acting, reader: Reader) -> None:
    rows = [
        trade("A", datetime(2024, 3, 3, hour, tzinfo=UTC), "10", exchange=exchange)
        for exchange in ("ASX", "NYSE")
        for hour in (12, 14)
    ]
    market.append(rows)
    for exchange in ("ASX", "NYSE"):
        market.act("splits", [split("A", date(2024, 3, 4), "2", exchange=exchange)])
    bars = reader.bars(Selection(("A",)), "1h", adjusted="splits").table.to_pylist()
    found = [(bar["exchange"], bar["start"].hour, bar["close"]) for bar in bars]
    # 13:00 UTC is midnight in Sydney, and morning in New York.
    assert found == [("ASX", 12, 5), ("ASX", 14, 10), ("NYSE", 12, 5), ("NYSE", 14, 5)]


def test_what_cannot_be_heeded_is_told(market: Acting, reader: Reader) -> None:
    rows = [
        trade("A", datetime(2024, 3, day, 3, tzinfo=UTC), "10", currency="AUD", offset=day)
        for day in (1, 2)
    ]
    market.append(rows)
    day = date(2024, 3, 2)
    market.act(
        "dividends",
        [
            dividend("A", day, "1", currency="USD", source="one"),
            dividend("A", day, "1", currency="AUD", source="two"),
            dividend("A", date(2024, 3, 3), "10"),
            dividend("A", date(2024, 2, 3), "5"),
            {"symbol": "A", "ex_date": date(2024, 3, 4)},
        ],
    )
    made = reader.bars(Selection(("A",)), "1d", adjusted="all")
    assert made.table["close"].to_pylist() == [10, 10]
    told = " ".join(str(note) for note in made.meta["notes"])  # type: ignore[attr-defined]
    for part in (
        "it is in USD, trades are in AUD",
        "10.00000000 is no less than the close before it",
        "no amount is known",
        "left out: 1 corporate action that another source",
        "adjusted by 0 actions",
    ):
        assert part in told, part


def test_what_cannot_be_asked(market: Acting, reader: Reader) -> None:
    days(market, "A", ["10"])
    for more in ({"consolidated": True}, {"kind": "tick", "interval": "5"}):
        asked: dict[str, Any] = {"interval": "1d", "adjusted": "all", **more}
        with pytest.raises(BadInput):
            reader.bars(Selection(("A",)), **asked)
    with pytest.raises(BadInput, match="no such adjustment"):
        reader.bars(Selection(("A",)), "1d", adjusted="mergers")
    # Chicago's date begins at five in the afternoon: a bar of eight hours would be of two.
    noon = datetime(2024, 3, 4, 12, tzinfo=UTC)
    market.append([trade("A", noon + timedelta(hours=h), "10", exchange="CME") for h in (0, 12)])
    with pytest.raises(BadInput, match="two exchange dates at CME"):
        reader.bars(Selection(("A",), ("CME",)), "8h", adjusted="all")
    assert reader.bars(Selection(("A",), ("CME",)), "1h", adjusted="all").table.num_rows == 2
