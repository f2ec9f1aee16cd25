"""What was shed, brought in later: read again from the log, decided as any record is.

Comes in: a snapshot's open ranges and the shed ledger. Goes out: decided runs that move no offset,
each with the front of the range that it fills.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow as pa

from k2.errors import NotFound
from k2.ingest.decide import Decided
from k2.ingest.degradation import Level
from k2.ingest.follow import Follower
from k2.ingest.shed import LATER, WHOLE, Shedding, shed_places
from k2.ingest.tiers import Tiers
from k2.lake import Lake, ShedRange, Snapshot
from k2.lake.places import Offsets
from k2.log import Batch, Log

_READ_BYTES: Final = 8 << 20
_RECORDS: Final = 200_000
"""About so many are brought in at once."""
_OFFSETS: Final = 4 * _RECORDS
"""So many places are looked up at once; a few batches may be read for one record of each."""


def open_ranges(
    snapshot: Snapshot, owned: Mapping[str, Iterable[int]] | None = None
) -> list[ShedRange]:
    """The ranges that wait to be filled: those that may hold tier 1 first, then the oldest."""
    mine = (
        each
        for each in snapshot.shed
        if owned is None or each.partition in set(owned.get(each.topic, ()))
    )
    return sorted(
        mine,
        key=lambda each: (
            *(not each.id.endswith(WHOLE), each.first_offset),
            *(each.topic, each.partition),
        ),
    )


def fill(log: Log, lake: Lake, follower: Follower, of: ShedRange, tiers: Tiers) -> Decided:
    """The first records of an open range of the follower's snapshot, decided.

    Of a range that was shed whatever its tier, those of tier 1: the others are shed anew, so that
    they wait until all of tier 1 is in. Raises `NotFound` where the log does not hold them any
    more, and as `Decider.decide` does.
    """
    wanted = shed_places(lake, of).first(_OFFSETS)
    # Behind the last of them, if there are more, nobody has looked yet.
    last = of.end_offset if len(wanted) < _OFFSETS else int(wanted[-1]) + 1
    end, batches, records = of.first_offset, [], 0
    while records < _RECORDS:
        left = wanted[np.searchsorted(wanted, end) :]
        if not len(left):
            end = last
            break
        found = log.read(of.topic, of.partition, int(left[0]), _READ_BYTES)
        for batch in found:
            chosen = _chosen(batch, left)
            batches.append(chosen)
            records += len(chosen.offsets)
            end = min(batch.next_offset, last)
        if not found:
            break
    if end == of.first_offset:
        raise NotFound("the log ends before records that were shed", place=of.place)
    later = None
    if of.id.endswith(WHOLE):
        id_ = f"{of.id.removesuffix(WHOLE)}{LATER}"
        later = Shedding(id_, Level.AGGRESSIVE, tiers, datetime.now(UTC))
    decided = follower.decide_shed(of.topic, of.partition, batches, later)
    return replace(decided, filled=(replace(of, end_offset=end, records=records),))


def _chosen(batch: Batch, wanted: Offsets) -> Batch:
    keep = np.isin(batch.offsets, wanted, assume_unique=True)
    if keep.all():
        return batch
    return replace(
        batch,
        offsets=batch.offsets[keep],
        schema_ids=batch.schema_ids[keep],
        values=batch.values.filter(pa.array(keep)),
    )
