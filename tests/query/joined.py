"""Quotes for tests, and joins once more, as plainly as they can be said: record by record."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from k2.log import Producer
from k2.model import latest
from k2.query.join import JoinWanted, joined_columns
from tests.query.make import EXCHANGES, Row, order_of, trade
from tests.query.test_reader import Market

DAWN = datetime(2024, 3, 4, 22, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def quote(
    symbol: str,
    when: datetime,
    bid: str | Decimal | None,
    ask: str | Decimal | None,
    *,
    exchange: str = "sim",
    offset: int = 0,
    partition: int = 0,
    **more: Any,
) -> Row:
    """One quote as a row of the table, lineage included."""
    of = EXCHANGES[exchange]
    return {
        "symbol": symbol,
        "exchange": exchange,
        "timestamp": when,
        "bid_price": None if bid is None else Decimal(bid),
        "bid_quantity": None if bid is None else Decimal(1),
        "ask_price": None if ask is None else Decimal(ask),
        "ask_quantity": None if ask is None else Decimal(1),
        "ingestion_timestamp": when,
        "id_space": "",
        "timestamp_nanos": 0,
        "exchange_date": (when + of.day_roll).astimezone(ZoneInfo(of.zone)).date(),
        "log_topic": f"market.{of.asset_class}.quotes.{exchange}",
        "log_id": f"quotes-{exchange}",
        "log_partition": partition,
        "log_offset": offset,
        **more,
    }


def random_records(
    kind: str,
    seed: int,
    count: int,
    *,
    symbols: Sequence[str] = ("A", "B", "C"),
    exchanges: Sequence[str] = ("sim",),
    span: timedelta = timedelta(hours=2),
    instants: int = 40,
    late: float = 0.5,
) -> list[Row]:
    """Records at few instants, many of them known late: by a time of receipt, or since they came
    live within the minute. Some were told of before they happened, as clocks that differ have it.
    """
    r = np.random.default_rng([seed, len(kind)])
    rows: list[Row] = []
    offsets = dict.fromkeys(exchanges, 0)
    for _ in range(count):
        exchange = exchanges[int(r.integers(len(exchanges)))]
        when = DAWN + span // instants * int(r.integers(instants))
        more: dict[str, Any] = {
            "offset": offsets[exchange],
            "partition": int(r.integers(2)),
            "exchange": exchange,
            "timestamp_nanos": int(r.integers(3)),
        }
        if r.random() < late:
            delay = span / instants * float(r.integers(-1, instants // 2))
            more["source_received_timestamp"] = when + delay // MICROSECOND * MICROSECOND
        elif r.integers(2):
            more["ingestion_timestamp"] = when + timedelta(seconds=int(r.integers(0, 90)))
        offsets[exchange] += 1
        symbol, price = symbols[int(r.integers(len(symbols)))], Decimal(int(r.integers(100, 200)))
        if kind == "trades":
            side = ("BUY", "SELL", "SELL_SHORT", "UNKNOWN")[int(r.integers(4))]
            rows.append(trade(symbol, when, price, str(r.integers(1, 9)), side=side, **more))
        else:
            spread = Decimal(int(r.integers(1, 9))).scaleb(-2)
            sides = [None if not r.integers(9) else side for side in (price, price + spread)]
            rows.append(quote(symbol, when, *sides, **more))
    return rows


def known(row: Row) -> datetime:
    """When the record was known, as the design has it."""
    if row.get("source_received_timestamp") is not None:
        told: datetime = row["source_received_timestamp"]
        return told
    live = timedelta(0) <= row["ingestion_timestamp"] - row["timestamp"] <= timedelta(minutes=1)
    found: datetime = row["ingestion_timestamp" if live else "timestamp"]
    return found


def instant(row: Row) -> tuple[datetime, int]:
    """The time at which it happened, nanoseconds included."""
    return row["timestamp"], row["timestamp_nanos"]


def stood(left: Row, rights: Sequence[Row], wanted: JoinWanted) -> Row | None:
    """The record that stood beside `left`, found by looking at each."""
    rule = wanted.rule
    there = [
        row
        for row in rights
        if (row["symbol"], row["exchange"]) == (left["symbol"], left["exchange"])
        and (instant(row) < instant(left) if rule.strict else instant(row) <= instant(left))
        and (rule.look_ahead or known(row) <= known(left))
    ]
    last = max(there, key=order_of, default=None)
    if last is not None and wanted.max_age is not None:
        nanos = 1000 * ((left["timestamp"] - last["timestamp"]) // MICROSECOND)
        nanos += left["timestamp_nanos"] - last["timestamp_nanos"]
        if nanos > 1000 * (wanted.max_age // MICROSECOND):
            return None
    return last


def join(lefts: Sequence[Row], rights: Sequence[Row], wanted: JoinWanted) -> list[Row]:
    """The join, one row after the other, all columns of both."""
    columns = joined_columns(wanted.left, wanted.right)
    found = []
    for left in sorted(lefts, key=order_of):
        right = stood(left, rights, wanted) or {}
        found.append(
            {name: (right if of.is_right else left).get(of.name) for name, of in columns.items()}
        )
    return found


class Quoted(Market):
    """A home that trades and quotes are appended to."""

    def send(self, kind: str, rows: Sequence[Row]) -> None:
        """Append records of any kind, as they are."""
        schema = latest(kind).arrow
        plain = pa.schema(
            [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]
        )
        for exchange in sorted({row["exchange"] for row in rows}):
            mine = [row for row in rows if row["exchange"] == exchange]
            found = [{name: row.get(name) for name in schema.names} for row in mine]
            table = pa.Table.from_pylist(found, plain).cast(schema)
            Producer(self.log, self.registry, 2).send(EXCHANGES[exchange], kind, table)
