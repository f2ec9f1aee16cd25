"""Iceberg's manifests and manifest lists, format v2, as dictionaries: bytes in, bytes out.

An entry is a data file with its partition and bounds; a manifest is a file of entries; a snapshot
is a list of manifests. https://iceberg.apache.org/spec/#manifests
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final, TypeAlias, cast

import fastavro

from k2.errors import Broken
from k2.lake.metadata import Metadata, schema_of

Entry: TypeAlias = dict[str, Any]
ManifestFile: TypeAlias = dict[str, Any]

EXISTING, ADDED, DELETED = 0, 1, 2
EPOCH: Final = date(1970, 1, 1)


def _field(field_id: int, name: str, kind: object, *, optional: bool = False) -> dict[str, Any]:
    if not optional:
        return {"name": name, "type": kind, "field-id": field_id}
    return {"name": name, "type": ["null", kind], "default": None, "field-id": field_id}


def _map(key_id: int, value_id: int, value: str) -> dict[str, Any]:
    """Iceberg's map from int: Avro's own maps have text keys only."""
    fields = [_field(key_id, "key", "int"), _field(value_id, "value", value)]
    item = {"type": "record", "name": f"k{key_id}_v{value_id}", "fields": fields}
    return {"type": "array", "logicalType": "map", "items": item}


def _list(element_id: int, element: str) -> dict[str, Any]:
    return {"type": "array", "items": element, "element-id": element_id}


def _entry_schema(spec: Mapping[str, Any], types: Mapping[int, object]) -> Any:
    partition = {
        "type": "record",
        "name": "r102",
        "fields": [
            _field(f["field-id"], f["name"], types[f["field-id"]], optional=True)
            for f in spec["fields"]
        ],
    }
    data_file = {
        "type": "record",
        "name": "r2",
        "fields": [
            _field(134, "content", "int"),
            _field(100, "file_path", "string"),
            _field(101, "file_format", "string"),
            _field(102, "partition", partition),
            _field(103, "record_count", "long"),
            _field(104, "file_size_in_bytes", "long"),
            _field(108, "column_sizes", _map(117, 118, "long"), optional=True),
            _field(109, "value_counts", _map(119, 120, "long"), optional=True),
            _field(110, "null_value_counts", _map(121, 122, "long"), optional=True),
            _field(137, "nan_value_counts", _map(138, 139, "long"), optional=True),
            _field(125, "lower_bounds", _map(126, 127, "bytes"), optional=True),
            _field(128, "upper_bounds", _map(129, 130, "bytes"), optional=True),
            _field(131, "key_metadata", "bytes", optional=True),
            _field(132, "split_offsets", _list(133, "long"), optional=True),
            _field(135, "equality_ids", _list(136, "int"), optional=True),
            _field(140, "sort_order_id", "int", optional=True),
        ],
    }
    return fastavro.parse_schema(
        {
            "type": "record",
            "name": "manifest_entry",
            "fields": [
                _field(0, "status", "int"),
                _field(1, "snapshot_id", "long", optional=True),
                _field(3, "sequence_number", "long", optional=True),
                _field(4, "file_sequence_number", "long", optional=True),
                _field(2, "data_file", data_file),
            ],
        }
    )


_SUMMARY: Final = {
    "type": "record",
    "name": "r508",
    "fields": [
        _field(509, "contains_null", "boolean"),
        _field(518, "contains_nan", "boolean", optional=True),
        _field(510, "lower_bound", "bytes", optional=True),
        _field(511, "upper_bound", "bytes", optional=True),
    ],
}

_LIST_SCHEMA: Final = fastavro.parse_schema(
    {
        "type": "record",
        "name": "manifest_file",
        "fields": [
            _field(500, "manifest_path", "string"),
            _field(501, "manifest_length", "long"),
            _field(502, "partition_spec_id", "int"),
            _field(517, "content", "int"),
            _field(515, "sequence_number", "long"),
            _field(516, "min_sequence_number", "long"),
            _field(503, "added_snapshot_id", "long"),
            _field(504, "added_files_count", "int"),
            _field(505, "existing_files_count", "int"),
            _field(506, "deleted_files_count", "int"),
            _field(512, "added_rows_count", "long"),
            _field(513, "existing_rows_count", "long"),
            _field(514, "deleted_rows_count", "long"),
            _field(
                507,
                "partitions",
                {"type": "array", "items": _SUMMARY, "element-id": 508},
                optional=True,
            ),
            _field(519, "key_metadata", "bytes", optional=True),
        ],
    }
)


class ManifestFormat:
    """How manifests of one table partition spec are written: its Avro schema, parsed once."""

    def __init__(self, metadata: Metadata, spec_id: int) -> None:
        spec = next(s for s in metadata["partition-specs"] if s["spec-id"] == spec_id)
        schema = schema_of(metadata)
        date_type = {"type": "int", "logicalType": "date"}
        types = {
            f["field-id"]: date_type if f["transform"] == "identity" else "int"
            for f in spec["fields"]
        }
        self.spec_id = spec_id
        self._names = [f["name"] for f in spec["fields"]]
        self._schema = _entry_schema(spec, types)
        self._header = {
            "schema": json.dumps(schema, separators=(",", ":")),
            "schema-id": str(schema["schema-id"]),
            "partition-spec": json.dumps(spec["fields"], separators=(",", ":")),
            "partition-spec-id": str(spec_id),
            "format-version": "2",
            "content": "data",
        }

    def to_bytes(self, entries: Sequence[Entry]) -> bytes:
        """The entries as an Avro file."""
        out = io.BytesIO()
        fastavro.writer(out, self._schema, entries, codec="deflate", metadata=self._header)
        return out.getvalue()

    def describe(
        self, path: str, size_bytes: int, snapshot_id: int, sequence: int, entries: Sequence[Entry]
    ) -> ManifestFile:
        """Its line in the manifest list of the commit `sequence` that wrote it."""
        count = {EXISTING: 0, ADDED: 0, DELETED: 0}
        rows = dict(count)
        oldest = sequence
        for entry in entries:
            count[entry["status"]] += 1
            rows[entry["status"]] += entry["data_file"]["record_count"]
            own = entry["sequence_number"]
            if entry["status"] != DELETED and own is not None and own < oldest:
                oldest = own
        return {
            "manifest_path": path,
            "manifest_length": size_bytes,
            "partition_spec_id": self.spec_id,
            "content": 0,
            "sequence_number": sequence,
            "min_sequence_number": oldest,
            "added_snapshot_id": snapshot_id,
            "added_files_count": count[ADDED],
            "existing_files_count": count[EXISTING],
            "deleted_files_count": count[DELETED],
            "added_rows_count": rows[ADDED],
            "existing_rows_count": rows[EXISTING],
            "deleted_rows_count": rows[DELETED],
            "partitions": [self._range(name, entries) for name in self._names],
            "key_metadata": None,
        }

    def _range(self, name: str, entries: Sequence[Entry]) -> dict[str, Any]:
        values = [_to_int(entry["data_file"]["partition"][name]) for entry in entries]
        known = [v for v in values if v is not None]
        return {
            "contains_null": len(known) < len(values),
            "contains_nan": False,
            "lower_bound": _four_bytes(min(known)) if known else None,
            "upper_bound": _four_bytes(max(known)) if known else None,
        }


def _to_int(value: date | int | None) -> int | None:
    return (value - EPOCH).days if isinstance(value, date) else value


def _four_bytes(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


def added(snapshot_id: int, data_file: Mapping[str, Any]) -> Entry:
    """An entry for a file that this commit adds: its sequence number is the manifest's."""
    return {
        "status": ADDED,
        "snapshot_id": snapshot_id,
        "sequence_number": None,
        "file_sequence_number": None,
        "data_file": data_file,
    }


def live(raw: bytes, manifest: ManifestFile) -> list[Entry]:
    """The manifest's files that are still part of the table, each with its sequence number."""
    entries = []
    for entry in _records(raw):
        if entry["status"] == DELETED:
            continue
        for name in ("sequence_number", "file_sequence_number"):
            if entry[name] is None:
                entry[name] = manifest["sequence_number"]
        if entry["snapshot_id"] is None:
            entry["snapshot_id"] = manifest["added_snapshot_id"]
        entries.append(entry)
    return entries


def list_to_bytes(
    manifests: Iterable[ManifestFile], snapshot_id: int, parent_id: int | None, sequence: int
) -> bytes:
    """A snapshot's manifest list as an Avro file."""
    header = {
        "snapshot-id": str(snapshot_id),
        "parent-snapshot-id": "null" if parent_id is None else str(parent_id),
        "sequence-number": str(sequence),
        "format-version": "2",
    }
    out = io.BytesIO()
    fastavro.writer(out, _LIST_SCHEMA, manifests, codec="deflate", metadata=header)
    return out.getvalue()


def list_from_bytes(raw: bytes, place: str) -> list[ManifestFile]:
    """The manifests of a snapshot. Raises `Broken` for one of deleted rows: K2 only ever adds."""
    manifests = _records(raw)
    if any(m["content"] != 0 for m in manifests):
        raise Broken("another engine deleted rows of a table that only grows", place=place)
    return manifests


def _records(raw: bytes) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], list(fastavro.reader(io.BytesIO(raw))))


def day_of(days: int) -> date:
    """The date of a number of days since 1970-01-01."""
    return EPOCH + timedelta(days=days)
