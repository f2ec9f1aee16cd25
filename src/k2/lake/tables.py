"""Which tables there are and what their columns are: the model's kinds, and the ledgers.

Everything is derived from the `.avsc` files, but for the ledgers, whose columns are defined here
and nowhere else. A column that has a default is optional in the table, so that it can be added to
a table that was made before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pyarrow as pa

from k2.errors import NotFound
from k2.model import DICTIONARY_TYPE, TIMESTAMP_TYPE, Schema, latest

RECORD_TABLES: Final = ("trades", "quotes", "corrections", "instruments", "dividends", "splits")
LEDGERS: Final = ("rejected", "duplicates", "shed", "retired", "gaps", "commits", "pins")
BUCKETS: Final = 16
"""Table partitions of a settled day in a table that is made; one that is there keeps its own."""

_BOUNDED: Final = frozenset(
    [
        "symbol",
        "exchange",
        "timestamp",
        "trade_id",
        "source_sequence",
        "commit",
        "log_topic",
        "log_partition",
        "log_offset",
        "commit_sequence",
    ]
)
"""Columns whose bounds stand in the manifests. Every cold start reads these, at 2 us a bound, so
they are the columns by which files are chosen."""

_STATISTICS: Final = frozenset(
    [
        "exchange_date",
        "price",
        "bid_price",
        "ask_price",
        "quantity",
        "bid_quantity",
        "ask_quantity",
        "ingestion_timestamp",
        "timestamp_nanos",
        "price_forming",
        "kind",
    ]
)
"""Columns that have statistics besides, for each row group of a file: the engine drops what they
show to be constant (nanoseconds, price_forming) and sums quantities that cannot overflow in 64
bits, which makes bars a third cheaper. Text of few values has none: they would take five times as
long as writing it."""

_DELTA: Final = frozenset(
    [
        "timestamp",
        "ingestion_timestamp",
        "source_received_timestamp",
        "price",
        "bid_price",
        "ask_price",
        "log_offset",
        "source_sequence",
        "commit_sequence",
        "occurrence",
        "timestamp_nanos",
        "commit",
        "snapshot_id",
        "committed_at",
        "of_offset",
        "target_timestamp",
        "target_offset",
    ]
)
_DICTIONARY: Final = frozenset(
    [
        "quantity",
        "bid_quantity",
        "ask_quantity",
        "side",
        "asset_class",
        "exchange_date",
        "log_partition",
        "table",
        "operation",
        "tag",
        "of_partition",
        "target_partition",
        "reason",
    ]
)
_TIMES: Final = ("timestamp", "committed_at", "ingestion_timestamp")


@dataclass(frozen=True)
class Column:
    """One column: its type in memory, whether every row has a value, and what it means."""

    name: str
    arrow: pa.DataType
    required: bool
    doc: str


@dataclass(frozen=True)
class Definition:
    """A table as this version of K2 wants it. `partitioned` tables have an `exchange_date`."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    partitioned: bool

    @property
    def arrow(self) -> pa.Schema:
        """The columns in memory; few-valued strings are dictionary<int32, string>."""
        return pa.schema([pa.field(c.name, c.arrow, nullable=not c.required) for c in self.columns])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(c.name for c in self.columns)

    @property
    def bounded(self) -> tuple[str, ...]:
        """Columns whose least and greatest value are kept for each file."""
        return tuple(n for n in self.names if n in _BOUNDED or n == self.time)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Columns whose least and greatest value are kept for each row group."""
        return tuple(n for n in self.names if n in _STATISTICS or n in self.bounded)

    @property
    def encodings(self) -> dict[str, str]:
        """Parquet encodings of columns without a dictionary, other than plain.

        Text as lengths and bytes (trade ids): written and read faster than plain, and a quarter
        smaller.
        """
        found = {n: "DELTA_BINARY_PACKED" for n in self.names if n in _DELTA}
        for column in self.columns:
            if column.arrow == pa.string() and column.name not in _DICTIONARY:
                found[column.name] = "DELTA_LENGTH_BYTE_ARRAY"
        return found

    @property
    def dictionary(self) -> tuple[str, ...]:
        """Columns that are written with a dictionary."""
        repeated = (c.name for c in self.columns if c.arrow == DICTIONARY_TYPE)
        return tuple(sorted({*repeated, *(n for n in self.names if n in _DICTIONARY)}))

    @property
    def time(self) -> str | None:
        """The column that tells when: event time if there is one; None where there is no time."""
        return next((n for n in _TIMES if n in self.names), None)

    @property
    def order(self) -> tuple[str, ...]:
        """The sort order of its files."""
        return tuple(n for n in ("symbol", self.time) if n in self.names)


@cache
def definition(name: str) -> Definition:
    """The table's definition. Raises `NotFound` for a name that is no table of K2's."""
    if name in RECORD_TABLES:
        return of_kind(latest(name))
    if name == "gaps":
        gaps = latest("gaps")
        return Definition(name, _doc(gaps), (*_of_schema(gaps), *_lineage(dated=False)), False)
    if name in _LEDGER_COLUMNS:
        doc, columns, traced = _LEDGER_COLUMNS[name]
        lineage = _lineage(dated=False) if traced else ()
        return Definition(name, doc, (*columns, *lineage), False)
    raise NotFound(
        f"there is no table called {name!r}", expected=", ".join((*RECORD_TABLES, *LEDGERS))
    )


def of_kind(schema: Schema) -> Definition:
    """The table of one kind of record: the fields of that version, then the lineage."""
    columns = (*_of_schema(schema), *_lineage(dated=True))
    return Definition(schema.kind, _doc(schema), columns, True)


def _doc(schema: Schema) -> str:
    return str(schema.avro.get("doc", ""))


def _of_schema(schema: Schema) -> list[Column]:
    docs: list[Mapping[str, Any]] = schema.avro["fields"]
    return [
        Column(
            field.name,
            field.type,
            not field.nullable and field.name not in schema.defaults,
            str(avro.get("doc", "")),
        )
        for field, avro in zip(schema.arrow, docs, strict=True)
    ]


def _lineage(*, dated: bool) -> tuple[Column, ...]:
    date = Column("exchange_date", pa.date32(), True, "Trading date in the exchange's own zone")
    return (
        *((date,) if dated else ()),
        Column("log_topic", DICTIONARY_TYPE, True, "Topic that the record came from"),
        Column("log_id", DICTIONARY_TYPE, True, "Identity of that topic"),
        Column("log_partition", pa.int32(), True, "Partition of the topic"),
        Column("log_offset", pa.int64(), True, "Offset in the partition"),
        Column(
            "commit_sequence",
            pa.int64(),
            False,
            "Commit that brought the row in; null means the file's own sequence number",
        ),
    )


_LEDGER_COLUMNS: Final[Mapping[str, tuple[str, tuple[Column, ...], bool]]] = {
    "rejected": (
        "Records that could not be kept as rows, whole, with what is wrong with them.",
        (
            Column("kind", DICTIONARY_TYPE, True, "The kind of record that it should have been"),
            Column("exchange", DICTIONARY_TYPE, False, "Where it would have belonged"),
            Column("symbol", DICTIONARY_TYPE, False, "Its symbol, as far as it could be read"),
            Column("source", DICTIONARY_TYPE, False, "Mapping or feed that brought it"),
            Column("file", DICTIONARY_TYPE, False, "File that it stands in, without its folder"),
            Column("line", pa.int64(), False, "Line in the file, from 1"),
            Column("column", DICTIONARY_TYPE, False, "Column that could not be read"),
            Column("reason", pa.string(), True, "What is wrong with it"),
            Column("expected", DICTIONARY_TYPE, False, "What was expected"),
            Column("schema_id", pa.int32(), False, "Registry's id of the schema it was written by"),
            Column("raw", pa.binary(), True, "The record as it came"),
            Column("ingestion_timestamp", TIMESTAMP_TYPE, False, "First seen by K2"),
        ),
        True,
    ),
    "duplicates": (
        "Records that were recognised as ones already kept, and which those are.",
        (
            Column("kind", DICTIONARY_TYPE, True, "The kind of record"),
            Column("exchange", DICTIONARY_TYPE, True, "Where"),
            Column("symbol", DICTIONARY_TYPE, True, "Of which instrument"),
            Column("identity", pa.string(), True, "What it has in common with the one kept"),
            Column("of_topic", DICTIONARY_TYPE, True, "Topic of the one kept"),
            Column("of_log_id", DICTIONARY_TYPE, True, "Identity of that topic"),
            Column("of_partition", pa.int32(), True, "Partition of the one kept"),
            Column("of_offset", pa.int64(), True, "Offset of the one kept"),
        ),
        True,
    ),
    "shed": (
        "Records that were left in the log under overload, and what became of them later.",
        (
            Column("event", DICTIONARY_TYPE, True, "shed; filled once they were brought in"),
            Column("id", DICTIONARY_TYPE, True, "The time of overload that they were shed in"),
            Column("kind", DICTIONARY_TYPE, True, "The kind of record"),
            Column("exchange", DICTIONARY_TYPE, True, "Where"),
            Column("level", pa.int32(), False, "Level of degradation: 2, 3 or 4"),
            Column("tiers", DICTIONARY_TYPE, False, "Tiers of the symbols that were shed"),
            Column("symbols", pa.string(), False, "The symbols, a space between them"),
            Column("tiers_version", DICTIONARY_TYPE, False, "Version of the file of tiers"),
            Column("records", pa.int64(), True, "How many records"),
            Column(
                "end_offset", pa.int64(), True, "Behind the last of them; log_offset: the first"
            ),
            Column(
                "distances",
                pa.binary(),
                False,
                "From each record's offset to the next one's, as unsigned varints (LEB128); null: "
                "every offset up to the end that holds a record",
            ),
            Column("ingestion_timestamp", TIMESTAMP_TYPE, True, "When, by the writer's clock"),
        ),
        True,
    ),
    "retired": (
        "Records that retention took out of the tables for good, or kept out, as they came later.",
        (
            Column("event", DICTIONARY_TYPE, True, "retired; late if it came once its day was"),
            Column("kind", DICTIONARY_TYPE, True, "The kind of record"),
            Column("exchange", DICTIONARY_TYPE, True, "Where"),
            Column("exchange_date", pa.date32(), True, "Their trading date"),
            Column("tier", pa.int32(), False, "Tier that their symbols had"),
            Column("rule", DICTIONARY_TYPE, False, "Line of the file of retention that said so"),
            Column("symbols", pa.string(), True, "The symbols, as JSON"),
            Column("symbol_count", pa.int64(), True, "How many symbols"),
            Column("records", pa.int64(), True, "How many records"),
            Column(
                "end_offset", pa.int64(), True, "Behind the last of them; log_offset: the first"
            ),
            Column(
                "distances",
                pa.binary(),
                True,
                "From each record's offset to the next one's, as unsigned varints (LEB128)",
            ),
            Column("first_timestamp", TIMESTAMP_TYPE, False, "Time of the first of them"),
            Column("last_timestamp", TIMESTAMP_TYPE, False, "Time of the last of them"),
            Column("first_commit", pa.int64(), False, "Commit that brought the first of them"),
            Column("commit", pa.int64(), False, "Commit that took them out of the table"),
            Column("committed_at", TIMESTAMP_TYPE, True, "When, by the clock of who did it"),
        ),
        True,
    ),
    "commits": (
        "Every commit of every table of records, also those whose snapshot is long expired.",
        (
            Column("table", DICTIONARY_TYPE, True, "Table that was committed to"),
            Column("commit", pa.int64(), True, "Its sequence number there"),
            Column("snapshot_id", pa.int64(), True, "Its snapshot, while that is kept"),
            Column("committed_at", TIMESTAMP_TYPE, True, "When, by the committer's clock"),
            Column("rows", pa.int64(), True, "Rows that it added"),
            Column("duplicates", pa.int64(), True, "Duplicates that it recognised"),
            Column("rejected", pa.int64(), True, "Records that it rejected"),
            Column("offsets", pa.string(), True, "Offsets of the log after it, as JSON"),
            Column("tag", DICTIONARY_TYPE, False, "Name given to this state"),
            Column(
                "operation",
                DICTIONARY_TYPE,
                True,
                "append, replace or overwrite; tag for a mere name",
            ),
            Column(
                "filled",
                pa.string(),
                False,
                "Fronts of ranges of shed records that it brought in, as JSON",
            ),
        ),
        False,
    ),
    "pins": (
        "Datasets that were pinned, and let go of: of which rows, and their content's hash.",
        (
            Column("event", DICTIONARY_TYPE, True, "pinned; removed once it was let go of"),
            Column("id", pa.string(), True, "The pin's own: both of its events have it"),
            Column("name", pa.string(), True, "Its name; only one pin at a time has it"),
            Column("pinned_at", TIMESTAMP_TYPE, True, "When it was pinned"),
            Column("committed_at", TIMESTAMP_TYPE, True, "When this event was"),
            Column("author", DICTIONARY_TYPE, False, "Who pinned it, or let go of it"),
            Column("note", pa.string(), False, "Why"),
            Column("table", DICTIONARY_TYPE, True, "Table that its rows are of"),
            Column("commit", pa.int64(), True, "Last commit of it whose rows count"),
            Column("snapshot_id", pa.int64(), False, "Snapshot of that commit"),
            Column(
                "corrections_commit",
                pa.int64(),
                False,
                "Of trades: last commit of corrections that counts; 0 where there was none",
            ),
            Column("question", pa.string(), True, "Which of these rows, as JSON"),
            Column("fields", pa.string(), True, "Its columns and their types, as JSON"),
            Column("schema_id", pa.int32(), False, "Schema that the table had then"),
            Column("offsets", pa.string(), True, "Offsets of the log after the commit, as JSON"),
            Column("rows", pa.int64(), True, "How many rows"),
            Column("days", pa.string(), True, "How many of each trading date, as JSON"),
            Column("hash", pa.string(), True, "SHA-256 of their content"),
            Column("hash_definition", pa.int32(), True, "Version of the form that was hashed"),
        ),
        False,
    ),
}
