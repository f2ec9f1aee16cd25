"""What a query gives back: columns, and where they come from."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from k2.query.retired import note
from k2.query.selection import NOW, Past
from k2.query.view import View


@dataclass(frozen=True)
class Answer:
    """The rows of an answer, what state they come from, and where the next page begins.

    `table` holds plain columns (no dictionaries): strings, decimals, `timestamp[us, UTC]`, dates.
    `meta` is JSON-ready: `snapshots` (commit and snapshot id of each table read), `offsets`
    (`{topic: {partition: offset}}`, exclusive ends of what was seen), `rows`, `milliseconds`,
    `notes` (sentences a reader should know), `as_of`, `as_known_at`, and of trades `corrections`:
    how many were heeded, of the symbols and days that were asked for. `next` is an opaque page
    token, given back as `after`; None on the last page and for answers without pages.
    """

    table: pa.Table
    meta: dict[str, object]
    next: str | None = None


def told(
    views: Iterable[View],
    table: pa.Table,
    began: float,
    *,
    past: Past = NOW,
    notes: Iterable[str] = (),
) -> dict[str, object]:
    """The meta of an answer from these views; `began` is what `time.perf_counter` said then."""
    asked = list(views)
    found = [one for view in asked for one in (view, view.corrections) if one is not None]
    known = next((view.known_at for view in asked if view.known_at is not None), None)
    trades = [view.standing for view in asked if view.table == "trades"]
    corrections: dict[str, object] = (
        {"corrections": sum(map(_corrections, trades))} if trades else {}
    )
    return {
        "snapshots": {view.table: _snapshot(view) for view in found},
        "offsets": {
            topic: {str(partition): end for partition, end in sorted(of.items())}
            for view in found
            for topic, of in sorted(view.seen.items())
        },
        "as_of": past.as_of,
        "as_known_at": None if known is None else known.isoformat(),
        **corrections,
        "rows": table.num_rows,
        "milliseconds": round((time.perf_counter() - began) * 1000, 3),
        "notes": [*notes, *(note for view in found for note in _incomplete(view))],
    }


def _corrections(standing: pa.Table | None) -> int:
    return 0 if standing is None else int(pc.sum(standing["corrections"]).as_py())


def _incomplete(view: View) -> Iterator[str]:
    yield from note(view)
    if view.shed:
        yield (
            f"{view.shed:,} {view.table} were left in the log under overload and are not in this "
            "answer yet: `shed` lists them"
        )


def _snapshot(view: View) -> dict[str, object]:
    commit = view.pinned.sequence
    known = commit == view.sequence and view.snapshot_id is not None
    # As text: JavaScript's numbers end at 2^53.
    return {"commit": commit, "snapshot_id": str(view.snapshot_id) if known else None}


def counted(count: int, things: str) -> str:
    """So many of what a plural with an s names, in words."""
    return f"1 {things.removesuffix('s')}" if count == 1 else f"{count:,} {things}"
