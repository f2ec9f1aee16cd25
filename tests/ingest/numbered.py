"""Trades by their numbers, through the log into the tables."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from k2.ingest import CommitLimits, WriterOptions
from k2.log import Producer
from k2.model import Exchange, latest
from tests.journeys.home import SKEW, Home

BEGAN = datetime(2026, 1, 5, tzinfo=UTC)


def writer_options(grace: timedelta) -> WriterOptions:
    return WriterOptions(CommitLimits(rows=5_000), skew=SKEW, gap_grace=grace)


def send(home: Home, kind: str, rows: list[dict[str, object]]) -> None:
    """Through the log into the tables, in one commit."""
    schema = latest(kind).arrow
    written = pa.schema(
        [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]
    )
    table = pa.Table.from_pylist(rows, schema=written).cast(schema)
    exchange = Exchange("simulated", "crypto", "UTC", numbered=("trades",))
    Producer(home.log, home.registry, 1).send(exchange, kind, table)
    home.writer(writer_options(timedelta(seconds=10))).run(lambda: False, until_caught_up=True)


def trades(home: Home, numbers: list[int], *, at: float = 0, happened: float = 0) -> None:
    """Trades of these numbers, first seen and `happened` so many seconds after the test's own time
    began, a microsecond a number later.
    """
    began = BEGAN + timedelta(seconds=happened)
    seen = BEGAN + timedelta(seconds=at)
    given = {
        "symbol": "BTC",
        "exchange": "simulated",
        "price": Decimal(1),
        "quantity": Decimal(1),
        "id_space": "",
        "side": "BUY",
        "asset_class": "crypto",
        "price_forming": True,
        "timestamp_nanos": 0,
        "ingestion_timestamp": seen,
    }
    rows = [
        given | {"trade_id": str(n), "timestamp": began + timedelta(microseconds=n)}
        for n in numbers
    ]
    send(home, "trades", rows)
