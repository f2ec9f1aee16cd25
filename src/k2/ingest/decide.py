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
from k2.ingest.closed import Closed
from k2.ingest.known import Known
from k2.ingest.shed import Shedding, ShedRun, split
from k2.ingest.sift import Sieve, constant, to_rejected, with_lineage
from k2.lake import ShedRange
from k2.log import NOT_WIRE_FORMAT, Batch, Registry
from k2.model import Exchange, Topic, decode, latest


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
        self._registry = registry
        self._sieve = Sieve(topic, exchange, known, skew, closed)
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
        rows, unread = self._decode(messages)
        found = self._sieve.sift(rows, messages.raw_of)
        table = found.rows
        refused = pa.concat_tables([found.rejected, *unread])
        if self._topic.kind == "rejects":
            # Its rows are the ledger's entries: one that cannot be read itself is another.
            table, refused = pa.concat_tables([table, refused]), refused.slice(0, 0)
        return Decided(
            str(self._topic),
            table,
            refused,
            found.duplicates,
            {batch.partition: first_offset[batch.partition] for batch in batches},
            {batch.partition: batch.next_offset for batch in batches},
            tuple(shed),
            retired=found.retired,
        )

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
        return self._sieve.to_table(rows)

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

    def _with_lineage(
        self, table: pa.Table, messages: "_Messages", place: npt.NDArray[np.int64]
    ) -> pa.Table:
        return with_lineage(table, self._topic, self._log_id, messages.lineage(place))

    def _rejected(
        self, messages: "_Messages", place: npt.NDArray[np.int64], reasons: pa.Array | str
    ) -> pa.Table:
        n = len(place)
        known: dict[str, Any] = {
            "reason": pa.repeat(reasons, n) if isinstance(reasons, str) else reasons,
            "log_topic": constant(str(self._topic), n),
            "log_id": constant(self._log_id, n),
            **messages.lineage(place),
            **messages.raw(place),
        }
        return to_rejected(self._topic, known)


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

    def lineage(self, place: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """Partition and offset of the messages at these places."""
        return {
            "log_partition": pa.array(self.partitions[place]),
            "log_offset": pa.array(self.offsets[place]),
        }

    def raw(self, place: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """The messages at these places as they came, and the schemas of them."""
        return {
            "schema_id": pa.array(self.schema_ids[place]),
            "raw": self.values.take(pa.array(place)),
        }

    def raw_of(self, rows: pa.Table) -> dict[str, pa.Array]:
        """The messages of these rows (with lineage) as they came."""
        return self.raw(self.places_of(rows))

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
