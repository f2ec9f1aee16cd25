"""A table's metadata document, Iceberg format v2: plain dictionaries in, new dictionaries out.

Comes in: a `Definition` or the present document. Goes out: the next document; none is changed in
place. https://iceberg.apache.org/spec/#table-metadata
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeAlias

import pyarrow as pa

from k2.errors import Broken, Refused
from k2.lake.offsets import COMMIT_ID, FOREIGN
from k2.lake.tables import BUCKETS, Column, Definition
from k2.model import DICTIONARY_TYPE

Metadata: TypeAlias = dict[str, Any]

METADATA_VERSIONS: Final = 10
"""Older metadata documents that are kept; a reader that needs longer reads the newest again."""

FRESH_SPEC: Final = 0
BUCKET: Final = "symbol_bucket"
"""Field of a data file's partition, among sixteen; among others, with their number behind it."""
_BUCKETED: Final = re.compile(r"bucket\[(\d+)\]")


def iceberg_type(arrow: pa.DataType) -> str:
    """Iceberg's name of a column's type."""
    if arrow == DICTIONARY_TYPE or pa.types.is_string(arrow):
        return "string"
    if pa.types.is_timestamp(arrow):
        return "timestamptz" if arrow.tz else "timestamp"
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision}, {arrow.scale})"
    return _PLAIN[arrow]


_PLAIN: Final[Mapping[pa.DataType, str]] = {
    pa.date32(): "date",
    pa.binary(): "binary",
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "long",
}


def new_table(definition: Definition, location: str, uuid: str, now_ms: int) -> Metadata:
    """The first document of a table without rows. `location` is its folder's URI."""
    fields = [_field(i, column) for i, column in enumerate(definition.columns, 1)]
    ids = {f["name"]: f["id"] for f in fields}
    return {
        "format-version": 2,
        "table-uuid": uuid,
        "location": location,
        "last-sequence-number": 0,
        "last-updated-ms": now_ms,
        "last-column-id": len(fields),
        "schemas": [{"type": "struct", "schema-id": 0, "fields": fields}],
        "current-schema-id": 0,
        "partition-specs": _specs(definition, ids),
        "default-spec-id": 1 if definition.partitioned else FRESH_SPEC,
        "last-partition-id": 1001 if definition.partitioned else 999,
        "properties": _properties(definition),
        "current-snapshot-id": -1,
        "snapshots": [],
        "snapshot-log": [],
        "metadata-log": [],
        "sort-orders": _orders(definition, ids),
        "default-sort-order-id": 1 if definition.order else 0,
        "refs": {},
        "statistics": [],
        "partition-statistics": [],
    }


def evolve(metadata: Metadata, definition: Definition) -> Metadata | None:
    """The document with the columns that `definition` adds; None if there is nothing to add.

    Columns are only ever added, each optional, and old files are not touched: they read as null.
    Raises `Refused` for a column whose type is another now.
    """
    old = {f["name"]: f for f in schema_of(metadata)["fields"]}
    for column in definition.columns:
        have = old.get(column.name, {}).get("type")
        if have is not None and have != iceberg_type(column.arrow):
            raise Refused(
                f"column {column.name} cannot change its type",
                place=definition.name,
                found=str(have),
                expected=iceberg_type(column.arrow),
            )
    added = [c for c in definition.columns if c.name not in old]
    if not added:
        return None
    last = metadata["last-column-id"]
    new = {c.name: _field(i, c) | {"required": False} for i, c in enumerate(added, last + 1)}
    ordered = [old.get(name) or new[name] for name in definition.names]
    unknown = [f for name, f in old.items() if name not in definition.names]
    schema_id = max(s["schema-id"] for s in metadata["schemas"]) + 1
    schema = {"type": "struct", "schema-id": schema_id, "fields": ordered + unknown}
    return metadata | {
        "last-column-id": last + len(added),
        "schemas": [*metadata["schemas"], schema],
        "current-schema-id": schema_id,
        "properties": metadata["properties"] | _properties(definition),
    }


def buckets_of(metadata: Metadata) -> int:
    """Into how many buckets of symbols a day settles now; 0 for a table without days."""
    default = metadata["default-spec-id"]
    return next(of for of, (spec_id, _) in _settled(metadata).items() if spec_id == default)


def settled_spec(metadata: Metadata, of: int) -> tuple[int, str]:
    """Id of the table partition spec of that many buckets, and the name of its bucket's field."""
    return _settled(metadata)[of]


def _settled(metadata: Metadata) -> dict[int, tuple[int, str]]:
    found = {0: (FRESH_SPEC, "")}
    for spec in metadata["partition-specs"]:
        for field in spec["fields"]:
            if match := _BUCKETED.fullmatch(field["transform"]):
                found[int(match[1])] = (spec["spec-id"], field["name"])
    return found


def with_buckets(metadata: Metadata, of: int) -> Metadata:
    """The document by which days settle into that many buckets from now on; files stay."""
    if of in _settled(metadata):
        return metadata | {"default-spec-id": settled_spec(metadata, of)[0]}
    day, before = next(s for s in metadata["partition-specs"] if s["spec-id"] == 1)["fields"]
    spec_id = max(spec["spec-id"] for spec in metadata["partition-specs"]) + 1
    field_id = metadata["last-partition-id"] + 1
    changed = {"field-id": field_id, "name": f"{BUCKET}_{of}", "transform": f"bucket[{of}]"}
    spec = {"spec-id": spec_id, "fields": [day, before | changed]}
    return metadata | {
        "partition-specs": [*metadata["partition-specs"], spec],
        "default-spec-id": spec_id,
        "last-partition-id": field_id,
    }


def bucket_in(partition: Mapping[str, Any]) -> tuple[int, int] | None:
    """The bucket of a data file's partition: its number, and among how many; None without one."""
    for name, number in partition.items():
        if name.startswith(BUCKET) and number is not None:
            return number, int(name.removeprefix(BUCKET).lstrip("_") or BUCKETS)
    return None


def schema_of(metadata: Metadata) -> dict[str, Any]:
    """The current schema, as Iceberg's JSON."""
    current = metadata["current-schema-id"]
    return next(s for s in metadata["schemas"] if s["schema-id"] == current)


def field_ids(metadata: Metadata) -> dict[str, int]:
    """Iceberg's id of each column, by which files written under older schemas are read."""
    return {f["name"]: f["id"] for f in schema_of(metadata)["fields"]}


def current_snapshot(metadata: Metadata) -> dict[str, Any] | None:
    """The head of the main branch; None before the first commit."""
    head = metadata.get("current-snapshot-id")
    if head is None or head == -1:
        return None
    for snapshot in reversed(metadata["snapshots"]):
        if snapshot["snapshot-id"] == head:
            return dict(snapshot)
    raise Broken("the head of a table is not among its snapshots", place=metadata["location"])


def with_snapshot(
    metadata: Metadata,
    snapshot: Mapping[str, Any],
    properties: Mapping[str, str],
    expired: Collection[int],
) -> Metadata:
    """The document with one more snapshot as its head, and without the expired ones (ids)."""
    keep = [s for s in metadata["snapshots"] if s["snapshot-id"] not in expired]
    log = [e for e in metadata["snapshot-log"] if e["snapshot-id"] not in expired]
    entry = {"snapshot-id": snapshot["snapshot-id"], "timestamp-ms": snapshot["timestamp-ms"]}
    head = {"snapshot-id": snapshot["snapshot-id"], "type": "branch"}
    return metadata | {
        "last-sequence-number": snapshot["sequence-number"],
        "current-snapshot-id": snapshot["snapshot-id"],
        "snapshots": [*keep, dict(snapshot)],
        "snapshot-log": [*log, entry],
        "refs": metadata.get("refs", {}) | {"main": head},
        "properties": metadata["properties"] | properties,
    }


def succeed(old: Metadata, new: Metadata, location: str, now_ms: int) -> tuple[Metadata, list[str]]:
    """`new` as the successor of `old`, which stands at `location`; and the locations of older
    documents that nobody needs any more once it is the table's.
    """
    log = [
        *old.get("metadata-log", []),
        {"timestamp-ms": old["last-updated-ms"], "metadata-file": location},
    ]
    dropped = [entry["metadata-file"] for entry in log[:-METADATA_VERSIONS]]
    return new | {"last-updated-ms": now_ms, "metadata-log": log[-METADATA_VERSIONS:]}, dropped


def foreign_rewrites(metadata: Metadata) -> tuple[int, ...]:
    """Commits of other engines by which rows may have moved from file to file, ascending: the first
    that took files away, and all of theirs that followed.

    Which commit first brought rows that these wrote without a `commit_sequence`, nobody knows any
    more. Those found are kept in a property, since snapshots expire.
    """
    known = set(map(int, json.loads(metadata["properties"].get(FOREIGN, "[]"))))
    for snapshot in sorted(metadata["snapshots"], key=lambda s: int(s["sequence-number"])):
        summary = snapshot["summary"]
        took_away = int(summary.get("deleted-data-files", 0)) > 0
        if COMMIT_ID not in summary and (known or took_away):
            known.add(snapshot["sequence-number"])
    return tuple(sorted(known))


def _field(field_id: int, column: Column) -> dict[str, Any]:
    return {
        "id": field_id,
        "name": column.name,
        "required": column.required,
        "type": iceberg_type(column.arrow),
        "doc": column.doc,
    }


def _specs(definition: Definition, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    if not definition.partitioned:
        return [{"spec-id": FRESH_SPEC, "fields": []}]
    day = {
        "source-id": ids["exchange_date"],
        "field-id": 1000,
        "name": "exchange_date",
        "transform": "identity",
    }
    bucket = {
        "source-id": ids["symbol"],
        "field-id": 1001,
        "name": BUCKET,
        "transform": f"bucket[{BUCKETS}]",
    }
    return [
        {"spec-id": FRESH_SPEC, "fields": [day]},
        {"spec-id": 1, "fields": [day, bucket]},
    ]


def _orders(definition: Definition, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    fields = [
        {
            "source-id": ids[name],
            "transform": "identity",
            "direction": "asc",
            "null-order": "nulls-first",
        }
        for name in definition.order
    ]
    unsorted = {"order-id": 0, "fields": []}
    return [unsorted, {"order-id": 1, "fields": fields}] if fields else [unsorted]


def _properties(definition: Definition) -> dict[str, str]:
    """What other engines should keep to when they write; K2 itself does so anyway."""
    bounds = {f"write.metadata.metrics.column.{name}": "full" for name in definition.bounded}
    return {
        "comment": definition.doc,
        "commit.retry.num-retries": "0",
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": str(METADATA_VERSIONS),
        "write.parquet.compression-codec": "zstd",
        "write.metadata.metrics.default": "none",
        **bounds,
    }
