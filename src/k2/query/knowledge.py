"""When a record was known: what look-ahead and `--as-known-at` go by.

Comes in: records. Goes out: the time at which each was known, as SQL or as a column; one rule.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.model import micros

_LIVE_US: Final = 60_000_000
"""A record that K2 saw within a minute came live. Any other without a time of receipt was loaded
from an archive, and counts as known when it happened.
"""

KNOWN_AT: Final = (
    "coalesce(source_received_timestamp, case when epoch_us(ingestion_timestamp) "
    f"- epoch_us(timestamp) between 0 and {_LIVE_US} then ingestion_timestamp else timestamp end)"
)
"""The time at which a record was known, as SQL."""

KNOWN_COLUMNS: Final = ("timestamp", "ingestion_timestamp", "source_received_timestamp")
"""The columns that say when a record was known."""


def known_at(records: pa.Table) -> npt.NDArray[np.int64]:
    """When each record (with `KNOWN_COLUMNS`) was known, in microseconds since 1970 UTC."""
    happened, seen = micros(records["timestamp"]), micros(records["ingestion_timestamp"])
    delay = seen - happened
    known = np.where((delay >= 0) & (delay <= _LIVE_US), seen, happened)
    told = records["source_received_timestamp"]
    if told.null_count == len(told):
        return known
    fallback = pa.array(known).cast(told.type)
    return micros(pc.coalesce(told, fallback))
