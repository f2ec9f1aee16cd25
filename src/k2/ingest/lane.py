"""One kind's way from loaded files into its table: columns decided and committed, no log between.

Comes in: records as columns, with the offset of the first. Goes out: commits of rows, ledgers and
the next offset, by compare and swap; records have the fates that the writer would give them.
"""

import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import Broken, Conflict, Fenced
from k2.ingest.batch import Batch, commit_batch, moved_by
from k2.ingest.closed import Closed
from k2.ingest.decide import Decided
from k2.ingest.follow import exchange_of, offset_in
from k2.ingest.known import Known
from k2.ingest.marks import ID_COLUMN
from k2.ingest.options import WriterOptions
from k2.ingest.settle import Fates
from k2.ingest.sift import Raw, Sieve, table_of, with_lineage
from k2.ingest.tidying import Tidying
from k2.ingest.tracking import Sequenced, Sequences
from k2.lake import Lake, Snapshot
from k2.log import Log, Registry
from k2.model import LOADED_PARTITION, Exchange, Topic, encode, latest

logger = logging.getLogger(__name__)


class Lane:
    """Records of one kind, on their way. One thread; others may commit to the table meanwhile.

    `log_id` stands in the rows' lineage. `on_step` is told each step of a commit before it is
    taken.
    """

    def __init__(
        self,
        kind: str,
        log_id: str,
        stores: tuple[Log, Registry, Lake],
        options: WriterOptions,
        on_step: Callable[[str], None],
    ) -> None:
        self._kind = kind
        self._log_id = log_id
        self._log, self._registry, self._lake = stores
        self._options = options
        self._on_step = on_step
        self._table = self._lake.table(table_of(kind))
        self._closed = Closed(self._lake, kind)
        self._tidying = Tidying(self._lake, self._table, time.monotonic)
        self._topics: set[Topic] = set()
        self._begin()

    def _begin(self) -> None:
        """From the table as it is now."""
        snapshot = self._table.snapshot()
        self._known = Known(self._kind, self._table, snapshot)
        self._sequences: Sequences | None = None
        if self._kind in ID_COLUMN:
            grace, most = self._options.gap_grace, self._options.most_holes
            self._sequences = Sequences(self._lake, self._table, snapshot, grace, most)

    def take(self, topic: Topic, records: pa.Table, first: int) -> Fates:
        """Decide the records, commit them, and count what became of each. `first` is the offset of
        the first of them: the table's own.

        Raises `Fenced` where that is another, and as `LakeTable.commit` does but for conflicts:
        where others were faster, the records are decided anew.
        """
        n = records.num_rows
        places = {
            "log_partition": pa.array(np.full(n, LOADED_PARTITION, np.int32)),
            "log_offset": pa.array(np.arange(first, first + n)),
        }
        rows = with_lineage(records, topic, self._log_id, places)
        self._topics.add(topic)
        while True:
            self._check_place(topic, first)
            exchange = exchange_of(self._log, topic, self._known.snapshot)
            decided = self._decide(topic, exchange, rows, first)
            try:
                self._commit(decided, exchange)
            except Fenced:
                raise
            except Conflict as error:
                logger.warning("%s: %s; deciding again", self._table.name, error)
                self._begin()
            else:
                return _fates(self._kind, decided)

    def _check_place(self, topic: Topic, first: int) -> None:
        reached = offset_in(self._known.snapshot.offsets, (str(topic), LOADED_PARTITION))
        if (reached or (self._log_id, 0)) != (self._log_id, first):
            raise Fenced(
                "another load has committed records of this topic",
                place=f"{self._table.name}: {topic}",
                hint="load the same again to go on, nothing is doubled",
            )

    def _decide(self, topic: Topic, exchange: Exchange, rows: pa.Table, first: int) -> Decided:
        sieve = Sieve(topic, exchange, self._known, self._options.skew, self._closed)
        found = sieve.sift(rows, self._raw_of(topic))
        table, rejected = found.rows, found.rejected
        if self._kind == "rejects":
            # Its rows are the ledger's entries: one that cannot be itself is another.
            table, rejected = pa.concat_tables([table, rejected]), rejected.slice(0, 0)
        decided = Decided(
            str(topic),
            table,
            rejected,
            found.duplicates,
            {LOADED_PARTITION: first},
            {LOADED_PARTITION: first + rows.num_rows},
            retired=found.retired,
        )
        if decided.messages != rows.num_rows:
            raise Broken("not every record has one fate", place=f"{topic} offset {first:,}")
        return decided

    def _raw_of(self, topic: Topic) -> Raw:
        """Records that cannot be, as they would stand in the log."""

        def raw(failed: pa.Table) -> dict[str, pa.Array]:
            schema = latest(topic.kind)
            number = self._registry.register(topic.subject, schema.avro)
            return {
                "schema_id": pa.array(np.full(failed.num_rows, number, np.int32)),
                "raw": encode(failed.select(schema.arrow.names), schema),
            }

        return raw

    def _commit(self, decided: Decided, exchange: Exchange) -> None:
        base, of = self._known.snapshot, self._sequences
        sequenced = None if of is None else of.sequence([decided], (exchange,))
        batch = Batch(
            [decided],
            base,
            moved_by(base.offsets, [decided], {decided.topic: self._log_id}),
            (exchange,),
            sequenced,
            settles=self._table.buckets if self._table.definition.partitioned else 0,
            # By the records themselves: beside a venue that is live, some commit would have rows
            # of the same symbols each time, and this one would never come through.
            beside=lambda head: self._known.is_beside(exchange.name, decided.rows, head),
        )
        self._commit_batch(batch)
        if self._tidying.is_due():
            self._tidying.run(self._known, self._sequences)

    def _commit_batch(self, batch: Batch) -> None:
        age = self._options.file_age_max
        done = commit_batch(self._table, self._lake, batch, age, self._on_step)
        self._advance(done.snapshot, done.paths, batch.sequenced)

    def _advance(
        self, snapshot: Snapshot, own: Collection[str] = (), mine: Sequenced | None = None
    ) -> None:
        """Go on from a later snapshot, of which the files `own` were written here."""
        later = snapshot.files.since(self._known.snapshot.sequence)
        others = [file.path for file in later if file.path not in own]
        self._known.advance(snapshot, others)
        if self._sequences is not None:
            self._sequences.advance(snapshot, others, mine)

    def finish(self, *, whole: bool) -> None:
        """Bring the ledgers up to date. `whole`: nothing more is to come, and numbers that are
        missing are told to the gap ledger.
        """
        if whole:
            self._tell_gaps()
        if self._known.snapshot.sequence:
            self._tidying.run(self._known, self._sequences)

    def _tell_gaps(self) -> None:
        if self._sequences is None or not self._known.snapshot.sequence:
            return
        owned = {str(topic): (LOADED_PARTITION,) for topic in self._topics}
        while (sequenced := self._sequences.overdue(datetime.now(UTC), owned)) is not None:
            base = self._known.snapshot
            try:
                self._commit_batch(Batch([], base, base.offsets, (), sequenced))
            except Conflict as error:
                # What others brought in may have been what is missing.
                logger.warning("%s: %s; looking again", self._table.name, error)
                self._advance(self._table.snapshot())


def _fates(kind: str, decided: Decided) -> Fates:
    rows, duplicates = decided.rows.num_rows, decided.duplicates.num_rows
    if kind == "rejects":
        return Fates(duplicate=duplicates, rejected=rows)
    late = 0 if decided.retired is None else pc.sum(decided.retired["records"]).as_py()
    return Fates(rows, duplicates, decided.rejected.num_rows, late)
