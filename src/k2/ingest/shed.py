"""What is left in the log under overload: which messages, and how the ledger keeps their places.

Comes in: messages of one topic, and the tiers that are kept. Goes out: the messages to decide, and
for each partition an entry that holds the exact offsets of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.ingest.degradation import Level
from k2.ingest.tiers import Tiers
from k2.lake import Lake, ShedRange, definition
from k2.lake.ledgers import to_rows
from k2.lake.places import Offsets, from_distances, to_distances
from k2.log import Batch
from k2.model import Topic, peek, plain_schema

KINDS: Final = ("trades", "quotes")
"""Kinds of which records may be shed: those that markets send without end."""

WHOLE: Final = ".whole"
"""Ends the id of ranges that were shed whatever their tier."""
LATER: Final = ".later"
"""Ends the id in place of that, once tier 1 of such a range is brought in."""

_PLACED: Final = (
    *("event", "id", "log_topic", "log_id", "log_partition", "log_offset", "end_offset"),
    "distances",
)
_KEPT: Final = {Level.GRACEFUL: 2, Level.AGGRESSIVE: 1, Level.CIRCUIT_BREAK: 0}
"""The lowest tier that is processed at a level."""


@dataclass(frozen=True)
class Shedding:
    """What is shed now: `id` names this time of overload, `when` is the writer's clock."""

    id: str
    level: Level
    tiers: Tiers
    when: datetime

    @property
    def kept(self) -> int:
        """The lowest tier that is processed."""
        return _KEPT.get(self.level, 3)


@dataclass(frozen=True)
class ShedRun:
    """Messages of one partition that were shed: an entry of the ledger on its way.

    `distances`: see `to_distances`; None where all from `first_offset` up to `end_offset` were.
    `symbols` and `tiers` are empty where nobody looked.
    """

    topic: Topic
    log_id: str
    partition: int
    first_offset: int
    end_offset: int
    records: int
    shedding: Shedding
    distances: bytes | None = None
    symbols: tuple[str, ...] = ()
    tiers: tuple[int, ...] = ()

    @property
    def range(self) -> ShedRange:
        """As the table keeps it open."""
        return ShedRange(
            self.shedding.id,
            str(self.topic),
            self.log_id,
            self.partition,
            self.first_offset,
            self.end_offset,
            self.records,
        )


def split(
    topic: Topic, log_id: str, batches: Sequence[Batch], shedding: Shedding | None
) -> tuple[list[Batch], list[ShedRun]]:
    """The messages that are to be decided, and the others. Nothing is decoded for it.

    A message whose symbol cannot be seen is decided: what is wrong with it, is said there.
    """
    if shedding is None or shedding.kept >= 3 or topic.kind not in KINDS:
        return list(batches), []
    kept: list[Batch] = []
    shed: list[ShedRun] = []
    for batch in batches:
        found = peek(batch.values)
        tiers = shedding.tiers.of(topic.exchange, found.symbols)
        keep = np.append(tiers <= shedding.kept, True)[found.codes]
        if keep.all():
            kept.append(batch)
            continue
        gone, offsets = np.unique(found.codes[~keep]), batch.offsets[~keep]
        shed.append(
            ShedRun(
                topic,
                log_id,
                batch.partition,
                int(offsets[0]),
                int(offsets[-1]) + 1,
                len(offsets),
                shedding,
                to_distances(offsets),
                tuple(sorted(found.symbols[code] for code in gone)),
                tuple(sorted({int(tiers[code]) for code in gone})),
            )
        )
        kept.append(
            replace(
                batch,
                offsets=batch.offsets[keep],
                schema_ids=batch.schema_ids[keep],
                values=batch.values.filter(pa.array(keep)),
            )
        )
    return kept, shed


# ------------------------------------------------------------------------- ledger


def to_ledger(shed: Sequence[ShedRun], filled: Sequence[ShedRange], now: datetime) -> pa.Table:
    """The ledger's entries of what was shed, and of what was brought in, one each."""
    rows: list[dict[str, Any]] = [
        {
            **_entry("shed", run.range, run.shedding.when),
            "level": int(run.shedding.level),
            "tiers": " ".join(map(str, run.tiers)) or None,
            "symbols": " ".join(run.symbols) or None,
            "tiers_version": run.shedding.tiers.version,
            "distances": run.distances,
        }
        for run in shed
    ]
    rows += [_entry("filled", each, now) for each in filled]
    return to_rows("shed", rows)


def _entry(event: str, of: ShedRange, when: datetime) -> dict[str, Any]:
    topic = Topic.parse(of.topic)
    assert topic is not None, "only topics of records are shed"
    return {
        "event": event,
        "id": of.id,
        "kind": topic.kind,
        "exchange": topic.exchange,
        "records": of.records,
        "end_offset": of.end_offset,
        "ingestion_timestamp": when,
        "log_topic": of.topic,
        "log_id": of.log_id,
        "log_partition": of.partition,
        "log_offset": of.first_offset,
    }


@dataclass(frozen=True)
class Places:
    """Where the records of an open range lie: at exact `offsets`, ascending, and everywhere in the
    half-open ranges `whole`.
    """

    offsets: Offsets
    whole: tuple[tuple[int, int], ...]

    def first(self, most: int) -> Offsets:
        """So many offsets at most, the lowest, ascending; those of whole ranges may hold no
        record.
        """
        parts = [np.arange(at, min(end, at + most), dtype=np.int64) for at, end in self.whole]
        return np.unique(np.concatenate([self.offsets[:most], *parts]))[:most]


def shed_entries(lake: Lake, kind: str) -> pa.Table:
    """The ledger's entries of a kind, as far as they say which records they are of."""
    schema = definition("shed").arrow
    plain = plain_schema(schema.field(name) for name in (*_PLACED, "kind"))
    parts = [
        pq.ParquetFile(file.path).read(columns=plain.names).select(plain.names).cast(plain)
        for file in lake.ledger_files("shed")
    ]
    rows = pa.concat_tables([plain.empty_table(), *parts])
    return rows.filter(pc.field("kind") == kind)


def shed_places(lake: Lake, of: ShedRange) -> Places:
    """Where the records of an open range lie, as the ledger tells it."""
    found: list[dict[str, Any]] = []
    for file in lake.ledger_files("shed"):
        table = pq.ParquetFile(file.path).read(columns=list(_PLACED))
        mine = (
            (pc.field("event") == "shed")
            & (pc.field("id") == of.id)
            & (pc.field("log_topic") == of.topic)
            & (pc.field("log_id") == of.log_id)
            & (pc.field("log_partition") == of.partition)
            & (pc.field("end_offset") > of.first_offset)
            & (pc.field("log_offset") < of.end_offset)
        )
        found += table.filter(mine).to_pylist()
    exact = [
        from_distances(entry["log_offset"], entry["distances"], f"shed ledger: {of.place}")
        for entry in found
        if entry["distances"] is not None
    ]
    offsets = np.sort(np.concatenate(exact)) if exact else np.zeros(0, np.int64)
    return Places(
        offsets[(offsets >= of.first_offset) & (offsets < of.end_offset)],
        tuple(
            (max(entry["log_offset"], of.first_offset), min(entry["end_offset"], of.end_offset))
            for entry in found
            if entry["distances"] is None
        ),
    )
