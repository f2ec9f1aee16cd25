"""What the codec must know of a schema, worked out once: how each field stands in the bytes.

Comes in: Avro JSON of a writer and of a reader. Goes out: `Field` and `Plan`. Raises `Refused`,
naming the field, for what cannot be handled in columns (maps, arrays, nested records, unions of
more than null and one type) or cannot be resolved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
import pyarrow as pa

from k2.errors import Refused
from k2.model.schema import to_arrow

_PRIMITIVES: Final = frozenset({"boolean", "int", "long", "bytes", "string"})


@dataclass(frozen=True)
class Field:
    """How one field stands in the bytes of a record.

    `form` is boolean, int, long, bytes, string, enum or decimal; `null_branch` the number of the
    union's null (None where the field is no union); `size` the bytes of a fixed decimal (None
    where a length precedes them); `symbols` those of an enum.
    """

    name: str
    form: str
    null_branch: int | None = None
    logical: str | None = None
    size: int | None = None
    precision: int = 0
    scale: int = 0
    symbols: tuple[str, ...] = ()
    enum_default: str | None = None

    @property
    def zero_bytes(self) -> int:
        """Bytes that the field takes at most where all of them are zero."""
        return 1 + (1 if self.size is None else self.size)

    def __str__(self) -> str:
        if self.form == "decimal":
            return f"decimal({self.precision},{self.scale})"
        return f"{self.form} {self.logical}" if self.logical else self.form


@dataclass(frozen=True)
class Step:
    """One field of the writer and the column of the reader that it becomes."""

    source: Field
    target: Field
    arrow: pa.DataType
    symbols: tuple[int, ...]
    """Writer's enum number to the reader's, -1 where the reader has neither symbol nor default."""


@dataclass(frozen=True)
class Plan:
    """How messages of a writer become columns of a reader: the writer's fields in order."""

    steps: tuple[Step, ...]
    defaults: Mapping[str, Any]
    zero_bytes: int
    """Bytes that a record of nothing but zeros can take."""


def fields_of(avro: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of a record schema (parsed JSON), in order. Raises `Refused`."""
    return _fields(_to_json(avro))


def plan_of(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> Plan:
    """Resolve a writer's schema with a reader's (both parsed JSON). Raises `Refused`."""
    return _plan(_to_json(writer), _to_json(reader))


def _to_json(avro: Mapping[str, Any]) -> bytes:
    # 5 us, and then the plan of a schema is found by its text, whoever parsed it.
    return orjson.dumps(avro, default=dict)


@lru_cache(maxsize=256)
def _fields(avro_json: bytes) -> tuple[Field, ...]:
    avro = orjson.loads(avro_json)
    if avro.get("type") != "record":
        raise Refused("only records can be encoded and decoded", found=str(avro.get("type")))
    named: dict[str, Mapping[str, Any]] = {}
    return tuple(_field(field["name"], field["type"], named) for field in avro["fields"])


def _field(name: str, avro: Any, named: dict[str, Mapping[str, Any]]) -> Field:
    null_branch = None
    if isinstance(avro, list):
        if len(avro) != 2 or avro.count("null") != 1:
            raise _unhandled(name, avro)
        null_branch = avro.index("null")
        avro = avro[1 - null_branch]
    if isinstance(avro, str):
        avro = named.get(avro, {"type": avro})
    if not isinstance(avro, Mapping):
        raise _unhandled(name, avro)
    if "name" in avro:
        named[avro["name"]] = avro
        named[f"{avro.get('namespace', 'k2')}.{avro['name']}"] = avro
    kind, logical = avro["type"], avro.get("logicalType")
    if logical == "decimal" and kind in ("fixed", "bytes"):
        size = avro["size"] if kind == "fixed" else None
        scale = avro.get("scale", 0)
        return Field(name, "decimal", null_branch, logical, size, avro["precision"], scale)
    if kind == "enum":
        symbols, default = tuple(avro["symbols"]), avro.get("default")
        return Field(name, "enum", null_branch, symbols=symbols, enum_default=default)
    if kind in _PRIMITIVES:
        return Field(name, kind, null_branch, logical)
    raise _unhandled(name, avro)


def _unhandled(name: str, avro: Any) -> Refused:
    return Refused(
        f"field {name!r} has a type that cannot be handled in columns",
        found=str(avro),
        expected="boolean, int, long, bytes, string, enum, decimal, or one of them or null",
    )


@lru_cache(maxsize=256)
def _plan(writer_json: bytes, reader_json: bytes) -> Plan:
    sources = _fields(writer_json)
    targets = {field.name: field for field in _fields(reader_json)}
    reader = orjson.loads(reader_json)
    defaults = {f["name"]: f["default"] for f in reader["fields"] if "default" in f}
    for field in sources:
        if field.name not in targets:
            raise Refused(
                f"the messages have a field {field.name!r} that this reader does not know",
                expected=", ".join(targets),
                hint="they were written by a newer schema: upgrade this reader, nothing is lost",
            )
    missing = targets.keys() - {field.name for field in sources} - defaults.keys()
    if missing:
        raise Refused(
            f"the messages lack {', '.join(sorted(missing))}, which has no default",
            hint="the writer's schema is not one that this kind of record ever had",
        )
    arrow = to_arrow(reader)
    steps = tuple(_step(s, targets[s.name], arrow.field(s.name).type) for s in sources)
    return Plan(steps, defaults, sum(field.zero_bytes for field in sources))


def _step(source: Field, target: Field, arrow: pa.DataType) -> Step:
    text = ("string", "bytes")
    same = (source.form, source.logical, source.precision, source.scale) == (
        target.form,
        target.logical,
        target.precision,
        target.scale,
    )
    plain = not source.logical and not target.logical
    widened = plain and (source.form, target.form) == ("int", "long")
    if not (same or widened or (source.form in text and target.form in text)):
        raise Refused(
            f"the messages' field {source.name!r} cannot be read as the reader's",
            found=str(source),
            expected=str(target),
        )
    return Step(source, target, arrow, tuple(_number_of(s, target) for s in source.symbols))


def _number_of(symbol: str, target: Field) -> int:
    if symbol not in target.symbols and target.enum_default is not None:
        symbol = target.enum_default
    return target.symbols.index(symbol) if symbol in target.symbols else -1
