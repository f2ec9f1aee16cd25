"""What becomes of records once they are columns: the part of the decision that knows no messages.

Comes in: records of one topic as columns, each with its place. Goes out: rows (new records), what
cannot be, duplicates (with the row that each repeats) and what came too late. Records of the log
and of loaded files go through here alike, so that both are decided alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.ingest.closed import Closed, to_late
from k2.ingest.known import LINEAGE, Known
from k2.lake import definition
from k2.model import Exchange, Topic, exchange_dates, micros, validate

TABLES: Final[Mapping[str, str]] = {"rejects": "rejected"}
"""Table of a kind of record, where it is not called like the kind."""

Raw: TypeAlias = Callable[[pa.Table], Mapping[str, pa.Array]]
"""Given records that cannot be: the columns `raw` (as they came) and `schema_id` of each."""


def table_of(kind: str) -> str:
    """Name of the table that records of this kind are rows of."""
    return TABLES.get(kind, kind)


@dataclass(frozen=True)
class Sifted:
    """`rows` are columns of the table but commit_sequence, `rejected`, `duplicates` and `retired`
    those of the ledgers; `retired` is None where nothing came too late.
    """

    rows: pa.Table
    rejected: pa.Table
    duplicates: pa.Table
    retired: pa.Table | None


class Sieve:
    """Sifts the records of one topic, against what is `known`. One thread at a time."""

    def __init__(
        self,
        topic: Topic,
        exchange: Exchange,
        known: Known,
        skew: timedelta,
        closed: Closed | None = None,
    ) -> None:
        self._topic = topic
        self._exchange = exchange
        self._known = known
        self._skew = skew
        self._closed = closed

    def sift(self, records: pa.Table, raw: Raw) -> Sifted:
        """Decide records (the kind's columns, and their lineage) in the order of their places.

        New rows are remembered as known.
        """
        rows, rejected = self._validate(records, raw)
        rows, retired = self._open(rows)
        duplicates = definition("duplicates").arrow.empty_table()
        if rows.num_rows:
            found = self._known.find(self._exchange.name, rows)
            if found is not None:
                duplicates = self._duplicates(rows.take(pa.array(found.rows)), found.originals)
                keep = np.ones(rows.num_rows, np.bool_)
                keep[found.rows] = False
                rows = rows.filter(pa.array(keep))
        self._known.remember(rows)
        return Sifted(self.to_table(rows), rejected, duplicates, retired)

    def to_table(self, rows: pa.Table) -> pa.Table:
        """The columns of the table that these records are rows of."""
        if table_of(self._topic.kind) != self._topic.kind:
            return fill(rows, definition(table_of(self._topic.kind)).arrow)
        if self._topic.kind == "gaps":
            return fill(rows, definition("gaps").arrow)
        time = "timestamp" if "timestamp" in rows.column_names else "ingestion_timestamp"
        when = rows[time]
        if self._topic.kind == "corrections":
            # Beside the trade that it is about: whoever reads a day of trades reads these as well.
            when = pc.coalesce(rows["target_timestamp"], when)
        days = exchange_dates(micros(when), self._exchange)
        return rows.append_column("exchange_date", pa.array(days).view(pa.date32()))

    def _validate(self, rows: pa.Table, raw: Raw) -> tuple[pa.Table, pa.Table]:
        failures = validate(self._topic.kind, rows, self._exchange, self._skew)
        if failures is None:
            return rows, definition("rejected").arrow.empty_table()
        failed = rows.take(pa.array(failures.rows))
        keep = np.ones(rows.num_rows, np.bool_)
        keep[failures.rows] = False
        known: dict[str, Any] = {
            name: failed[name]
            for name in ("symbol", "source", "ingestion_timestamp", *LINEAGE)
            if name in failed.column_names
        }
        reasons = pc.binary_join_element_wise(
            failures.columns, failures.values, failures.wrongs, " "
        )
        known |= {"column": failures.columns, "reason": reasons, **raw(failed)}
        return rows.filter(pa.array(keep)), to_rejected(self._topic, known)

    def _open(self, rows: pa.Table) -> tuple[pa.Table, pa.Table | None]:
        """The rows whose day is not closed, and the ledger's entries of the others.

        Before duplicates are looked for: of what was retired nothing is known any more.
        """
        if self._closed is None:
            return rows, None
        late = self._closed.late(rows, self._exchange, self._known.snapshot.retired)
        if late is None:
            return rows, None
        entries = to_late(self._topic.kind, rows.filter(pa.array(late)), self._exchange)
        return rows.filter(pa.array(~late)), entries

    def _duplicates(self, rows: pa.Table, originals: pa.Table) -> pa.Table:
        known: dict[str, Any] = {
            "kind": pa.repeat(self._topic.kind, rows.num_rows),
            "exchange": pa.repeat(self._exchange.name, rows.num_rows),
            "identity": originals["identity"],
        }
        symbol = rows["symbol"] if "symbol" in rows.column_names else pa.repeat("", rows.num_rows)
        known["symbol"] = symbol
        for name in LINEAGE:
            known["of_" + name.removeprefix("log_") if name != "log_id" else "of_log_id"] = (
                originals[name]
            )
            known[name] = rows[name]
        return fill(pa.table(known), definition("duplicates").arrow)


def to_rejected(topic: Topic, known: Mapping[str, Any]) -> pa.Table:
    """Entries of the ledger of rejected records, of which these columns are known."""
    n = len(known["log_offset"])
    whose = {"kind": pa.repeat(topic.kind, n), "exchange": pa.repeat(topic.exchange, n)}
    return fill(pa.table({**whose, **known}), definition("rejected").arrow)


def with_lineage(table: pa.Table, topic: Topic, log_id: str, places: Mapping[str, Any]) -> pa.Table:
    """The records with their places: `places` has the columns log_partition and log_offset."""
    n = table.num_rows
    lineage = {"log_topic": constant(str(topic), n), "log_id": constant(log_id, n), **places}
    for name in LINEAGE:
        table = table.append_column(name, lineage[name])
    return table


def constant(value: str, n: int) -> pa.Array:
    """A dictionary column that has one value."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))


def fill(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, cast; null where `table` has none."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(field.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(column)
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)
