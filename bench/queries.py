"""Questions to K2's engine over settled files, beside a native DuckDB table with the same rows.

The native side runs plain SQL that gives the same rows; bars and VWAP exact there too.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from bench.home import folder, settled
from bench.market import DAYS, EXCHANGE, SYMBOLS
from bench.report import show, timed
from bench.serving import serve
from k2.lake import definition
from k2.query import Answer, Reader, Selection, open_reader
from k2.query.bars import bars_statement

ROWS, QUICK_ROWS = 20_000_000, 500_000
DAY = DAYS[2]
NOON = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
MIDNIGHT = NOON - timedelta(hours=12)
LIQUID, TEN = SYMBOLS[0], tuple(SYMBOLS[:10])

_ORDER = "ORDER BY timestamp, timestamp_nanos, log_topic, log_partition, log_offset"
_BACK = _ORDER.replace(",", " DESC,") + " DESC"


def _own(kind: str) -> str:
    """The columns that K2 gives: a kind's own."""
    names = definition(kind).names
    return ", ".join(names[: names.index("exchange_date")])


def _bars(width: int, where: str, symbol: str = "symbol") -> str:
    """K2's own statement, over a table: the fastest exact SQL for bars that is known here."""
    made = bars_statement(
        {},
        keys=f"{symbol}, '{EXCHANGE}' AS exchange",
        start=f"epoch_us(timestamp) // {width} * {width}",
        place="epoch_us(timestamp)::HUGEINT * 9223372036854775807 + log_offset",
        rows="trades",
        predicate=f"{where} AND price_forming",
    )
    return made.text.replace("$newest", "NULL")


_IN_DAY = f"timestamp >= '{MIDNIGHT}' AND timestamp < '{MIDNIGHT + timedelta(days=1)}'"
_IN_TEN = f"symbol IN {TEN}"


def _newest(kind: str, where: str, count: int) -> str:
    newest = f"SELECT * FROM {kind} WHERE {where} {_BACK} LIMIT {count}"
    return f"SELECT {_own(kind)} FROM ({newest}) {_ORDER}"


Question = tuple[str, Callable[[Reader], Answer], str]
QUESTIONS: list[Question] = [
    (
        "last 100 of a symbol",
        lambda r: r.records("trades", Selection((LIQUID,)), last=100),
        _newest("trades", f"symbol = '{LIQUID}'", 100),
    ),
    (
        "one hour of a symbol",
        lambda r: r.records(
            "trades", Selection((LIQUID,), start=NOON, end=NOON + timedelta(hours=1))
        ),
        f"""SELECT {_own("trades")} FROM trades WHERE symbol = '{LIQUID}' AND timestamp >= '{NOON}'
            AND timestamp < '{NOON + timedelta(hours=1)}' {_ORDER}""",
    ),
    (
        "1-min bars of a day",
        lambda r: r.bars(Selection((LIQUID,), start=DAY, end=DAY + timedelta(days=1)), "1m"),
        _bars(60_000_000, f"symbol = '{LIQUID}' AND {_IN_DAY}", f"'{LIQUID}' AS symbol"),
    ),
    (
        "VWAP of 10 symbols, a day",
        lambda r: r.bars(Selection(TEN, start=DAY, end=DAY + timedelta(days=1)), "1d"),
        _bars(86_400_000_000, f"{_IN_TEN} AND {_IN_DAY}"),
    ),
    (
        "daily summary of all, 5 days",
        lambda r: r.bars(Selection(), "1d"),
        _bars(86_400_000_000, "true"),
    ),
    (
        "min/max/count by symbol",
        lambda r: r.sql(
            "SELECT symbol, min(timestamp), max(timestamp), count(*) FROM trades GROUP BY symbol",
        ),
        "SELECT symbol, min(timestamp), max(timestamp), count(*) FROM trades GROUP BY symbol",
    ),
    (
        "what is traded, both kinds (k2 symbols)",
        lambda r: r.symbols(),
        """SELECT symbol, exchange, 'crypto' AS asset_class, sum(t)::BIGINT AS trades,
            sum(q)::BIGINT AS quotes, min(f) AS first_timestamp, max(l) AS last_timestamp
            FROM (SELECT symbol, exchange, count(*) AS t, 0 AS q, min(timestamp) AS f,
                    max(timestamp) AS l FROM trades GROUP BY ALL
                UNION ALL SELECT symbol, exchange, 0, count(*), min(timestamp), max(timestamp)
                    FROM quotes GROUP BY ALL)
            GROUP BY ALL ORDER BY exchange, symbol""",
    ),
    (
        "newest 200 of all in a day",
        lambda r: r.records("trades", Selection(start=DAY, end=DAY + timedelta(days=1)), last=200),
        _newest("trades", _IN_DAY, 200),
    ),
    (
        "1,000 rows of 10 symbols",
        lambda r: r.records("trades", Selection(TEN, start=NOON), limit=1000),
        f"""SELECT {_own("trades")} FROM trades WHERE {_IN_TEN}
            AND timestamp >= '{NOON}' {_ORDER} LIMIT 1000""",
    ),
    (
        "last 100 quotes of a symbol",
        lambda r: r.records("quotes", Selection((LIQUID,)), last=100),
        _newest("quotes", f"symbol = '{LIQUID}'", 100),
    ),
]


def run(*, quick: bool = False) -> None:
    """Print p50 and p99 of both engines, and the ratio of the p50s."""
    with folder("queries") as home:
        settled(home, QUICK_ROWS if quick else ROWS)
        # As a server has it: with partial bars, the newest rows of what is asked for, and copies.
        with open_reader(home, follow=True, hot_rows=200_000, decoded_bytes=512_000_000) as reader:
            reader.roll_up()
            for _ in range(3):
                for _, ask, _ in QUESTIONS:
                    ask(reader)
            # Copies are made meanwhile, of files that were asked for again.
            time.sleep(2.0 if quick else 20.0)
            native = _native(home, reader)
            seconds = 0.5 if quick else 4.0
            figures = []
            for name, ask, sql in QUESTIONS:
                _check(name, ask(reader).table, native.sql(sql).to_arrow_table())
                ours = timed(lambda ask=ask: ask(reader), seconds=seconds)  # type: ignore[misc]
                theirs = timed(
                    lambda sql=sql: native.sql(sql).to_arrow_table(),  # type: ignore[misc]
                    seconds=seconds,
                )
                figures.append(
                    [name]
                    + [t * 1000 for t in (ours.p50, ours.p99, theirs.p50, theirs.p99)]
                    + [ours.p50 / theirs.p50]
                )
            columns = ["question", "K2 p50 ms", "p99", "native p50 ms", "p99", "ratio of p50"]
            count = QUICK_ROWS if quick else ROWS
            show(
                f"Queries over {count:,} trades and quotes, beside DuckDB's table", columns, figures
            )
        serve(home, 1.0 if quick else 5.0)


def _check(question: str, ours: pa.Table, theirs: pa.Table) -> None:
    """Both gave the same rows: only then are their times of the same thing."""
    if "complete" in ours.column_names:
        # What the gap ledger says of a bar: the native side has no such.
        ours = ours.drop_columns("complete")
    if "start" in theirs.column_names:
        begin = theirs["start"].cast(pa.int64()).cast(ours.schema.field("start").type)
        theirs = theirs.set_column(2, "start", begin)
    elif "count_star()" in ours.column_names:
        ours, theirs = ours.sort_by("symbol"), theirs.sort_by("symbol")
    assert theirs.cast(ours.schema).equals(ours), f"{question}: the answers differ"


def _native(home: Path, reader: Reader) -> duckdb.DuckDBPyConnection:
    native = duckdb.connect(str(home / "native.duckdb"))
    native.execute("SET TimeZone = 'UTC'")
    for kind in ("trades", "quotes"):
        paths = [str(p) for p in (home / "lake" / "tables" / kind / "data").rglob("*.parquet")]
        native.execute(
            f"CREATE TABLE {kind} AS SELECT * FROM read_parquet($paths) ORDER BY symbol, timestamp",
            {"paths": paths},
        )
    return native
