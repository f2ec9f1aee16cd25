"""What a query gives back: columns, and where they come from."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from k2.query.view import View


@dataclass(frozen=True)
class Answer:
    """The rows of an answer, what state they come from, and where the next page begins.

    `table` holds plain columns (no dictionaries): strings, decimals, `timestamp[us, UTC]`, dates.
    `meta` is JSON-ready: `snapshots` (commit and snapshot id of each table read), `offsets`
    (`{topic: {partition: offset}}`, exclusive ends of what was seen), `rows`, `milliseconds`,
    `notes` (sentences a reader should know), `as_of`. `next` is an opaque page token, given back
    as `after`; None on the last page and for answers without pages.
    """

    table: pa.Table
    meta: dict[str, object]
    next: str | None = None


def told(
    views: Iterable[View],
    table: pa.Table,
    began: float,
    *,
    as_of: str | None = None,
    notes: Iterable[str] = (),
) -> dict[str, object]:
    """The meta of an answer from these views; `began` is what `time.perf_counter` said then."""
    found = list(views)
    return {
        "snapshots": {view.table: _snapshot(view) for view in found},
        "offsets": {
            topic: {str(partition): end for partition, end in sorted(of.items())}
            for view in found
            for topic, of in sorted(view.seen.items())
        },
        "as_of": as_of,
        "rows": table.num_rows,
        "milliseconds": round((time.perf_counter() - began) * 1000, 3),
        "notes": list(notes),
    }


def _snapshot(view: View) -> dict[str, object]:
    commit = view.pinned.sequence
    known = commit == view.sequence and view.snapshot_id is not None
    # As text: JavaScript's numbers end at 2^53.
    return {"commit": commit, "snapshot_id": str(view.snapshot_id) if known else None}
