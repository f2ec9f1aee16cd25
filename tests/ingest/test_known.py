"""What was known before a restart is known after it, for every kind of record."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from k2.ingest import audit, known
from k2.log import Producer
from k2.model import Exchange, latest
from tests.journeys.home import now, open_home

EXCHANGE = Exchange("venue", "crypto", "UTC")
ROWS = {
    "rejects": {"kind": "trades", "line": 7, "reason": "no number", "raw": b"a,b"},
    "gaps": {
        "symbol": "A",
        "kind": "trades",
        "first_missing": 2,
        "last_missing": 3,
        "cause": "disconnect",
    },
}


@pytest.mark.parametrize("kind", ROWS)
def test_what_a_feed_tells_again_is_a_duplicate_after_a_restart_from_the_table(
    tmp_path: Path, kind: str
) -> None:
    row = ROWS[kind] | {"exchange": EXCHANGE.name, "ingestion_timestamp": now()}
    schema = latest(kind).arrow
    table = pa.table({name: [row.get(name)] for name in schema.names}, schema=schema)
    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 1)
        for _ in range(3):
            producer.send(EXCHANGE, kind, table)
            home.catch_up()  # a writer of its own each time
            for kept in (home.lake.folder / "tables").glob("*/marks/*"):
                kept.unlink()  # a cache only
        (part,) = audit(home.log, home.lake).partitions
        assert part.problem is None
        assert part.duplicate == 2


def test_of_what_is_sent_again_no_more_is_looked_up_than_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of one symbol are far from those of another: what lies between is none of either."""
    found: list[int] = []
    scan = known._scan

    def counting(*of: Any) -> list[pa.Table]:
        tables = scan(*of)
        found.append(sum(table.num_rows for table in tables))
        return tables

    def trades(of: Mapping[str, range]) -> pa.Table:
        rows = [
            {
                "symbol": symbol,
                "exchange": EXCHANGE.name,
                "timestamp": now(),
                "ingestion_timestamp": now(),
                "price": Decimal(1),
                "quantity": Decimal(1),
                "trade_id": str(number),
                "side": "BUY",
                "price_forming": True,
                "id_space": "",
                "timestamp_nanos": 0,
            }
            for symbol, numbers in of.items()
            for number in numbers
        ]
        schema = latest("trades").arrow
        columns = [[row.get(name) for row in rows] for name in schema.names]
        return pa.table(columns, schema=schema)

    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 1)
        producer.send(EXCHANGE, "trades", trades({"A": range(1000, 2000), "B": range(5000, 6000)}))
        home.catch_up()
        monkeypatch.setattr(known, "_scan", counting)
        producer.send(EXCHANGE, "trades", trades({"A": range(1500, 1510), "B": range(5990, 6010)}))
        home.catch_up()
        (part,) = audit(home.log, home.lake).partitions
        assert (part.committed, part.duplicate) == (2010, 20)
    assert found == [20]
