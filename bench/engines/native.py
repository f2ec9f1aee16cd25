"""DuckDB's own table, sorted by symbol and time; bars by K2's own statement, as exact as K2's."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from bench.home import data_files
from bench.market import EXCHANGE
from bench.questions import Bars, Beside, Extents, Question, Records
from k2.query.bars import bars_statement

TITLE: Final = "DuckDB table"
NEEDS: Final = "duckdb"
NOTE: Final = ""

_ORDER: Final = "ORDER BY timestamp, source_sequence"
_BACK: Final = "ORDER BY timestamp DESC, source_sequence DESC"


def open_engine(home: Path) -> "Relations":
    """A database of its own with both tables."""
    database = connect(home / "native.duckdb")
    for kind in ("trades", "quotes"):
        database.execute(
            f"CREATE TABLE {kind} AS SELECT * FROM read_parquet($paths) ORDER BY symbol, timestamp",
            {"paths": data_files(home, kind)},
        )
    return Relations(database)


def connect(path: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A database with the settings that K2 gives its own."""
    database = duckdb.connect(str(path or ":memory:"))
    database.execute("SET TimeZone = 'UTC'; SET parquet_metadata_cache = true")
    database.execute("SET asof_loop_join_threshold = 0")
    return database


class Relations:
    """An engine over the relations `trades` and `quotes` of a database: see `port.Engine`."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database

    def asking(self, question: Question) -> Callable[[], pa.Table]:
        """Plain SQL, to Arrow."""
        sql = _sql(question)
        return lambda: self._database.sql(sql).to_arrow_table()

    def to_table(self, answer: pa.Table, question: Question) -> pa.Table:
        """Of bars, the beginning as a time: the statement counts microseconds."""
        if isinstance(question, Bars):
            start = answer["start"].cast(pa.int64()).cast(pa.timestamp("us", "UTC"))
            at = answer.schema.get_field_index("start")
            answer = answer.set_column(at, "start", start)
        return answer.select(question.columns)

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _sql(question: Question) -> str:
    match question:
        case Records():
            where = _where(question.symbols, question.start, question.end)
            own = ", ".join(question.columns)
            select = f"SELECT {own} FROM {question.kind} WHERE {where}"
            if question.last is not None:
                return f"SELECT * FROM ({select} {_BACK} LIMIT {question.last}) {_ORDER}"
            bound = "" if question.limit is None else f" LIMIT {question.limit}"
            return f"{select} {_ORDER}{bound}"
        case Bars():
            return _bars(question)
        case Extents(kinds=(kind,)):
            return _extents(kind, f"count(*) AS {kind}")
        case Extents():
            return _extents_of_all(question.kinds)
        case Beside():
            where = _where((question.symbol,), question.start, question.end)
            return f"""SELECT t.timestamp, t.price, t.quantity, q.bid_price, q.ask_price
                FROM (SELECT * FROM trades WHERE {where}) t
                ASOF LEFT JOIN (SELECT * FROM quotes WHERE {where}) q
                    ON t.timestamp >= q.timestamp
                ORDER BY t.timestamp, t.source_sequence"""


def _bars(question: Bars) -> str:
    """K2's own statement, over a table: the fastest exact SQL for bars that is known here."""
    # Of one symbol its name is no column that needs to be read.
    symbol = f"'{question.symbols[0]}' AS symbol" if len(question.symbols) == 1 else "symbol"
    made = bars_statement(
        {},
        keys=f"{symbol}, '{EXCHANGE}' AS exchange",
        start=f"epoch_us(timestamp) // {question.width_us} * {question.width_us}",
        place="epoch_us(timestamp)::HUGEINT * 9223372036854775807 + log_offset",
        rows="trades",
        predicate=f"{_where(question.symbols, question.start, question.end)} AND price_forming",
    )
    return made.text.replace("$newest", "NULL")


def _extents(kind: str, *counts: str) -> str:
    return f"""SELECT symbol, min(timestamp) AS first_timestamp, max(timestamp) AS last_timestamp,
        {", ".join(counts)} FROM {kind} GROUP BY symbol"""


def _extents_of_all(kinds: tuple[str, ...]) -> str:
    """A kind at a time, as there is a table for each."""
    parts = []
    for of in kinds:
        counts = [f"{'count(*)' if kind == of else 0} AS {kind}" for kind in kinds]
        parts.append(_extents(of, *counts))
    sums = ", ".join(f"sum({kind})::BIGINT AS {kind}" for kind in kinds)
    return f"""SELECT symbol, min(first_timestamp) AS first_timestamp,
        max(last_timestamp) AS last_timestamp, {sums}
        FROM ({" UNION ALL ".join(parts)}) GROUP BY symbol"""


def _where(symbols: tuple[str, ...], start: datetime | None, end: datetime | None) -> str:
    parts = ["true"]
    if symbols:
        names = ", ".join(f"'{name}'" for name in symbols)
        parts = [f"symbol IN ({names})" if len(symbols) > 1 else f"symbol = {names}"]
    if start is not None:
        parts.append(f"timestamp >= '{start}'")
    if end is not None:
        parts.append(f"timestamp < '{end}'")
    return " AND ".join(parts)
