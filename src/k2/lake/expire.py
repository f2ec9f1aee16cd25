"""Which snapshots a table lets go of, and the metadata files that nothing names any more.

Data files are never deleted here, and neither is a snapshot that the commits ledger lacks.
"""

from typing import Final

from k2.lake.metadata import Metadata

KEEP_SNAPSHOTS: Final = 100
"""Snapshots kept for other engines' time travel; K2's own does not need them."""


def expired(metadata: Metadata, absorbed: int, keep: int) -> set[int]:
    """Ids of the snapshots to expire with the next commit, so that `keep` are left with it. Those
    that a tag or branch holds stay. Those after commit `absorbed` stay in any case.
    """
    held = {ref["snapshot-id"] for ref in metadata.get("refs", {}).values()}
    held.add(metadata["current-snapshot-id"])
    oldest_first = sorted(metadata["snapshots"], key=lambda s: int(s["sequence-number"]))
    return {
        s["snapshot-id"]
        for s in oldest_first[: max(len(oldest_first) + 1 - keep, 0)]
        if s["sequence-number"] <= absorbed and s["snapshot-id"] not in held
    }
