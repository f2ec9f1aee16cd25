"""Answers as bytes for the outside: JSON, NDJSON, CSV, Arrow IPC, Parquet. No I/O.

Text is made from whole columns: decimals exact and without trailing zeros, times in UTC with
microseconds and `Z`, bytes as UTF-8 or else base64 after `base64:`. The command line and the HTTP
interface share it.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from k2.errors import BadInput
from k2.query.answer import Answer

ROWS_PER_PART: Final = 65_536
"""Rows that are turned into bytes at once, so that a long answer streams in bounded memory."""


def to_text(table: pa.Table) -> pl.DataFrame:
    """The same rows with every decimal, time and odd value as text; the rest keeps its type.

    Decimals lose trailing zeros, never a digit; times are UTC with `Z` (times without a zone
    without it), with nine digits where they count nanoseconds. Nested values are JSON text. Names
    that occur twice get a number, since a JSON object cannot hold both.
    """
    plain, _ = _plain_columns(table)
    return _texts(plain)


def json_parts(answer: Answer, limit: int | None = None) -> Iterator[bytes]:
    """The envelope `{"success", "data", "meta", "pagination": {"limit", "next"}}`, in parts."""
    plain, nested = _plain_columns(answer.table)
    comma = b'{"success":true,"data":['
    for part in _parts(plain):
        if body := _json_rows(part, nested):
            yield comma + body
            comma = b","
    opening = b"" if comma == b"," else comma
    meta = orjson.dumps(answer.meta)
    pages = orjson.dumps({"limit": limit, "next": answer.next})
    yield opening + b'],"meta":' + meta + b',"pagination":' + pages + b"}"


def json_rows(table: pa.Table) -> bytes:
    """The rows as JSON objects with commas between them, and no brackets around them."""
    plain, nested = _plain_columns(table)
    return _json_rows(plain, nested) if plain.num_rows else b""


def ndjson_parts(answer: Answer) -> Iterator[bytes]:
    """One JSON object a line and nothing else, in parts."""
    plain, nested = _plain_columns(answer.table)
    for part in _parts(plain):
        if nested:
            rows = _rows_with_fragments(part, nested)
            yield b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        elif part.num_rows:
            yield _texts(part).write_ndjson().encode()


def csv_parts(answer: Answer) -> Iterator[bytes]:
    """A header line and a line per row, in parts; a null is an empty field, empty text is `""`."""
    plain, _ = _plain_columns(answer.table)
    for number, part in enumerate(_parts(plain)):
        yield _texts(part).write_csv(include_header=number == 0).encode()


def arrow_parts(answer: Answer) -> Iterator[bytes]:
    """An Arrow IPC stream, in parts; the schema's metadata holds `k2.meta` and `k2.next`."""
    table, sink = _described(answer), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for part in _parts(table):
            writer.write_table(part)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


def parquet_parts(answer: Answer) -> Iterator[bytes]:
    """A Parquet file (zstd), in one part; the schema's metadata holds `k2.meta` and `k2.next`.

    Raises `BadInput` for a column that Parquet has no type for, such as an interval.
    """
    sink = io.BytesIO()
    try:
        pq.write_table(_described(answer), sink, compression="zstd", store_decimal_as_integer=True)
    except pa.ArrowNotImplementedError as error:
        raise BadInput(
            f"Parquet cannot hold a column of this answer: {error}", hint="cast it in the query"
        ) from error
    yield sink.getvalue()


def to_json_bytes(answer: Answer, limit: int | None = None) -> bytes:
    """What `json_parts` gives, in one piece."""
    return b"".join(json_parts(answer, limit))


def to_ndjson(answer: Answer) -> bytes:
    """What `ndjson_parts` gives, in one piece."""
    return b"".join(ndjson_parts(answer))


def to_csv(answer: Answer) -> bytes:
    """What `csv_parts` gives, in one piece."""
    return b"".join(csv_parts(answer))


def to_arrow(answer: Answer) -> bytes:
    """What `arrow_parts` gives, in one piece."""
    return b"".join(arrow_parts(answer))


def to_parquet(answer: Answer) -> bytes:
    """What `parquet_parts` gives."""
    return b"".join(parquet_parts(answer))


@dataclass(frozen=True)
class Format:
    """One way to write an answer: its media type, and the function that gives its parts."""

    media_type: str
    parts: Callable[[Answer], Iterator[bytes]]


FORMATS: Final[Mapping[str, Format]] = {
    "json": Format("application/json", json_parts),
    "ndjson": Format("application/x-ndjson", ndjson_parts),
    "csv": Format("text/csv; charset=utf-8", csv_parts),
    "arrow": Format("application/vnd.apache.arrow.stream", arrow_parts),
    "parquet": Format("application/vnd.apache.parquet", parquet_parts),
}
"""Every format by its name."""


def _described(answer: Answer) -> pa.Table:
    described = {"k2.meta": orjson.dumps(answer.meta), "k2.next": answer.next or ""}
    return answer.table.replace_schema_metadata(described)


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    # An empty answer still has one part: its CSV has a header, its Arrow stream a schema.
    for start in range(0, max(table.num_rows, 1), ROWS_PER_PART):
        yield table.slice(start, ROWS_PER_PART)


def _json_rows(part: pa.Table, nested: frozenset[str]) -> bytes:
    """The rows as JSON objects with commas between them, without the brackets around them."""
    if nested:
        return orjson.dumps(_rows_with_fragments(part, nested))[1:-1]
    return _texts(part).write_json().encode()[1:-1]


def _rows_with_fragments(part: pa.Table, nested: frozenset[str]) -> list[dict[str, Any]]:
    # Only free SQL and volume profiles give nested columns: going row by row costs little.
    rows = _texts(part).rows(named=True)
    for row in rows:
        for name in nested:
            row[name] = orjson.Fragment(row[name])
    return rows


def _texts(plain: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(plain)
    assert isinstance(frame, pl.DataFrame)
    texts = [text for name, kind in frame.schema.items() if (text := _text(name, kind)) is not None]
    return frame.with_columns(texts)


def _text(name: str, kind: pl.DataType) -> pl.Expr | None:
    """How a column becomes text; None for one that JSON and CSV can take as it is."""
    column = pl.col(name)
    match kind:
        case pl.Decimal(scale=0) | pl.Categorical() | pl.Enum():
            return column.cast(pl.String)
        case pl.Decimal():
            return column.cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
        case pl.Datetime():
            digits = "%.9f" if kind.time_unit == "ns" else "%.6f"
            if kind.time_zone is None:
                return column.dt.strftime(f"%Y-%m-%dT%H:%M:%S{digits}")
            return column.dt.convert_time_zone("UTC").dt.strftime(f"%Y-%m-%dT%H:%M:%S{digits}Z")
        case pl.Date() | pl.Time() | pl.Duration():
            return column.dt.to_string("iso")
    return None


def _plain_columns(table: pa.Table) -> tuple[pa.Table, frozenset[str]]:
    """The table with unique names, bytes and nested columns as text, and the nested ones' names."""
    names = _unique(table.column_names)
    columns, nested = [], set()
    for name, column in zip(names, table.columns, strict=True):
        if _is_nested(column.type):
            nested.add(name)
            texts = [orjson.dumps(_plain(value)).decode() for value in column.to_pylist()]
            column = pa.array(texts, pa.string())
        elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            column = _bytes_as_text(column)
        columns.append(column)
    return pa.table(columns, names=names), frozenset(nested)


def _bytes_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        # Not all of it is UTF-8, as among rejected records. Rare and short.
        return pa.chunked_array([pa.array(map(_byte_text, column.to_pylist()), pa.string())])


def _byte_text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def _is_nested(kind: pa.DataType) -> bool:
    return (
        pa.types.is_nested(kind)
        or pa.types.is_interval(kind)
        or isinstance(kind, pa.BaseExtensionType)
    )


def _plain(value: Any) -> Any:
    """A nested value with the same text for decimals and times as columns have."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):
        # The levels of a volume profile are many: as columns they would take seconds.
        digits = f"{value:f}"
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    if isinstance(value, datetime):
        kind = pa.timestamp("us", "UTC") if value.tzinfo else None
        return to_text(pa.table({"": pa.array([value], kind)})).item()
    if isinstance(value, bytes):
        return _byte_text(value)
    if value is None or isinstance(value, bool | int | float | str | date):
        return value
    return str(value)


def _unique(names: list[str]) -> list[str]:
    taken: set[str] = set(names)
    unique: list[str] = []
    for name in names:
        fresh, number = name, 0
        while fresh in unique or (number and fresh in taken):
            number += 1
            fresh = f"{name}_{number}"
        unique.append(fresh)
    return unique
