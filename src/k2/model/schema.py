"""The kinds of record, from their `.avsc` files: one Avro schema a version, everything else
derived.

Comes in: `<kind>.v<version>.avsc` beside this file. Goes out: `Schema` with the Avro JSON and the
Arrow
columns. A field marked `"dictionary": true` repeats few values, and so does an enum: both are
dictionary columns in Arrow.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import pyarrow as pa

from k2.errors import NotFound

PRICE_TYPE: Final = pa.decimal128(18, 8)
TIMESTAMP_TYPE: Final = pa.timestamp("us", tz="UTC")
DICTIONARY_TYPE: Final = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Schema:
    """One version of one kind of record.

    `avro` is the parsed `.avsc`; `arrow` has the same fields in the same order: timestamps are
    `timestamp[us, UTC]`, decimals `decimal128(18, 8)`, dates `date32`.
    """

    kind: str
    version: int
    avro: Mapping[str, Any]
    arrow: pa.Schema

    @property
    def defaults(self) -> Mapping[str, object]:
        """Default of each field that has one."""
        return {f["name"]: f["default"] for f in self.avro["fields"] if "default" in f}


@cache
def _versions() -> Mapping[str, tuple[Schema, ...]]:
    found: dict[str, dict[int, Schema]] = {}
    for entry in files("k2.model").iterdir():
        if match := re.fullmatch(r"([a-z]+)\.v(\d+)\.avsc", entry.name):
            kind, version = match[1], int(match[2])
            avro = json.loads(entry.read_text("utf-8"))
            found.setdefault(kind, {})[version] = Schema(kind, version, avro, to_arrow(avro))
    return {kind: tuple(v[n] for n in sorted(v)) for kind, v in sorted(found.items())}


def kinds() -> tuple[str, ...]:
    """Names of all kinds of record, sorted."""
    return tuple(_versions())


def versions(kind: str) -> tuple[Schema, ...]:
    """All versions of a kind, oldest first. Raises `NotFound` for an unknown kind."""
    if kind not in _versions():
        raise NotFound(f"there is no kind of record called {kind!r}", expected=", ".join(kinds()))
    return _versions()[kind]


def latest(kind: str) -> Schema:
    """The newest version of a kind. Raises `NotFound` for an unknown kind."""
    return versions(kind)[-1]


def to_arrow(avro: Mapping[str, Any]) -> pa.Schema:
    """The Arrow schema of an Avro record schema (parsed JSON)."""
    named: dict[str, Any] = {}
    return pa.schema([_to_arrow_field(field, named) for field in avro["fields"]])


def _to_arrow_field(field: Mapping[str, Any], named: dict[str, Any]) -> pa.Field:
    branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
    nullable = "null" in branches
    (plain,) = (b for b in branches if b != "null")
    kind = _to_arrow_type(plain, named)
    if field.get("dictionary"):
        kind = DICTIONARY_TYPE
    return pa.field(field["name"], kind, nullable=nullable)


def _to_arrow_type(avro: Any, named: dict[str, Any]) -> pa.DataType:
    if isinstance(avro, str):
        if avro in named:
            return _to_arrow_type(named[avro], named)
        return _PRIMITIVE[avro]
    if "name" in avro:
        named[avro["name"]] = avro
    match avro.get("logicalType"):
        case "timestamp-micros":
            return TIMESTAMP_TYPE
        case "date":
            return pa.date32()
        case "decimal":
            return pa.decimal128(avro["precision"], avro["scale"])
    if avro["type"] == "enum":
        return DICTIONARY_TYPE
    return _PRIMITIVE[avro["type"]]


_PRIMITIVE: Final[Mapping[str, pa.DataType]] = {
    "string": pa.string(),
    "bytes": pa.binary(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
}
