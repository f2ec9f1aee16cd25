"""What was known before a restart is known after it, for every kind of record."""

from pathlib import Path

import pyarrow as pa
import pytest

from k2.ingest import audit
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
