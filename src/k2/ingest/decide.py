"""What becomes of each message: the one decision that writer and tail share.

Comes in: messages of one topic, in log order. Goes out: rows (new records), rejected (kept whole,
with the reason) and duplicates (with the row that each repeats). Every message has exactly one of
these fates, and none depends on a clock, on batch borders or on who decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import Broken, NotFound, Refused
from k2.ingest.closed import Closed, to_late
from k2.ingest.known import LINEAGE, Known
from k2.ingest.shed import Shedding, ShedRun, split
from k2.lake import ShedRange, definition
from k2.log import NOT_WIRE_FORMAT, Batch, Registry
from k2.model import Exchange, Topic, decode, exchange_dates, latest, micros, validate

TABLES: Final[Mapping[str, str]] = {"rejects": "rejected"}
"""Table of a kind of record, where it is not called like the kind."""


def table_of(kind: str) -> str:
    """Name of the table that records of this kind are rows of."""
    return TABLES.get(kind, kind)


@dataclass(frozen=True)
class Decided:
    """The fates of a run of messages of one topic.

    `rows` has the table's columns but commit_sequence; `rejected` and `duplicates` those of the
    ledgers. By partition, `first_offset` is where reading began, and `next_offset` where it goes on
    (exclusive end). `shed` was left in the log; `filled` are fronts of shed ranges that this brings
    in: then no offsets move. `retired` are entries of that ledger, of records whose day is closed.
    """

    topic: str
    rows: pa.Table
    rejected: pa.Table
    duplicates: pa.Table
    first_offset: Mapping[int, int]
    next_offset: Mapping[int, int]
    shed: tuple[ShedRun, ...] = ()
    filled: tuple[ShedRange, ...] = ()
    retired: pa.Table | None = None

    @property
    def messages(self) -> int:
        """How many messages these are the fates of."""
        decided = self.rows.num_rows + self.rejected.num_rows + self.duplicates.num_rows
        late = 0 if self.retired is None else pc.sum(self.retired["records"]).as_py()
        return decided + late + sum(run.records for run in self.shed)

    @property
    def size_bytes(self) -> int:
        """Memory that the columns take."""
        return int(self.rows.nbytes + self.rejected.nbytes + self.duplicates.nbytes)


class Decider:
    """Decides the messages of one topic, against what is `known`. One thread at a time."""

    def __init__(
        self,
        topic: Topic,
        log_id: str,
        exchange: Exchange,
        registry: Registry,
        known: Known,
        skew: timedelta,
        closed: Closed | None = None,
    ) -> None:
        self._topic = topic
        self._log_id = log_id
        self._exchange = exchange
        self._registry = registry
        self._known = known
        self._skew = skew
        self._closed = closed
        self._reader = latest(topic.kind)
        self._writers: dict[int, Mapping[str, Any] | str] = {}

    def decide(
        self,
        batches: Sequence[Batch],
        first_offset: Mapping[int, int],
        shedding: Shedding | None = None,
    ) -> Decided:
        """Decide the messages of `batches` (this topic's, partitions in any order), which were read
        from `first_offset` on; what is to be shed now is left alone.

        New rows are remembered as known. Raises `Refused` for a message of a schema newer than
        K2 itself, `Unavailable` while the registry is away: nothing is decided then.
        """
        kept, shed = split(self._topic, self._log_id, batches, shedding)
        messages = _Messages.of(kept)
        rows, rejected = self._decode(messages)
        rows, failed = self._validate(rows, messages)
        rejected = [*rejected, *failed]
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
        table = self._to_table(rows)
        refused = pa.concat_tables([definition("rejected").arrow.empty_table(), *rejected])
        if self._topic.kind == "rejects":
            # Its rows are the ledger's entries: one that cannot be read itself is another.
            table, refused = pa.concat_tables([table, refused]), refused.slice(0, 0)
        return Decided(
            str(self._topic),
            table,
            refused,
            duplicates,
            {batch.partition: first_offset[batch.partition] for batch in batches},
            {batch.partition: batch.next_offset for batch in batches},
            tuple(shed),
            retired=retired,
        )

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

    def read_again(self, batches: Sequence[Batch]) -> pa.Table:
        """The rows of messages that became rows when they were decided: no fate is decided anew.

        As `Decided.rows`, in the order of the messages. Raises `Broken` for one that cannot be read
        now, `Refused` and `Unavailable` as `decide` does.
        """
        rows, rejected = self._decode(_Messages.of(batches))
        for bad in rejected:
            reason, partition, offset = (
                bad[name][0].as_py() for name in ("reason", "log_partition", "log_offset")
            )
            raise Broken(
                f"this record was kept as a row once, and cannot be read now: {reason}",
                place=f"{self._topic}[{partition}] offset {offset}",
                hint="`k2 audit` says whether log and tables agree",
            )
        return self._to_table(rows)

    def _decode(self, messages: "_Messages") -> tuple[pa.Table, list[pa.Table]]:
        """Rows with lineage in message order, and what could not be decoded."""
        tables, places, rejected = [], [], []
        for schema_id in np.unique(messages.schema_ids).tolist():
            mine = np.flatnonzero(messages.schema_ids == schema_id)
            writer = self._writer(schema_id)
            if isinstance(writer, str):
                rejected.append(self._rejected(messages, mine, writer))
                continue
            decoded = decode(messages.take(mine).values, writer, self._reader)
            tables.append(decoded.table)
            places.append(mine[decoded.kept])
            if decoded.errors:
                bad = mine[[index for index, _ in decoded.errors]]
                reasons = pa.array([why for _, why in decoded.errors], pa.string())
                rejected.append(self._rejected(messages, bad, reasons))
        if not tables:
            return self._with_lineage(
                self._reader.arrow.empty_table(), messages, _NO_ROWS
            ), rejected
        place = np.concatenate(places)
        table = pa.concat_tables(tables)
        if len(tables) > 1:
            order = np.argsort(place, kind="stable")
            table, place = table.take(pa.array(order)), place[order]
        return self._with_lineage(table, messages, place), rejected

    def _writer(self, schema_id: int) -> Mapping[str, Any] | str:
        """The schema of messages with this id, or why they are none of this kind."""
        if schema_id not in self._writers:
            self._writers[schema_id] = self._look_up(schema_id)
        return self._writers[schema_id]

    def _look_up(self, schema_id: int) -> Mapping[str, Any] | str:
        if schema_id == NOT_WIRE_FORMAT:
            return "no Confluent wire format: a zero byte and a 4-byte schema id were expected"
        try:
            writer = self._registry.schema(schema_id)
        except NotFound:
            return f"schema id {schema_id} is not known to the registry"
        given = {field["name"] for field in writer.get("fields", ())}
        needed = {f["name"] for f in self._reader.avro["fields"]} - self._reader.defaults.keys()
        if missing := sorted(needed - given):
            return f"schema {schema_id} describes no {self._topic.kind}: it has no {missing[0]}"
        if unknown := sorted(given - set(self._reader.arrow.names)):
            raise Refused(
                f"schema {schema_id} has the field {unknown[0]!r}, which this version of K2 "
                "does not know",
                place=str(self._topic),
                hint="upgrade K2 here; the records wait in the log and nothing is dropped",
            )
        return writer

    def _validate(self, rows: pa.Table, messages: "_Messages") -> tuple[pa.Table, list[pa.Table]]:
        failures = validate(self._topic.kind, rows, self._exchange, self._skew)
        if failures is None:
            return rows, []
        failed = rows.take(pa.array(failures.rows))
        keep = np.ones(rows.num_rows, np.bool_)
        keep[failures.rows] = False
        place = messages.places_of(failed)
        more = {
            name: failed[name]
            for name in ("symbol", "source", "ingestion_timestamp")
            if name in failed.column_names
        }
        more["column"] = failures.columns
        reasons = pc.binary_join_element_wise(
            failures.columns, failures.values, failures.wrongs, " "
        )
        return rows.filter(pa.array(keep)), [self._rejected(messages, place, reasons, more)]

    def _with_lineage(
        self, table: pa.Table, messages: "_Messages", place: npt.NDArray[np.int64]
    ) -> pa.Table:
        n = table.num_rows
        columns = {
            "log_topic": _constant(str(self._topic), n),
            "log_id": _constant(self._log_id, n),
            "log_partition": pa.array(messages.partitions[place]),
            "log_offset": pa.array(messages.offsets[place]),
        }
        for name, column in columns.items():
            table = table.append_column(name, column)
        return table

    def _rejected(
        self,
        messages: "_Messages",
        place: npt.NDArray[np.int64],
        reasons: pa.Array | str,
        more: Mapping[str, pa.ChunkedArray] | None = None,
    ) -> pa.Table:
        n = len(place)
        known: dict[str, Any] = {
            "kind": pa.repeat(self._topic.kind, n),
            "exchange": pa.repeat(self._exchange.name, n),
            "reason": pa.repeat(reasons, n) if isinstance(reasons, str) else reasons,
            "schema_id": pa.array(messages.schema_ids[place]),
            "raw": messages.values.take(pa.array(place)),
            **(more or {}),
        }
        table = self._with_lineage(pa.table(known), messages, place)
        return _fill(table, definition("rejected").arrow)

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
        return _fill(pa.table(known), definition("duplicates").arrow)

    def _to_table(self, rows: pa.Table) -> pa.Table:
        """The columns of the table that these records are rows of."""
        if table_of(self._topic.kind) != self._topic.kind:
            return _fill(rows, definition(table_of(self._topic.kind)).arrow)
        if self._topic.kind == "gaps":
            return _fill(rows, definition("gaps").arrow)
        time = "timestamp" if "timestamp" in rows.column_names else "ingestion_timestamp"
        when = rows[time]
        if self._topic.kind == "corrections":
            # Beside the trade that it is about: whoever reads a day of trades reads these as well.
            when = pc.coalesce(rows["target_timestamp"], when)
        days = exchange_dates(micros(when), self._exchange)
        return rows.append_column("exchange_date", pa.array(days).view(pa.date32()))


@dataclass(frozen=True)
class _Messages:
    """Messages of one topic as columns."""

    partitions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    schema_ids: npt.NDArray[np.int32]
    values: pa.BinaryArray

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> "_Messages":
        partitions = [np.full(len(b.offsets), b.partition, np.int32) for b in batches]
        values = [b.values for b in batches]
        return cls(
            np.concatenate(partitions) if partitions else np.zeros(0, np.int32),
            np.concatenate([b.offsets for b in batches]) if batches else _NO_ROWS,
            np.concatenate([b.schema_ids for b in batches]) if batches else np.zeros(0, np.int32),
            values[0]
            if len(values) == 1
            else pa.concat_arrays(values or [pa.array([], pa.binary())]),
        )

    def take(self, place: npt.NDArray[np.int64]) -> "_Messages":
        if len(place) == len(self.offsets):
            return self
        return _Messages(
            self.partitions[place],
            self.offsets[place],
            self.schema_ids[place],
            self.values.take(pa.array(place)),
        )

    def places_of(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """Where the messages of these rows (with lineage) stand."""
        partition, offset = rows["log_partition"].to_numpy(), rows["log_offset"].to_numpy()
        out = np.zeros(rows.num_rows, np.int64)
        for number in np.unique(partition):
            mine = np.flatnonzero(self.partitions == number)
            chosen = partition == number
            # Offsets ascend within a partition, so a search finds each.
            out[chosen] = mine[np.searchsorted(self.offsets[mine], offset[chosen])]
        return out


_NO_ROWS: Final = np.zeros(0, np.int64)


def _constant(value: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))


def _fill(table: pa.Table, schema: pa.Schema) -> pa.Table:
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
