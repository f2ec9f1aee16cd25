"""Broken messages: the verdict on each is that of reading it alone, and neighbours never notice.

K2 is stricter than fastavro in four things, which are all that the two may differ in: a boolean is
0 or 1, the number of a branch or symbol is not negative, an int has 32 bits, and a varint at most
64 bits in ten bytes. Overlong varints within ten bytes are taken by both.
"""

from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.model import Schema, decode, encode, latest, versions
from tests.model.reference import columns, lenient, parse, raw, strict, written
from tests.model.test_codec import NAMES, SCHEMAS, schema_of


def judge(messages: list[bytes], schema: Schema) -> None:
    """Decode all at once, and hold each verdict against reading that message alone."""
    found = decode(pa.array(messages, pa.binary()), schema.avro, schema)
    found.table.validate(full=True)
    rows = dict(zip(found.kept.tolist(), raw(found.table, schema.avro), strict=True))
    errors = dict(found.errors)
    parsed = parse(schema.avro)
    assert sorted([*rows, *errors]) == list(range(len(messages)))
    for number, message in enumerate(messages):
        expected = strict(message, schema.avro)
        assert rows.get(number) == expected, (number, message, errors.get(number))
        if expected is not None:
            assert lenient(message, parsed) == expected


def good(schema: Schema, data: st.DataObject, count: int) -> list[bytes]:
    found: list[bytes] = encode(data.draw(columns(schema, count)), schema).to_pylist()
    return found


@pytest.mark.parametrize("schema", SCHEMAS, ids=NAMES)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_cut_anywhere(schema: Schema, data: st.DataObject) -> None:
    first, message, last = good(schema, data, 3)
    cuts = [message[:size] for size in range(len(message))]
    judge([first, *cuts, message, last], schema)
    for cut in cuts[::17]:
        assert len(decode(pa.array([first, cut, last]), schema.avro, schema).errors) == 1


@pytest.mark.parametrize("schema", SCHEMAS, ids=NAMES)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), share=st.sampled_from([0.02, 0.3, 1.0]))
def test_any_change_to_any_byte(
    schema: Schema, data: st.DataObject, seed: int, share: float
) -> None:
    chance = Random(seed)
    messages = good(schema, data, 120)
    judge([_changed(m, chance) if chance.random() < share else m for m in messages], schema)


def _changed(message: bytes, chance: Random) -> bytes:
    """The message with one to three bytes set, inserted or deleted."""
    changed = bytearray(message)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(changed) + 1)
        byte = chance.choice([0, 1, 2, 3, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        match chance.choice(["set", "insert", "delete"]):
            case "insert":
                changed.insert(place, byte)
            case "set":
                changed[place : place + 1] = bytes([byte])
            case _:
                del changed[place : place + 1]
    return bytes(changed)


@pytest.mark.parametrize("schema", SCHEMAS, ids=NAMES)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_longer_and_glued(schema: Schema, data: st.DataObject) -> None:
    first, second, third = good(schema, data, 3)
    tail = data.draw(st.binary(min_size=1, max_size=12))
    judge([first, second + tail, first + second, third, b"", third + third], schema)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_noise(messages: list[bytes]) -> None:
    judge(messages, versions("trades")[0])
    judge(messages, schema_of(a="long", b=["null", "int"], c=["string", "null"], d="boolean"))


def test_a_record_split_in_two_neither_fakes_nor_swallows_one() -> None:
    """The fault of reading all as one block: one message's rest is the next one's beginning."""
    schema = versions("trades")[0]
    row = {"symbol": "A", "exchange": "x", "timestamp": 1, "price": b"\0" * 8}
    row |= {"quantity": b"\0" * 8, "ingestion_timestamp": 2}
    (message,) = written([row], schema.avro)
    found = decode(pa.array([message, message[:9], message[9:], message]), schema.avro, schema)
    assert found.kept.tolist() == [0, 3]
    assert found.errors[0] == (1, "price: the message ends inside it")


LONG_9, LONG_10 = b"\xff" * 8 + b"\x7f", b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    ("kind", "message", "why"),
    [
        ("boolean", b"\x02", "x: is neither true nor false"),
        ("string", b"\x01", "x: its length is negative"),
        ("string", LONG_10, "x: its length is negative"),
        ("string", b"\xfe" + b"\xff" * 8 + b"\x01", "x: the message ends inside it"),
        ("string", b"\x06ab", "x: the message ends inside it"),
        ("string", b"\x04\xff\xfe", "x: is not UTF-8"),
        ("string", b"\x06\xed\xa0\x80", "x: is not UTF-8"),
        ("int", b"\x80\x80\x80\x80\x10", "x: does not fit 32 bits"),
        ("long", b"\xff" * 9 + b"\x02", "x: a number of more than 64 bits"),
        ("long", b"\x80" * 10 + b"\x00", "x: a number of more than 64 bits"),
        ("long", b"\x80", "x: the message ends inside it"),
        ("long", b"", "x: the message ends inside it"),
        ("long", b"\x00\x00\x00", "2 bytes are left over after the last field"),
        (["null", "long"], b"\x04\x00", "x: no such branch of the union"),
        (["null", "long"], b"\x01\x00", "x: no such branch of the union"),
        (["null", "long"], b"\x02", "x: the message ends inside it"),
        ({"type": "enum", "name": "e", "symbols": ["A"]}, b"\x02", "x: no such symbol of the enum"),
        ({"type": "enum", "name": "e", "symbols": ["A"]}, b"\x01", "x: no such symbol of the enum"),
    ],
)
def test_the_reason_names_the_field(kind: Any, message: bytes, why: str) -> None:
    """Between two good messages, so that the bytes that are missing lie right behind."""
    schema = schema_of(x=kind)
    good_ones = {"string": b"\x02a", "long": LONG_9, "int": b"\x03", "boolean": b"\x01"}
    neighbour = good_ones.get(kind, b"\0") if isinstance(kind, str) else b"\0"
    if isinstance(kind, str) and kind == "string":
        # A dictionary column goes another way.
        avro = {**schema.avro, "fields": [{"name": "x", "type": kind, "dictionary": True}]}
        coded = decode(
            pa.array([neighbour, message, neighbour]), avro, Schema("x", 1, avro, schema.arrow)
        )
        assert coded.errors == [(1, why)]
    found = decode(pa.array([neighbour, message, neighbour]), schema.avro, schema)
    assert found.errors == [(1, why)]
    assert found.kept.tolist() == [0, 2]
    assert len(found.table) == 2


def test_overlong_numbers_are_taken() -> None:
    """Avro does not forbid them; fastavro takes them too."""
    schema = schema_of(x=["null", "string"], y="long")
    messages = [b"\x82\x80\x00\x82\x00a\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00", b"\x00\x02"]
    found = decode(pa.array(messages), schema.avro, schema)
    assert found.errors == []
    assert found.table.to_pylist() == [{"x": "a", "y": -1}, {"x": None, "y": 1}]
    judge(messages, schema)


def test_what_fastavro_takes_and_k2_does_not() -> None:
    enum = {"type": "enum", "name": "e", "symbols": ["A", "B"]}
    for kind, message in [
        ("boolean", b"\x02"),
        (["null", "long"], b"\x03"),
        (enum, b"\x01"),
        ("int", b"\x80\x80\x80\x80\x10"),
        ("long", b"\xff" * 9 + b"\x7f"),
        ("long", b"\x80" * 11 + b"\x00"),
    ]:
        schema = schema_of(x=kind)
        assert lenient(message, parse(schema.avro)) is not None
        judge([message], schema)


def test_null_where_none_may_be_breaks_the_record() -> None:
    reader, writer = schema_of(x="long"), schema_of(x=["null", "long"])
    found = decode(pa.array([b"\x00", b"\x02\x04"]), writer.avro, reader)
    assert found.errors == [(0, "x: is null, and may not be")]
    assert found.table.to_pylist() == [{"x": 2}]


def test_an_unknown_symbol_without_default_breaks_the_record() -> None:
    writer = schema_of(x=["null", {"type": "enum", "name": "e", "symbols": ["B", "A"]}])
    reader = schema_of(x=["null", {"type": "enum", "name": "e", "symbols": ["A"]}])
    found = decode(pa.array([b"\x02\x00", b"\x02\x02", b"\x00"]), writer.avro, reader)
    assert found.errors == [(0, "x: a symbol that this reader does not know")]
    assert found.table.to_pylist() == [{"x": "A"}, {"x": None}]


def test_a_message_without_a_value_is_reported() -> None:
    schema = schema_of(x="long")
    found = decode(pa.array([b"\x02", None, b"\x04"]), schema.avro, schema)
    assert found.errors == [(1, "message: has no value")]
    assert found.table["x"].to_pylist() == [1, 2]


@pytest.mark.parametrize("size", [8, 500])
def test_a_broken_message_is_not_read_past_the_end_of_all(size: int) -> None:
    """It stands among zeros from then on: else 30 fields would lead it out of the buffer."""
    first = {"type": "fixed", "size": size, "name": "d", "logicalType": "decimal"}
    first |= {"precision": 18, "scale": 8}
    schema = schema_of(a=first, **{f"d{n}": "d" for n in range(30)}, s="string")
    whole = bytes(31 * size) + b"\x02x"
    found = decode(pa.array([b"", whole, whole[:-2], b""]), schema.avro, schema)
    assert found.kept.tolist() == [1]
    assert dict(found.errors)[2] == "s: the message ends inside it"
    assert dict(found.errors)[3] == "a: the message ends inside it"


def test_all_broken() -> None:
    schema = latest("trades")
    found = decode(pa.array([b"", b"\xff" * 300, b"x"]), schema.avro, schema)
    assert len(found.errors) == 3
    assert found.table.schema.equals(schema.arrow)
    assert found.table.num_rows == 0
