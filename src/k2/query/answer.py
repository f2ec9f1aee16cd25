"""What a query gives back: columns, and where they come from."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Answer:
    """The rows of an answer, what state they come from, and where the next page begins.

    `table` holds plain columns (no dictionaries): strings, decimals, `timestamp[us, UTC]`, dates.
    `meta` is JSON-ready: `snapshots` (snapshot id and commit of each table read), `offsets`
    (`{topic: {partition: offset}}`, exclusive ends of what was seen), `rows`, `milliseconds`,
    `notes` (sentences a reader should know), `as_of`. `next` is an opaque page token, given back
    as `after`; None on the last page and for answers without pages.
    """

    table: pa.Table
    meta: dict[str, object]
    next: str | None = None
