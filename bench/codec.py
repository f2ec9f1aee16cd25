"""Avro, both ways: K2's columns beside fastavro's records and polars reading a container."""

import io
import json
from typing import Any

import fastavro
import polars as pl
import pyarrow as pa

from bench.market import rows
from bench.report import show, timed
from k2.model import decode, encode, latest
from k2.model.words import varint


def run(*, quick: bool = False) -> None:
    """Microseconds a trade in batches of 50,000 (one core), and milliseconds for one trade."""
    schema = latest("trades")
    count = 5_000 if quick else 50_000
    _, table = next(rows("trades", 5 * count))
    table = table.select(schema.arrow.names).combine_chunks()
    messages = encode(table, schema)
    one, one_message = table.slice(7, 1), messages.slice(7, 1)

    parsed = fastavro.parse_schema(json.loads(json.dumps(schema.avro)))
    some = messages.to_pylist()[: count // 10]
    records = [_read(parsed, message) for message in some]
    container = _container(schema.avro, messages)
    taken = {
        "decode: K2": timed(lambda: decode(messages, schema.avro, schema)).p50 / count,
        "decode: polars, as one container": timed(lambda: pl.read_avro(io.BytesIO(container))).p50
        / count,
        "decode: fastavro, one by one": timed(lambda: [_read(parsed, m) for m in some]).p50
        / len(some),
        "encode: K2": timed(lambda: encode(table, schema)).p50 / count,
        "encode: fastavro, one by one": timed(lambda: [_write(parsed, r) for r in records]).p50
        / len(some),
    }
    show(
        f"Codec: trades V{schema.version}, {count:,} a batch",
        ["", "us a record", "times K2's"],
        [[name, us * 1e6, us / taken[f"{name[:6]}: K2"]] for name, us in taken.items()],
    )
    single = {
        "decode": timed(lambda: decode(one_message, schema.avro, schema), seconds=1).p50,
        "encode": timed(lambda: encode(one, schema), seconds=1).p50,
    }
    show("Codec: one trade", ["", "ms"], [[name, s * 1e3] for name, s in single.items()])


def _read(parsed: Any, message: bytes) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(message), parsed, None)


def _write(parsed: Any, record: Any) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, parsed, record)
    return sink.getvalue()


def _container(avro: Any, messages: pa.BinaryArray) -> bytes:
    """The messages as the one block of an Avro container file.

    polars takes no defaults, no references to named types and no enum that may be null (an int
    has the same bytes).
    """
    named = {f["type"]["name"]: f["type"] for f in avro["fields"] if "name" in f["type"]}
    fields = [{"name": f["name"], "type": _inlined(f["type"], named)} for f in avro["fields"]]
    header = json.dumps({"type": "record", "name": "trade", "fields": fields}).encode()
    body = b"".join(messages.to_pylist())
    sync = b"k2-bench-sync-16"
    meta = b"\x04" + _sized(b"avro.schema") + _sized(header)
    meta += _sized(b"avro.codec") + _sized(b"null") + b"\0"
    return b"Obj\x01" + meta + sync + _number(len(messages)) + _sized(body) + sync


def _inlined(kind: Any, named: dict[str, Any]) -> Any:
    if isinstance(kind, list):
        return ["int" if isinstance(b, dict) and b["type"] == "enum" else b for b in kind]
    return named.get(kind, kind) if isinstance(kind, str) else kind


def _sized(content: bytes) -> bytes:
    return _number(len(content)) + content


def _number(value: int) -> bytes:
    return varint(2 * value)
