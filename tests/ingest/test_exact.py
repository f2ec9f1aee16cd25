"""Every record one fate, whatever the batches: history and tail against a plain reference."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from k2.ingest import Pinned, Tail, audit
from k2.log import EXCHANGES_TOPIC, Append
from k2.model import Exchange, Topic, encode, versions
from tests.journeys.home import SKEW, Home, ledger, open_home

EXCHANGE = Exchange("venue", "crypto", "UTC")
TOPIC = Topic("crypto", "trades", "venue")
START = datetime(2026, 1, 5, 23, 59, 58, tzinfo=UTC)
V1, V2 = versions("trades")


@dataclass(frozen=True)
class Made:
    """One trade as it is appended."""

    version: int
    symbol: str
    second: int
    price: str
    quantity: str
    trade_id: str | None
    occurrence: int | None

    @property
    def identity(self) -> object:
        if self.version == 1:
            return None
        if self.occurrence is not None:
            return ("content", self)
        return None if self.trade_id is None else ("id", self.symbol, self.trade_id)

    @property
    def valid(self) -> bool:
        return Decimal(self.quantity) > 0

    def row(self) -> dict[str, Any]:
        timestamp = START + timedelta(seconds=self.second)
        return {
            "symbol": self.symbol,
            "exchange": EXCHANGE.name,
            "timestamp": timestamp,
            "price": Decimal(self.price),
            "quantity": Decimal(self.quantity),
            "ingestion_timestamp": timestamp,
            "trade_id": self.trade_id,
            "side": "BUY",
            "price_forming": True,
            "id_space": "",
            "timestamp_nanos": 0,
            "occurrence": self.occurrence,
        }


made = st.builds(
    Made,
    version=st.sampled_from([1, 2, 2, 2]),
    symbol=st.sampled_from(["A", "B/USD"]),
    second=st.integers(0, 5),
    price=st.sampled_from(["1", "2.5"]),
    quantity=st.sampled_from(["1", "1", "3", "-1"]),
    trade_id=st.sampled_from([None, "1", "2", "3", "10", "007", "7", "x"]),
    occurrence=st.sampled_from([None, None, 0, 1]),
)
actions = st.lists(
    st.one_of(
        st.lists(made, min_size=1, max_size=8), st.sampled_from(["commit", "pin", "restart"])
    ),
    min_size=1,
    max_size=14,
)


def append(home: Home, records: Sequence[Made]) -> None:
    """Append in order, each run of one version as one batch."""
    runs: list[list[Made]] = []
    for record in records:
        if not runs or runs[-1][-1].version != record.version:
            runs.append([])
        runs[-1].append(record)
    for run in runs:
        schema = (V1, V2)[run[0].version - 1]
        columns = {f.name: [r.row().get(f.name) for r in run] for f in schema.arrow}
        table = pa.table(columns, schema=schema.arrow)
        schema_id = home.registry.register(TOPIC.subject, schema.avro)
        home.log.append([Append(str(TOPIC), 0, schema_id, encode(table, schema))])


def fates(records: Sequence[Made]) -> Mapping[str, set[int]]:
    """The reference: record by record, in log order."""
    seen: set[object] = set()
    found: dict[str, set[int]] = {"row": set(), "duplicate": set(), "rejected": set()}
    for offset, record in enumerate(records):
        identity = record.identity
        if not record.valid:
            found["rejected"].add(offset)
        elif identity is not None and identity in seen:
            found["duplicate"].add(offset)
        else:
            found["row"].add(offset)
            seen.add(identity)
    return found


def offsets_in(paths: Sequence[str]) -> list[int]:
    offsets: list[int] = []
    for path in paths:
        offsets += pq.read_table(path, columns=["log_offset"])["log_offset"].to_pylist()
    return sorted(offsets)


def rows_of(pinned: Pinned) -> list[int]:
    files = offsets_in([f.path for f in pinned.snapshot.files.select()])
    return sorted(files + pinned.rows["log_offset"].to_pylist())


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(actions)
def test_history_and_tail_are_what_was_appended(script: Sequence[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, open_home(Path(folder)) as home:
        home.log.put(EXCHANGES_TOPIC, EXCHANGE.name, EXCHANGE.to_json())
        home.registry.register(TOPIC.subject, V1.avro)
        home.log.create(str(TOPIC), 1)
        tail = Tail(home.log, home.registry, home.lake, SKEW, 10**6)
        records: list[Made] = []
        for action in [*script, "pin", "commit", "pin"]:
            match action:
                case "commit":
                    home.catch_up()
                case "restart":
                    tail = Tail(home.log, home.registry, home.lake, SKEW, 10**6)
                case "pin":
                    assert rows_of(tail.pin("trades")) == sorted(fates(records)["row"]), script
                case _:
                    append(home, action)
                    records += action
        expected = fates(records)
        assert offsets_in(ledger(home, "rejected")) == sorted(expected["rejected"])
        assert offsets_in(ledger(home, "duplicates")) == sorted(expected["duplicate"])
        assert audit(home.log, home.lake).ok
