"""Up to where an audit has found log and tables to agree, kept for the next one to go on from.

Comes in: what a clean audit covered. Goes out: the same, while the tables are the same tables.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import orjson

from k2.ingest.kept import Kept
from k2.lake import LEDGERS, RECORD_TABLES, Lake

Place: TypeAlias = tuple[str, str, int]
"""Topic, identity of the log, partition."""

_NAME: Final = "audited"


@dataclass(frozen=True)
class Verified:
    """One table's commit `sequence`, and the offset of each partition that it was committed up to
    (exclusive): before these, every record was found to have one fate.
    """

    sequence: int = 0
    offsets: Mapping[Place, int] = field(default_factory=dict)


def keep_verified(lake: Lake, verified: Mapping[str, Verified]) -> None:
    """Keep what an audit has verified of each table. Raises `Unavailable` where nothing can be."""
    for name, mark in verified.items():
        if mark.sequence:
            offsets = [[*place, offset] for place, offset in mark.offsets.items()]
            Kept(lake.table(name), _NAME).keep(mark.sequence, orjson.dumps(offsets))


def read_verified(lake: Lake) -> dict[str, Verified]:
    """What was last verified of each table; none of a table that never was."""
    found = {}
    for name in (*RECORD_TABLES, *LEDGERS):
        if not lake.has(name):
            continue
        table = lake.table(name)
        for sequence, state in Kept(table, _NAME).newest(table.snapshot()):
            with suppress(orjson.JSONDecodeError):
                offsets = {(t, i, p): offset for t, i, p, offset in orjson.loads(state)}
                found[name] = Verified(sequence, offsets)
                break
    return found
