"""Good messages: columns to bytes and back, with fastavro as the other side."""

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput, Refused
from k2.model import Schema, decode, encode, kinds, latest, to_arrow, versions
from tests.model.reference import Row, columns, raw, written

SCHEMAS = [schema for kind in kinds() for schema in versions(kind)]
NAMES = [f"{schema.kind}.v{schema.version}" for schema in SCHEMAS]


def schema_of(**fields: Any) -> Schema:
    """A schema made for one test; a field is its type, or a pair of type and default."""
    made = []
    for name, kind in fields.items():
        if isinstance(kind, tuple):
            made.append({"name": name, "type": kind[0], "default": kind[1]})
        else:
            made.append({"name": name, "type": kind})
    avro = {"type": "record", "name": "made", "fields": made}
    return Schema("made", 1, avro, to_arrow(avro))


def decimal(size: int | None = 8, precision: int = 18, scale: int = 8) -> dict[str, Any]:
    shape = {"type": "bytes"} if size is None else {"type": "fixed", "size": size, "name": "d"}
    return {**shape, "logicalType": "decimal", "precision": precision, "scale": scale}


@pytest.mark.parametrize("schema", SCHEMAS, ids=NAMES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_bytes_are_fastavros_and_columns_come_back(schema: Schema, data: st.DataObject) -> None:
    table = data.draw(columns(schema, data.draw(st.sampled_from([0, 1, 2, 9, 40]))))

    messages = encode(table, schema)
    assert messages.to_pylist() == written(raw(table, schema.avro), schema.avro)
    messages.validate(full=True)

    back = decode(messages, schema.avro, schema)
    assert back.errors == []
    assert back.kept.tolist() == list(range(table.num_rows))
    assert back.table.schema.equals(schema.arrow)
    back.table.validate(full=True)
    assert raw(back.table, schema.avro) == raw(table, schema.avro)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_slices_and_chunks_are_encoded_like_whole_tables(data: st.DataObject) -> None:
    schema = latest("trades")
    table = data.draw(columns(schema, 30))
    other = data.draw(columns(schema, 11))
    start = data.draw(st.integers(0, 30))
    cut = pa.concat_tables([table.slice(start, 9), other, table.slice(0, 3)])
    expected = written(raw(cut, schema.avro), schema.avro)

    assert encode(cut, schema).to_pylist() == expected
    messages = encode(table, schema)
    back = decode(messages.slice(start, 9), schema.avro, schema)
    assert raw(back.table, schema.avro) == raw(table.slice(start, 9), schema.avro)
    wide = messages.cast(pa.large_binary()).slice(start)
    back = decode(wide, schema.avro, schema)
    assert raw(back.table, schema.avro) == raw(table.slice(start), schema.avro)


@pytest.mark.parametrize("kind", ["trades", "quotes"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_first_version_is_read_as_the_second(kind: str, data: st.DataObject) -> None:
    old, new = versions(kind)
    table = data.draw(columns(old, 12))
    back = decode(encode(table, old), old.avro, new)
    assert back.table.schema.equals(new.arrow)
    assert raw(back.table.select(old.arrow.names), old.avro) == raw(table, old.avro)
    for name, default in new.defaults.items():
        assert back.table[name].to_pylist() == [default] * 12
    back.table.validate(full=True)


def test_many_rows_of_every_shape_survive() -> None:
    """Enough rows for every shortcut: constants, codes, words, and more than one block."""
    schema, count = latest("trades"), 150_003
    number = np.arange(count)
    texts = [f"id-{n % 1999}" * (n % 4) for n in range(count)]
    decimals = pa.array(
        [Decimal(n - 70_000).scaleb(-8) for n in range(count)], pa.decimal128(18, 8)
    )
    made = {
        "symbol": pa.array([f"S{n % 300}" for n in range(count)]).dictionary_encode(),
        "exchange": pa.array(["asx"] * count).dictionary_encode(),
        "timestamp": pa.array(number * 1_000_003 - 5_000, schema.arrow.field("timestamp").type),
        "price": decimals,
        "quantity": decimals,
        "ingestion_timestamp": pa.array(number, schema.arrow.field("timestamp").type),
        "trade_id": pa.array([None if n % 3 == 0 else t for n, t in enumerate(texts)]),
        "side": pa.array(["BUY", "SELL", "UNKNOWN"] * (count // 3)).dictionary_encode(),
        "price_forming": pa.array([n % 5 == 0 for n in range(count)]),
        "id_space": pa.array([""] * count).dictionary_encode(),
        "source_sequence": pa.array(number << (number % 62)),
        "timestamp_nanos": pa.array(number % 1000, pa.int32()),
        "vendor_data": pa.array([None if n % 7 else "{}" * (n % 90) for n in range(count)]),
    }
    arrays = [made.get(f.name, pa.nulls(count, f.type)) for f in schema.arrow]
    table = pa.Table.from_arrays(arrays, schema=schema.arrow)
    messages = encode(table, schema)
    sample = table.slice(65_500, 200)
    assert messages.slice(65_500, 200).to_pylist() == written(raw(sample, schema.avro), schema.avro)
    back = decode(messages, schema.avro, schema)
    assert back.errors == []
    for name in schema.arrow.names:
        plain_type = pa.string() if pa.types.is_dictionary(table[name].type) else table[name].type
        assert back.table[name].cast(plain_type).equals(table[name].cast(plain_type)), name


def test_the_writers_order_of_fields_and_branches_is_followed() -> None:
    writer = schema_of(
        b=["string", "null"],
        a=[{"type": "enum", "name": "e", "symbols": ["Y", "X", "NEW"]}, "null"],
        n="int",
    )
    reader = schema_of(
        n="long",
        a=["null", {"type": "enum", "name": "e", "symbols": ["X", "Y", "Z"], "default": "Z"}],
        b=["null", "string"],
        c=(["null", "bytes"], None),
        d=("bytes", "\u00ff"),
        e=("string", "none"),
        f=("boolean", True),
        g=("long", 7),
    )
    rows: list[Row] = [{"b": "x", "a": "X", "n": 3}, {"b": None, "a": "NEW", "n": -(2**31)}]
    rows += [{"b": "", "a": None, "n": 0}, {"b": "x", "a": "Y", "n": 1}]
    back = decode(pa.array(written(rows, writer.avro)), writer.avro, reader)
    assert back.errors == []
    defaults = {"c": None, "d": b"\xff", "e": "none", "f": True, "g": 7}
    enums: dict[str | None, str | None] = {"X": "X", "Y": "Y", "NEW": "Z", None: None}
    assert back.table.to_pylist() == [
        {"n": r["n"], "a": enums[r["a"]], "b": r["b"], **defaults} for r in rows
    ]
    columns_of_writer = pa.table(
        {
            "b": pa.array([r["b"] for r in rows]),
            "a": pa.array([r["a"] for r in rows]).dictionary_encode(),
            "n": pa.array([r["n"] for r in rows], pa.int32()),
        }
    )
    assert encode(columns_of_writer, writer).to_pylist() == written(rows, writer.avro)


@pytest.mark.parametrize("bits", range(64))
def test_numbers_of_every_length_alone_and_mixed(bits: int) -> None:
    schema = schema_of(a="long", b=["null", "long"], c=["long", "null"], s="string")
    edge = (1 << bits) - 1
    rows: list[Row] = [{"a": n, "b": n, "c": n, "s": "x"} for n in (edge, -edge - 1)] * 3
    rows += [{**row, "b": None} for row in rows]
    small: list[Row] = [{"a": 1, "b": None, "c": None, "s": ""}, {"a": 0, "b": 0, "c": 0, "s": "y"}]
    for some in (rows[:6], rows, [*rows, *small]):
        table = pa.Table.from_pylist(some, schema=schema.arrow)
        messages = encode(table, schema)
        assert messages.to_pylist() == written(some, schema.avro)
        assert decode(messages, schema.avro, schema).table.to_pylist() == some


def test_few_values_beside_many_are_combined() -> None:
    """A flag or a null's branch is one byte a row; times 300 it no longer fits one."""
    schema = schema_of(f="boolean", t="string", d=["null", decimal()], u="string")
    count = 30_000
    texts = pa.array([f"t{n % 300}" for n in range(count)])
    prices = pa.array([None if n % 2 else Decimal(n) for n in range(count)], pa.decimal128(18, 8))
    columns_ = {"f": pa.array([n % 3 == 0 for n in range(count)]), "t": texts}
    columns_ |= {"d": prices, "u": texts.slice(1).dictionary_encode()}
    columns_["u"] = pa.concat_arrays([columns_["u"], columns_["u"].slice(0, 1)])
    fields = [{**f, "dictionary": f["name"] in "tu"} for f in schema.avro["fields"]]
    avro = {**schema.avro, "fields": fields}
    coded = Schema("made", 1, avro, to_arrow(avro))
    table = pa.table(columns_)
    expected = written(raw(table, avro), avro)
    assert encode(table, coded).to_pylist() == expected
    assert encode(table, schema).to_pylist() == expected


@pytest.mark.parametrize("longest", [3, 8, 9, 16, 31, 32, 64, 200])
def test_repeated_texts_are_told_apart_and_kept_once(longest: int) -> None:
    """Also those that end in NUL, and those that differ only in the bytes that follow them."""
    texts = ["", "a", "a\0", "a\0\0", "\0", "b" * longest, "b" * (longest - 1) + "c"]
    fields = [{"name": "t", "type": "string", "dictionary": True}, {"name": "n", "type": "long"}]
    avro = {"type": "record", "name": "made", "fields": fields}
    schema = Schema("made", 1, avro, to_arrow(avro))
    column = pa.array(texts * 50).dictionary_encode()
    table = pa.table({"t": column, "n": pa.array(range(len(column)))})
    back = decode(encode(table, schema), avro, schema).table["t"].combine_chunks()
    assert back.to_pylist() == texts * 50
    assert sorted(back.dictionary.to_pylist()) == sorted(texts)


@pytest.mark.parametrize("size", [None, 1, 3, 8, 9, 16])
def test_decimals_of_any_length_are_read(size: int | None) -> None:
    reader = schema_of(price=decimal())
    writer = schema_of(price=decimal(size))
    most = min(10**18 - 1, 2 ** (8 * (size or 9) - 1) - 1)
    numbers = [0, 1, -1, 127, -128, most, -most]
    rows = []
    for number in numbers:
        length = size or (number.bit_length() // 8 + 1)
        rows.append({"price": number.to_bytes(length, "big", signed=True)})
    back = decode(pa.array(written(rows, writer.avro)), writer.avro, reader)
    assert back.errors == []
    assert back.table["price"].to_pylist() == [Decimal(n).scaleb(-8) for n in numbers]


def test_a_decimal_of_no_bytes_is_zero() -> None:
    """So fastavro reads it, and Avro does not forbid it."""
    writer, reader = schema_of(d=decimal(None), n="long"), schema_of(d=decimal(), n="long")
    back = decode(pa.array([b"\x00\xff\x01", b"\x02\xff\x01"]), writer.avro, reader)
    assert back.table.to_pylist() == [
        {"d": Decimal(0), "n": -128},
        {"d": Decimal(-1).scaleb(-8), "n": -1},
    ]


@pytest.mark.parametrize("size", [None, 8, 16])
def test_a_decimal_that_does_not_fit_is_reported(size: int | None) -> None:
    reader, writer = schema_of(price=decimal()), schema_of(price=decimal(size))
    rows = [{"price": n.to_bytes(size or 8, "big", signed=True)} for n in (5, 10**18, -(10**18))]
    if size == 16:
        rows.append({"price": (2**100).to_bytes(16, "big")})
    back = decode(pa.array(written(rows, writer.avro)), writer.avro, reader)
    assert back.kept.tolist() == [0]
    assert [i for i, _ in back.errors] == list(range(1, len(rows)))
    assert {why for _, why in back.errors} == {"price: does not fit decimal(18,8)"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"type": "map", "values": "string"}, "cannot be handled in columns"),
        ({"type": "array", "items": "string"}, "cannot be handled in columns"),
        ({"type": "record", "name": "r", "fields": []}, "cannot be handled in columns"),
        (["null", "string", "long"], "cannot be handled in columns"),
        (["string"], "cannot be handled in columns"),
        ("double", "cannot be handled in columns"),
        ({"type": "fixed", "name": "f", "size": 8}, "cannot be handled in columns"),
        ("long", "cannot be read as the reader's"),
        (decimal(precision=19), "cannot be read as the reader's"),
        (decimal(scale=6), "cannot be read as the reader's"),
    ],
)
def test_writers_that_cannot_be_read_are_refused(kind: Any, words: str) -> None:
    reader = schema_of(price=decimal())
    with pytest.raises(Refused, match=words) as caught:
        decode(pa.array([b"\0" * 8]), schema_of_json(price=kind), reader)
    assert "'price'" in caught.value.message


def schema_of_json(**fields: Any) -> dict[str, Any]:
    made = [{"name": name, "type": kind} for name, kind in fields.items()]
    return {"type": "record", "name": "made", "fields": made}


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ("int", "string"),
        ("long", "int"),
        ("long", {"type": "long", "logicalType": "timestamp-micros"}),
        ({"type": "long", "logicalType": "timestamp-millis"}, "long"),
        ("string", {"type": "enum", "name": "e", "symbols": ["A"]}),
    ],
)
def test_types_that_mean_something_else_are_refused(writer: Any, reader: Any) -> None:
    with pytest.raises(Refused, match="cannot be read as the reader's"):
        decode(pa.array([b"\0"]), schema_of_json(x=writer), schema_of(x=reader))


def test_a_field_that_the_reader_does_not_know_is_refused() -> None:
    old, new = versions("trades")
    with pytest.raises(Refused, match="'trade_id' that this reader does not know"):
        decode(pa.array([b""]), new.avro, old)


def test_a_field_without_a_default_must_be_there() -> None:
    reader = schema_of(a="long", b="long")
    with pytest.raises(Refused, match="lack b, which has no default"):
        decode(pa.array([b"\0"]), schema_of_json(a="long"), reader)


def test_a_schema_from_a_registry_is_the_same_schema() -> None:
    """Full names, and mappings that are no dicts, as other libraries have them."""
    schema = latest("trades")
    text = json.dumps(schema.avro).replace('"decimal_18_8"}', '"k2.decimal_18_8"}')
    again = json.loads(text)
    again["fields"][4]["type"] = "k2.decimal_18_8"
    table = schema.arrow.empty_table()
    assert decode(encode(table, schema), again, schema).table.num_rows == 0


def test_other_column_types_are_cast_and_others_refused() -> None:
    schema = schema_of(s="string", n="long", e={"type": "enum", "name": "e", "symbols": ["A"]})
    good = {
        "s": pa.array(["x", "x"]).dictionary_encode(),
        "n": pa.array([1, 2], pa.int8()),
        "e": pa.array(["A", "A"]),
    }
    assert encode(pa.table({**good, "more": [1, 2]}), schema).to_pylist() == [
        b"\x02x\x02\x00",
        b"\x02x\x04\x00",
    ]
    for name, wrong, words in [
        ("n", pa.array(["a", "b"]), "column 'n' has another type"),
        ("n", pa.array([1, None]), "column 'n' has 1 nulls"),
        ("e", pa.array(["A", "B"]), "column 'e' has a symbol that its enum lacks"),
        ("e", pa.DictionaryArray.from_arrays([0, 1], ["A", None]), "column 'e' has nulls"),
    ]:
        with pytest.raises(BadInput, match=words):
            encode(pa.table({**good, name: wrong}), schema)
    with pytest.raises(BadInput, match="there is no column 's'"):
        encode(pa.table({"n": [1]}), schema)
