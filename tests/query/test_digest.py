"""The content's hash: as its definition says, whatever the rows are split and encoded like."""

import hashlib
import json
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.query import digest
from k2.query.digest import Digest, digest_of, fields_of, to_schema

SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("price", pa.decimal128(18, 8)),
        ("volume", pa.decimal128(38, 8)),
        ("exchange_date", pa.date32()),
        ("nanos", pa.int32()),
        ("sequence", pa.int64()),
        ("forming", pa.bool_()),
        ("raw", pa.binary()),
    ]
)
DAWN = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = datetime(1900, 1, 1, tzinfo=UTC).replace(tzinfo=None)
LAST = datetime(2100, 1, 1, tzinfo=UTC).replace(tzinfo=None)
Row = tuple[Any, ...]


def plainly(rows: Sequence[Row], schema: pa.Schema, chunk: int) -> str:
    """The hash once more, value by value, as docs/evidence.md defines it."""
    told = [[field.name, NAMES[field.type]] for field in schema]
    header = json.dumps({"k2-rows": 1, "columns": told}, separators=(",", ":")).encode()
    made = bytearray(struct.pack("<I", len(header)) + header)
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        made += struct.pack("<I", len(part))
        for at, field in enumerate(schema):
            values = [row[at] for row in part]
            bits = sum(1 << n for n, value in enumerate(values) if value is not None)
            made += bits.to_bytes((len(values) + 7) // 8, "little")
            made += of_values(values, NAMES[field.type])
    made += struct.pack("<IQ", 0, len(rows))
    return hashlib.sha256(made).hexdigest()


NAMES = {
    pa.string(): "string",
    pa.timestamp("us", "UTC"): "timestamp",
    pa.decimal128(18, 8): "decimal(18,8)",
    pa.decimal128(38, 8): "decimal(38,8)",
    pa.date32(): "date",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.bool_(): "bool",
    pa.binary(): "binary",
}


def of_values(values: Sequence[Any], kind: str) -> bytes:
    if kind in ("string", "binary"):
        texts = [b"" if v is None else v.encode() if kind == "string" else v for v in values]
        lengths = b"".join(struct.pack("<I", len(text)) for text in texts)
        return lengths + b"".join(texts)
    widths = {"int32": 4, "date": 4, "int64": 8, "timestamp": 8, "bool": 1}
    width = widths.get(kind, 16)
    return b"".join(number(value).to_bytes(width, "little", signed=True) for value in values)


def number(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, datetime):
        return (value - DAWN) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value - DAWN.date()).days
    return int(value.scaleb(8)) if isinstance(value, Decimal) else int(value)


def decimals(digits: int) -> st.SearchStrategy[Decimal]:
    most = 10**digits - 1
    return st.integers(-most, most).map(lambda unscaled: Decimal(unscaled).scaleb(-8))


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


ROWS = st.lists(
    st.tuples(
        maybe(st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
        maybe(st.datetimes(FIRST, LAST, timezones=st.just(UTC))),
        maybe(decimals(18)),
        maybe(decimals(28)),
        maybe(st.dates(date(1900, 1, 1), date(2100, 1, 1))),
        maybe(st.integers(-(2**31), 2**31 - 1)),
        maybe(st.integers(-(2**63), 2**63 - 1)),
        maybe(st.booleans()),
        maybe(st.binary(max_size=5)),
    ),
    max_size=40,
)


def to_table(rows: Sequence[Row]) -> pa.Table:
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [[]] * len(SCHEMA)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.table(arrays, schema=SCHEMA)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 40), max_size=5), chunk=st.integers(1, 20))
def test_it_is_what_its_definition_says_however_rows_come(
    rows: list[Row], cuts: list[int], chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "CHUNK_ROWS", chunk)
        made = Digest(SCHEMA)
        table = to_table(rows)
        edges = sorted({0, len(rows), *(cut % (len(rows) + 1) for cut in cuts)})
        for start, end in pairwise(edges):
            part = table.slice(start, end - start)
            # How it is encoded, and what stands beside it, leaves no trace.
            coded = part.set_column(0, "symbol", part["symbol"].dictionary_encode())
            made.update(coded.append_column("beside", pa.nulls(part.num_rows)))
        assert made.rows == len(rows)
        assert made.hexdigest() == plainly(rows, SCHEMA, chunk)


def test_what_stands_below_a_null_is_nobodys() -> None:
    values = pa.array([1, 2, 3], pa.int64())
    mask = pa.py_buffer(bytes([0b101]))
    holed = pa.Array.from_buffers(pa.int64(), 3, [mask, values.buffers()[1]])
    texts = pa.array(["a", "b", "c"])
    holed_text = pa.Array.from_buffers(pa.string(), 3, [mask, *texts.buffers()[1:]])
    prices = pa.array([Decimal(1), Decimal(2), Decimal(3)], pa.decimal128(18, 8))
    holed_price = pa.Array.from_buffers(prices.type, 3, [mask, prices.buffers()[1]])
    names = ["n", "t", "p"]
    dirty = pa.table([holed, holed_text, holed_price], names=names)
    clean = pa.table(
        [
            pa.array([1, None, 3], pa.int64()),
            pa.array(["a", None, "c"]),
            pa.array([Decimal(1), None, Decimal(3)], prices.type),
        ],
        names=names,
    )
    assert digest_of(dirty, names).hexdigest() == digest_of(clean, names).hexdigest()


@pytest.mark.parametrize(
    "others",
    [
        [("a", "bc"), ("d", "e")],
        [("d", "e"), ("ab", "c")],
        [("ab", "c"), ("d", None)],
        [("ab", "c"), ("d", "")],
        [("ab", "c")],
        [("ab", "c"), ("d", "e"), (None, None)],
    ],
)
def test_other_rows_have_another_hash(others: list[Row]) -> None:
    def of(rows: Sequence[Row]) -> str:
        table = pa.table({"x": [r[0] for r in rows], "y": [r[1] for r in rows]})
        return digest_of(table, ["x", "y"]).hexdigest()

    assert of([("ab", "c"), ("d", "e")]) != of(others)


def test_names_and_types_are_part_of_it() -> None:
    empty = {
        digest_of(pa.table({name: pa.array([], kind)}), [name]).hexdigest()
        for name in ("price", "quantity")
        for kind in (pa.decimal128(18, 8), pa.decimal128(38, 8), pa.string())
    }
    assert len(empty) == 6


def test_it_never_changes() -> None:
    rows = [
        ("BHP", DAWN, Decimal("35.95"), Decimal("-1.5"), date(2014, 3, 11), 7, -1, True, b"\x00"),
        (None,) * 9,
    ]
    assert digest_of(to_table(rows), SCHEMA.names).hexdigest() == (
        "71ee92b6ff8300f7186b1dea24affd9b46c4cf1d72858347cb7af8cdf5f58c2a"
    )


def test_asking_twice_changes_nothing_and_more_may_follow() -> None:
    table = to_table([(None,) * 9] * 3)
    made = Digest(SCHEMA)
    made.update(table)
    assert made.hexdigest() == made.hexdigest() == digest_of(table, SCHEMA.names).hexdigest()
    made.update(table)
    twice = digest_of(pa.concat_tables([table, table]), SCHEMA.names)
    assert made.hexdigest() == twice.hexdigest()


def test_columns_are_told_and_found_again() -> None:
    assert to_schema(fields_of(SCHEMA)) == SCHEMA
    coded = pa.schema([("symbol", pa.dictionary(pa.int32(), pa.string()))])
    assert fields_of(coded) == [["symbol", "string"]]
    with pytest.raises(BadInput, match="compaction"):
        fields_of(pa.schema([("commit_sequence", pa.int64())]))
    with pytest.raises(BadInput, match="cannot be hashed"):
        fields_of(pa.schema([("x", pa.float64())]))
    for wrong in ([["x", "float"]], [["x"]], ["x"], [[1, "string"]]):
        with pytest.raises(BadInput, match="no columns"):
            to_schema(wrong)  # type: ignore[arg-type]
