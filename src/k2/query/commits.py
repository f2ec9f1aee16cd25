"""What is known of one commit of a table, whether or not its snapshot is kept."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from k2.errors import NotFound
from k2.lake import Lake, offsets_to_json


@dataclass(frozen=True)
class Committed:
    """A commit: `number` 0 and all else empty before the first one. `offsets` is JSON: the log's
    offsets after it. `schema_id` is Iceberg's number of its schema, while its snapshot is kept.
    """

    number: int
    snapshot_id: int | None = None
    committed_at: datetime | None = None
    offsets: str = "{}"
    schema_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; ids are text, since JavaScript's numbers end at 2^53."""
        return {
            "commit": self.number,
            "snapshot_id": None if self.snapshot_id is None else str(self.snapshot_id),
            "committed_at": None if self.committed_at is None else self.committed_at.isoformat(),
            "offsets": json.loads(self.offsets),
            "schema_id": self.schema_id,
        }


def read_commit(lake: Lake, kind: str, number: int) -> Committed:
    """The commit of that number. Raises `NotFound` for one that never was."""
    if number == 0:
        return Committed(0)
    head = lake.table(kind).head()
    snapshot = head.snapshot
    kept = {s["sequence-number"]: s.get("schema-id") for s in head.metadata["snapshots"]}
    if number == snapshot.sequence:
        return Committed(
            number,
            snapshot.snapshot_id,
            snapshot.committed_at,
            offsets_to_json(snapshot.offsets),
            kept.get(number),
        )
    rows = lake.commits_of(kind)
    rows = rows.filter(
        pc.and_(pc.equal(rows["commit"], number), pc.not_equal(rows["operation"], "tag"))
    )
    if not rows.num_rows:
        raise NotFound(f"there is no commit {number} of {kind}")
    row = rows.slice(0, 1).to_pylist()[0]
    return Committed(
        number, row["snapshot_id"], row["committed_at"], row["offsets"], kept.get(number)
    )
