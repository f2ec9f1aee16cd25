"""What the codec must know of each field of an Avro record schema, worked out once a schema.

Comes in: parsed Avro JSON. Goes out: one `Field` a field, in the order of the bytes. Raises
`Refused`, naming the field, for types that cannot be handled in columns (maps, arrays, nested
records, unions of more than null and one type).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from k2.errors import Refused

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
    def least_bytes(self) -> int:
        """Bytes that the field takes where all of them are zero, at most."""
        return 1 + (1 if self.size is None else self.size)


def fields_of(avro: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of a record schema (parsed JSON), in order.

    Raises `Refused`, naming the field, for a type that cannot be handled in columns.
    """
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
