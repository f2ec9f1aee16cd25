"""A second opinion on Avro: fastavro, and a plain reader of one message that is as strict as K2."""

import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import fastavro
import pyarrow as pa
from hypothesis import strategies as st

from k2.model import Schema

Row = dict[str, Any]


def plain(avro: Any) -> Any:
    """The schema without logical types: fastavro then gives raw numbers, which never fail."""
    if isinstance(avro, Mapping):
        return {k: plain(v) for k, v in avro.items() if k != "logicalType"}
    return [plain(a) for a in avro] if isinstance(avro, list) else avro


def parse(avro: Any) -> Any:
    """The schema as fastavro wants it, for raw values."""
    return fastavro.parse_schema(plain(avro))


def written(rows: Sequence[Row], avro: Any) -> list[bytes]:
    """Each row (raw values) as fastavro writes it."""
    parsed = parse(avro)
    out = []
    for row in rows:
        sink = io.BytesIO()
        fastavro.schemaless_writer(sink, parsed, row, strict=True)
        out.append(sink.getvalue())
    return out


def raw(table: pa.Table, avro: Any) -> list[Row]:
    """A table's rows as raw Avro values: integers for times and dates, bytes for decimals."""
    types = {f["name"]: str(f["type"]) for f in avro["fields"]}
    integers = table
    for number, field in enumerate(table.schema):
        width = {"timestamp[us, tz=UTC]": pa.int64(), "date32[day]": pa.int32()}
        if kind := width.get(str(field.type)):
            integers = integers.set_column(number, field.name, table[field.name].cast(kind))

    def value(name: str, found: Any) -> Any:
        if isinstance(found, Decimal):
            size = 9 if "bytes" in types[name] else 8
            return int(found.scaleb(8)).to_bytes(size, "big", signed=True)
        return found

    return [{k: value(k, v) for k, v in row.items()} for row in integers.to_pylist()]


class Bad(Exception):
    """The message breaks a rule."""


class Walk:
    """Reads one message by Avro's rules and K2's own, byte by byte."""

    def __init__(self, message: bytes) -> None:
        self.rest = message

    def take(self, count: int) -> bytes:
        if count < 0 or count > len(self.rest):
            raise Bad
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def number(self, bits: int = 64) -> int:
        value = 0
        for place in range(10):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if value >= 1 << 64:
                    raise Bad
                value = (value >> 1) ^ -(value & 1)
                if not -(1 << bits - 1) <= value < 1 << bits - 1:
                    raise Bad
                return value
        raise Bad

    def value(self, avro: Any, named: dict[str, Any]) -> Any:
        if isinstance(avro, list):
            branch = self.number()
            if not 0 <= branch < len(avro):
                raise Bad
            return self.value(avro[branch], named)
        avro = named.get(avro, {"type": avro}) if isinstance(avro, str) else avro
        if avro.get("logicalType") == "decimal":
            size = avro["size"] if avro["type"] == "fixed" else self.number()
            taken = self.take(size)
            if abs(int.from_bytes(taken, "big", signed=True)) >= 10**18:
                raise Bad
            return taken
        match avro["type"]:
            case "null":
                return None
            case "boolean":
                (byte,) = self.take(1)
                if byte > 1:
                    raise Bad
                return bool(byte)
            case "int":
                return self.number(32)
            case "long":
                return self.number()
            case "bytes":
                return self.take(self.number())
            case "string":
                try:
                    return self.take(self.number()).decode()
                except UnicodeDecodeError as error:
                    raise Bad from error
            case "enum":
                number = self.number()
                if not 0 <= number < len(avro["symbols"]):
                    raise Bad
                return avro["symbols"][number]
        raise AssertionError(avro)


def strict(message: bytes, avro: Any) -> Row | None:
    """The message's raw values, None where it is broken."""
    walk = Walk(message)
    types = [
        b
        for f in avro["fields"]
        for b in (f["type"] if isinstance(f["type"], list) else [f["type"]])
    ]
    named = {b["name"]: b for b in types if "name" in b and isinstance(b, Mapping)}
    try:
        row = {f["name"]: walk.value(f["type"], named) for f in avro["fields"]}
    except Bad:
        return None
    return None if walk.rest else row


def lenient(message: bytes, parsed: Any) -> Row | None:
    """What fastavro makes of the message, None where it raises or leaves bytes over."""
    source = io.BytesIO(message)
    try:
        row = fastavro.schemaless_reader(source, parsed, None)
    except (EOFError, IndexError, UnicodeDecodeError):
        return None
    assert isinstance(row, dict)
    return None if source.read(1) else row


TEXTS = st.one_of(
    st.sampled_from(["", "A", "a\0", "a", "BTCUSDT", "ETHUSDT", "Ünïcödé ✓", "x" * 63, "y" * 64]),
    st.text(max_size=20),
    st.text(alphabet="ab", min_size=30, max_size=80),
)
MICROS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(1_300_000_000_000_000, 1_900_000_000_000_000)
)


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of a column, extremes among them."""
    if pa.types.is_timestamp(kind) or pa.types.is_int64(kind):
        return MICROS | st.integers(-70, 70)
    if pa.types.is_int32(kind) or pa.types.is_date32(kind):
        return st.integers(-(2**31), 2**31 - 1) | st.integers(-70, 70)
    if pa.types.is_decimal(kind):
        most = 10**18 - 1
        return st.one_of(st.integers(-most, most), st.sampled_from([0, 1, -1, most, -most])).map(
            lambda unscaled: Decimal(unscaled).scaleb(-8)
        )
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_binary(kind):
        return st.binary(max_size=100)
    return TEXTS


def columns(schema: Schema, count: int) -> st.SearchStrategy[pa.Table]:
    """Tables of `count` rows in the schema's columns."""

    @st.composite
    def table(draw: st.DrawFn) -> pa.Table:
        arrays = []
        dealer = Random(draw(st.integers(0, 2**32)))
        for field, avro in zip(schema.arrow, schema.avro["fields"], strict=True):
            symbols = _symbols(avro["type"])
            one = st.sampled_from(symbols) if symbols else values(field.type)
            if field.nullable:
                shape = draw(st.sampled_from(["all", "none", "some"]))
                one = {"all": one, "none": st.none(), "some": st.none() | one}[shape]
            # A few values, dealt out by chance: drawing each by itself takes far longer.
            pool = draw(st.lists(one, min_size=1, max_size=6))
            found = [dealer.choice(pool) for _ in range(count)]
            if pa.types.is_dictionary(field.type):
                arrays.append(pa.array(found, pa.string()).dictionary_encode())
            else:
                arrays.append(pa.array(found, field.type))
        return pa.Table.from_arrays(arrays, schema=schema.arrow)

    return table()


def _branches(avro: Any) -> list[Any]:
    return avro if isinstance(avro, list) else [avro]


def _symbols(avro: Any) -> list[str]:
    return [s for b in _branches(avro) if isinstance(b, Mapping) for s in b.get("symbols", [])]
