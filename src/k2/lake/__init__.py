"""The Iceberg tables: create, commit with offsets by compare and swap, index their files, expire.

Read and written by K2 itself, in Iceberg's format v2, so that any Iceberg engine opens them.
"""

from k2.lake.closes import tag_closes
from k2.lake.commit import Commit
from k2.lake.files import WrittenFile
from k2.lake.index import DataFileRef, FileIndex
from k2.lake.lake import Lake, open_lake
from k2.lake.maintain import Maintained, maintain
from k2.lake.offsets import (
    Loss,
    Offsets,
    OutboxEntry,
    RetiredUpTo,
    ShedRange,
    TopicOffsets,
    offsets_to_json,
)
from k2.lake.pins import Dataset, keep_pin, pin_of, pins_commit, pins_of, remove_pin
from k2.lake.remove import Removed
from k2.lake.retire import Retired, retire
from k2.lake.retiring import Judge, Lot, Verdict
from k2.lake.snapshot import Snapshot
from k2.lake.sort import Bucket, bucket, sort_indices, sort_rows
from k2.lake.table import LakeTable
from k2.lake.tables import BUCKETS, LEDGERS, RECORD_TABLES, Column, Definition, definition

__all__ = [
    "BUCKETS",
    "LEDGERS",
    "RECORD_TABLES",
    "Bucket",
    "Column",
    "Commit",
    "DataFileRef",
    "Dataset",
    "Definition",
    "FileIndex",
    "Judge",
    "Lake",
    "LakeTable",
    "Loss",
    "Lot",
    "Maintained",
    "Offsets",
    "OutboxEntry",
    "Removed",
    "Retired",
    "RetiredUpTo",
    "ShedRange",
    "Snapshot",
    "TopicOffsets",
    "Verdict",
    "WrittenFile",
    "bucket",
    "definition",
    "keep_pin",
    "maintain",
    "offsets_to_json",
    "open_lake",
    "pin_of",
    "pins_commit",
    "pins_of",
    "remove_pin",
    "retire",
    "sort_indices",
    "sort_rows",
    "tag_closes",
]
