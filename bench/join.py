"""As-of joins of a day of the liquid symbol, beside DuckDB's ASOF over the same Parquet files.

DuckDB's knows nothing of when a quote was known: where quotes are late its answer is another one.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.home import data_files, folder, settled
from bench.market import DAYS, SYMBOLS
from bench.report import show, timed
from k2.query import JoinWanted, Reader, Rule, Selection, open_reader
from k2.query.join import joined_columns

ROWS, QUICK_ROWS = 20_000_000, 500_000
DAY = DAYS[2]
FEW = ("timestamp", "price", "quantity", "bid_price", "ask_price")
SHARES = {"none is late": 0.0, "a third is late": 0.33}
"""How many quotes were known later than they stood, by up to a minute."""


def run(*, quick: bool = False) -> None:
    """Print p50 of both, and their ratio, by how many quotes are late."""
    count = QUICK_ROWS if quick else ROWS
    figures = []
    for name, share in SHARES.items():
        with folder("join") as home:
            settled(home, count, _late(share))
            with open_reader(home) as reader:
                figures += _measure(name, home, reader, check=share == 0, quick=quick)
    columns = ["join", "rows", "K2 p50 ms", "p99", "ASOF p50 ms", "p99", "ratio of p50"]
    show(f"As-of joins of a day of {SYMBOLS[0]}, of {count:,} trades and quotes", columns, figures)


def _measure(
    name: str, home: Path, reader: Reader, *, check: bool, quick: bool
) -> list[list[object]]:
    selection = Selection((SYMBOLS[0],), start=DAY, end=DAY + timedelta(days=1))
    own = tuple(called for called, of in joined_columns("trades", "quotes").items() if of.own)
    asked = {f"{name}: all columns": own, f"{name}: five columns": FEW}
    if check:
        asked["look-ahead: five columns"] = FEW
    seconds = 0.5 if quick else 4.0
    native = duckdb.connect()
    native.execute("SET TimeZone = 'UTC'; SET parquet_metadata_cache = true")
    native.execute("SET asof_loop_join_threshold = 0")
    found: list[list[object]] = []
    for told, fields in asked.items():
        rule = Rule(look_ahead=told.startswith("look-ahead"))
        sql = _plain(home, fields)

        def ours(rule: Rule = rule, fields: tuple[str, ...] = fields) -> pa.Table:
            return reader.join(JoinWanted(rule=rule, fields=fields), selection).table

        def theirs(sql: str = sql) -> pa.Table:
            return native.sql(sql).to_arrow_table()

        rows = ours()
        if check:
            _compare(told, rows, theirs())
        ends = timed(ours, seconds=seconds), timed(theirs, seconds=seconds)
        took = [t * 1000 for end in ends for t in (end.p50, end.p99)]
        found.append([told, f"{rows.num_rows:,}", *took, ends[0].p50 / ends[1].p50])
    native.close()
    return found


def _plain(home: Path, fields: tuple[str, ...]) -> str:
    """The same columns in the same order. It is told which day to look at for quotes; K2 finds out.

    Ties go to any of the quotes of an instant.
    """
    columns = joined_columns("trades", "quotes")
    chosen = ", ".join(
        f"{'q' if columns[name].is_right else 't'}.{columns[name].name} AS {name}"
        for name in fields
    )
    t, q = (
        f"(SELECT * FROM read_parquet({data_files(home, kind)}) WHERE symbol = '{SYMBOLS[0]}' "
        f"AND timestamp >= '{DAY}' AND timestamp < '{DAY + timedelta(days=1)}')"
        for kind in ("trades", "quotes")
    )
    return (
        f"SELECT {chosen} FROM {t} t ASOF LEFT JOIN {q} q ON t.timestamp >= q.timestamp "
        "ORDER BY t.timestamp, t.timestamp_nanos, t.log_topic, t.log_partition, t.log_offset"
    )


def _compare(told: str, ours: pa.Table, theirs: pa.Table) -> None:
    """Both gave the same trades, and the same quotes but for those before the day and for ties."""
    assert ours["price"].equals(theirs["price"].cast(ours["price"].type)), told
    same = pc.equal(ours["bid_price"], theirs["bid_price"].cast(ours["bid_price"].type))
    differ = ours.num_rows - (pc.sum(same).as_py() or 0)
    assert differ <= max(20, ours.num_rows // 50), f"{told}: {differ:,} quotes differ"


def _late(share: float) -> Callable[[str, pa.Table], pa.Table]:
    """Has a share of the quotes known up to a minute after they stood."""
    random = np.random.default_rng(1)

    def alter(kind: str, rows: pa.Table) -> pa.Table:
        if kind != "quotes" or not share:
            return rows
        delay = random.integers(0, 60_000_000, rows.num_rows)
        late = random.random(rows.num_rows) < share
        at = rows["timestamp"].cast(pa.int64()).to_numpy() + np.where(late, delay, 5_000)
        received = pa.array(at).cast(pa.timestamp("us", "UTC"))
        name = "source_received_timestamp"
        return rows.set_column(rows.schema.get_field_index(name), name, received)

    return alter
