"""All that stands in the log shed as it is, where a writer goes on at the log's end.

Comes in: a follower, and the log. Goes out: runs that decide nothing and move the offsets.
"""

from dataclasses import replace

import pyarrow as pa

from k2.ingest.decide import Decided
from k2.ingest.degradation import Level
from k2.ingest.follow import Follower
from k2.ingest.shed import WHOLE, Shedding, ShedRun
from k2.lake import definition
from k2.log import Log
from k2.model import Topic


def skipped(log: Log, follower: Follower, columns: pa.Schema, shedding: Shedding) -> list[Decided]:
    """A run for each partition that the follower has met and that is behind; `columns` are those
    of the table.
    """
    whole = replace(shedding, id=f"{shedding.id}{WHOLE}", level=Level.CIRCUIT_BREAK)
    runs = []
    for name, offsets in follower.next_offset.items():
        topic, ends = Topic.parse(name), log.end_offsets(name)
        for partition, first in offsets.items():
            end = ends[partition]
            if topic is not None and first < end:
                log_id = follower.log_ids[name]
                shed = ShedRun(topic, log_id, partition, first, end, end - first, whole)
                runs.append(_nothing_of(shed, columns))
    return runs


def _nothing_of(shed: ShedRun, columns: pa.Schema) -> Decided:
    return Decided(
        str(shed.topic),
        columns.empty_table().drop_columns(["commit_sequence"]),
        definition("rejected").arrow.empty_table(),
        definition("duplicates").arrow.empty_table(),
        {shed.partition: shed.first_offset},
        {shed.partition: shed.end_offset},
        (shed,),
    )
