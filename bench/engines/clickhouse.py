"""ClickHouse in a process (chdb): MergeTree tables ordered by symbol, exchange, timestamp.

Its SQL is what its users would write, where that is exact. First and last trade of a bar go by the
venue's number, which is quicker there than by a whole total order.
"""

from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from bench.home import data_files
from bench.market import EXCHANGE
from bench.questions import DAY_US, Bars, Beside, Extents, Question, Records
from k2.lake import definition

TITLE: Final = "ClickHouse"
NEEDS: Final = "chdb"
NOTE: Final = ""

_ORDER: Final = "ORDER BY timestamp, source_sequence"
_BACK: Final = "ORDER BY timestamp DESC, source_sequence DESC"
# Strings as such, and nothing compressed on the way into this very process.
_SETTINGS: Final = (
    "SETTINGS output_format_arrow_compression_method = 'none', "
    "output_format_arrow_string_as_string = 1"
)


def open_engine(home: Path) -> "ClickHouse":
    """A database below the home, loaded and merged into one part a table."""
    session = import_module("chdb.session").Session(str(home / "clickhouse"))
    session.query("CREATE DATABASE IF NOT EXISTS market ENGINE = Atomic")
    for kind in ("trades", "quotes"):
        schema = definition(kind).arrow
        columns = ", ".join(f"`{field.name}` {_type(field)}" for field in schema)
        session.query(
            f"CREATE TABLE market.{kind} ({columns}) ENGINE = MergeTree "
            "ORDER BY (symbol, exchange, timestamp)"
        )
        names = ", ".join(f"`{name}`" for name in schema.names)
        for path in data_files(home, kind):
            session.query(
                f"INSERT INTO market.{kind} ({names}) SELECT {names} FROM file('{path}', Parquet)"
            )
        session.query(f"OPTIMIZE TABLE market.{kind} FINAL")
    return ClickHouse(session)


class ClickHouse:
    """See `port.Engine`."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def asking(self, question: Question) -> Callable[[], pa.Table]:
        """SQL, to Arrow."""
        sql = f"{_sql(question)} {_SETTINGS}"
        return lambda: self._session.query(sql, "ArrowTable")

    def to_table(self, answer: pa.Table, question: Question) -> pa.Table:
        """As it is: names and types are set in SQL."""
        return answer.select(question.columns)

    def close(self) -> None:
        """Close the session."""
        self._session.close()


def _type(field: pa.Field) -> str:
    kind = field.type
    coded = pa.types.is_dictionary(kind)
    if coded or pa.types.is_string(kind):
        named = "String"
    elif pa.types.is_timestamp(kind):
        named = "DateTime64(6, 'UTC')"
    elif pa.types.is_decimal(kind):
        named = f"Decimal({kind.precision}, {kind.scale})"
    elif pa.types.is_date(kind):
        named = "Date32"
    elif pa.types.is_boolean(kind):
        named = "Bool"
    else:
        named = f"Int{kind.bit_width}"
    named = f"Nullable({named})" if field.nullable else named
    return f"LowCardinality({named})" if coded else named


def _sql(question: Question) -> str:
    match question:
        case Records():
            where = _where(question.symbols, question.start, question.end)
            own = ", ".join(question.columns)
            select = f"SELECT {own} FROM market.{question.kind} WHERE {where}"
            if question.last is not None:
                return f"SELECT * FROM ({select} {_BACK} LIMIT {question.last}) {_ORDER}"
            bound = "" if question.limit is None else f" LIMIT {question.limit}"
            return f"{select} {_ORDER}{bound}"
        case Bars():
            where = _where(question.symbols, question.start, question.end)
            begin = "toStartOfDay" if question.width_us == DAY_US else "toStartOfMinute"
            return f"""SELECT symbol, toDateTime64(begin, 6, 'UTC') AS start,
                    argMin(price, source_sequence) AS open, max(price) AS high,
                    min(price) AS low, argMax(price, source_sequence) AS close,
                    sum(quantity) AS volume, toInt64(count()) AS trade_count,
                    toDecimal64(sum(toDecimal128(price, 8) * quantity) / volume, 8) AS vwap
                FROM market.trades WHERE {where} AND price_forming
                GROUP BY symbol, {begin}(timestamp) AS begin"""
        case Extents(kinds=(kind,)):
            return _extents(kind, f"toInt64(count()) AS {kind}")
        case Extents():
            return _extents_of_all(question.kinds)
        case Beside():
            where = _where((question.symbol,), question.start, question.end)
            return f"""SELECT t.timestamp AS timestamp, t.price AS price, t.quantity AS quantity,
                    q.bid_price AS bid_price, q.ask_price AS ask_price
                FROM (SELECT symbol, timestamp, price, quantity, source_sequence
                        FROM market.trades WHERE {where}) AS t
                ASOF LEFT JOIN (SELECT symbol, timestamp, bid_price, ask_price
                        FROM market.quotes WHERE {where}) AS q
                    ON t.symbol = q.symbol AND t.timestamp >= q.timestamp
                ORDER BY t.timestamp, t.source_sequence"""


def _extents(kind: str, *counts: str) -> str:
    return f"""SELECT symbol, min(timestamp) AS first_timestamp, max(timestamp) AS last_timestamp,
        {", ".join(counts)} FROM market.{kind} GROUP BY symbol"""


def _extents_of_all(kinds: tuple[str, ...]) -> str:
    """A kind at a time, as there is a table for each. An alias hides a column of its name there."""
    parts = []
    for of in kinds:
        counts = [f"toInt64({'count()' if kind == of else 0}) AS {kind}_of" for kind in kinds]
        parts.append(_extents(of, *counts))
    sums = ", ".join(f"toInt64(sum({kind}_of)) AS {kind}" for kind in kinds)
    return f"""SELECT symbol, min(f) AS first_timestamp, max(l) AS last_timestamp, {sums}
        FROM (SELECT *, first_timestamp AS f, last_timestamp AS l
            FROM ({" UNION ALL ".join(parts)})) GROUP BY symbol"""


def _where(symbols: tuple[str, ...], start: datetime | None, end: datetime | None) -> str:
    # With the exchange, the beginning of the table's key is fixed, and its order can be used.
    parts = [f"exchange = '{EXCHANGE}'"]
    if symbols:
        names = ", ".join(f"'{name}'" for name in symbols)
        parts.append(f"symbol IN ({names})" if len(symbols) > 1 else f"symbol = {names}")
    if start is not None:
        parts.append(f"timestamp >= {_time(start)}")
    if end is not None:
        parts.append(f"timestamp < {_time(end)}")
    return " AND ".join(parts)


def _time(when: datetime) -> str:
    return f"toDateTime64('{when:%Y-%m-%d %H:%M:%S.%f}', 6, 'UTC')"
