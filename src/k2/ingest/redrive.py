"""Rejected records put back: those that can be read now are appended to the log anew, once.

Comes in: the ledger of rejected records. Goes out: the same bytes at the log's end, and in the
compacted topic `k2.redriven`, for each of them, which place it had before. The old place stays
rejected; what becomes of the new one is the writer's to say.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from k2.errors import NotFound, Refused
from k2.lake import Lake, definition
from k2.log import EXCHANGES_TOPIC, Append, Log, Registry
from k2.log.wire import partition_of
from k2.model import Exchange, Topic, decode, latest, plain_schema, validate

REDRIVEN_TOPIC: Final = "k2.redriven"
"""Compacted: `topic[partition]@offset`, from which on records were appended, to their old places;
the key `pending` holds what may or may not have been appended when it was stopped."""

_PENDING: Final = "pending"
_READ_BYTES: Final = 16 << 20

Place: TypeAlias = tuple[str, str, int, int]
"""Topic, identity of the log, partition, offset."""


@dataclass(frozen=True)
class Redriven:
    """How many rejected records were appended anew, were so before, and cannot be read yet."""

    appended: int
    before: int
    unreadable: int


@dataclass(frozen=True)
class _Chunk:
    """Records of one schema for one partition, with the places that they had."""

    append: Append
    places: Sequence[Place]


def redrive(log: Log, registry: Registry, lake: Lake, skew: timedelta) -> Redriven:
    """Append every rejected record that can be read and be true now, and was not put back before.

    What a feed could not read has no schema and stays: its file is mended and loaded again. One at
    a time; stopped anywhere it may be run again. `skew` is the writer's.
    """
    done = _finish_pending(log)
    entries = _entries(lake)
    places = _places(entries)
    new = entries.filter(pa.array([place not in done for place in places], pa.bool_()))
    chunks = list(_chunks(log, registry, new, skew))
    if chunks:
        # First what is to be done: whether it was done can be seen in the log afterwards.
        log.put(REDRIVEN_TOPIC, _PENDING, _to_json(log, chunks))
        offsets = log.append([chunk.append for chunk in chunks])
        _note(log, chunks, [int(given[0]) for given in offsets])
    appended = sum(len(chunk.places) for chunk in chunks)
    before = entries.num_rows - new.num_rows
    return Redriven(appended, before, _count(lake) - before - appended)


def _paths(lake: Lake) -> list[str]:
    """Every file of the ledger: what feeds could not read, and what the writer could not."""
    paths = [file.path for file in lake.ledger_files("rejected")]
    if lake.has("rejected"):
        paths += [f.path for f in lake.table("rejected").snapshot().files.select()]
    return sorted(set(paths))


def _count(lake: Lake) -> int:
    return sum(pq.ParquetFile(path).metadata.num_rows for path in _paths(lake))


def _entries(lake: Lake) -> pa.Table:
    """The rejected records that came from the log with a schema."""
    columns = ["log_topic", "log_id", "log_partition", "log_offset", "schema_id", "raw"]
    schema = plain_schema(definition("rejected").arrow)
    paths = _paths(lake)
    if not paths:
        return schema.empty_table().select(columns)
    found = ds.dataset(paths, schema=schema, format="parquet")
    kept = found.to_table(columns=columns, filter=pc.field("schema_id") >= 0)
    return kept.sort_by([(name, "ascending") for name in columns[:4]])


def _places(entries: pa.Table) -> list[Place]:
    names = ("log_topic", "log_id", "log_partition", "log_offset")
    return list(zip(*(entries[name].to_pylist() for name in names), strict=True))


def _chunks(log: Log, registry: Registry, entries: pa.Table, skew: timedelta) -> Iterator[_Chunk]:
    counts = log.topics()
    groups = entries.group_by(["log_topic", "schema_id"]).aggregate([])
    for name, schema_id in zip(*(c.to_pylist() for c in groups.columns), strict=True):
        topic = Topic.parse(name)
        if topic is None or name not in counts:
            continue
        mine = entries.filter(
            (pc.field("log_topic") == name) & (pc.field("schema_id") == schema_id)
        )
        readable, symbols = _readable(log, registry, topic, mine, skew)
        rows = mine.take(pa.array(readable, pa.int64()))
        partitions = np.array([partition_of(s, counts[name]) for s in symbols], np.int32)
        for number in np.unique(partitions).tolist():
            chosen = pa.array(np.flatnonzero(partitions == number))
            part = rows.take(chosen)
            values = part["raw"].combine_chunks()
            keys = pa.array(symbols, pa.string()).take(chosen)
            yield _Chunk(Append(name, number, schema_id, values, keys), _places(part))


def _readable(
    log: Log, registry: Registry, topic: Topic, entries: pa.Table, skew: timedelta
) -> tuple[Sequence[int], list[str]]:
    """Which of the entries can be read and be true now, and their symbols."""
    declared = log.latest(EXCHANGES_TOPIC).get(topic.exchange)
    try:
        writer = registry.schema(entries["schema_id"][0].as_py())
        decoded = decode(entries["raw"].combine_chunks(), writer, latest(topic.kind))
    except (NotFound, Refused, KeyError):
        return [], []
    if declared is None:
        return [], []
    failures = validate(topic.kind, decoded.table, Exchange.from_json(declared), skew)
    keep = np.ones(decoded.table.num_rows, np.bool_)
    if failures is not None:
        keep[failures.rows] = False
    rows = decoded.table.filter(pa.array(keep))
    symbols = rows["symbol"].cast(pa.string()).to_pylist() if "symbol" in rows.column_names else []
    return decoded.kept[keep].tolist(), symbols or [""] * rows.num_rows


# ------------------------------------------------------------------------- once


def _to_json(log: Log, chunks: Sequence[_Chunk]) -> str:
    return json.dumps(
        [
            {
                "topic": chunk.append.topic,
                "partition": chunk.append.partition,
                "since": log.end_offset(chunk.append.topic, chunk.append.partition),
                "raw": [value.hex() for value in chunk.append.values.to_pylist()],
                "places": chunk.places,
            }
            for chunk in chunks
        ]
    )


def _note(log: Log, chunks: Sequence[_Chunk], firsts: Sequence[int]) -> None:
    for chunk, first in zip(chunks, firsts, strict=True):
        key = f"{chunk.append.topic}[{chunk.append.partition}]@{first}"
        log.put(REDRIVEN_TOPIC, key, json.dumps(chunk.places))
    log.put(REDRIVEN_TOPIC, _PENDING, "[]")


def _finish_pending(log: Log) -> set[Place]:
    """Every place whose record was put back; what was under way when it was stopped is looked for
    in the log.
    """
    noted = dict(log.latest(REDRIVEN_TOPIC))
    pending: list[Mapping[str, Any]] = json.loads(noted.pop(_PENDING, "[]"))
    for chunk in pending:
        topic, partition, since = chunk["topic"], chunk["partition"], chunk["since"]
        there = _messages(log, topic, partition, since)
        found = []
        for raw, place in zip(chunk["raw"], chunk["places"], strict=True):
            if there[bytes.fromhex(raw)]:
                there[bytes.fromhex(raw)] -= 1
                found.append(place)
        if found:
            key = f"{topic}[{partition}]@{since}"
            noted[key] = json.dumps(found)
            log.put(REDRIVEN_TOPIC, key, noted[key])
    if pending:
        log.put(REDRIVEN_TOPIC, _PENDING, "[]")
    return {tuple(place) for places in noted.values() for place in json.loads(places)}


def _messages(log: Log, topic: str, partition: int, offset: int) -> Counter[bytes]:
    """How often each message was appended since."""
    found: Counter[bytes] = Counter()
    try:
        offset = max(offset, log.start_offset(topic, partition))
    except NotFound:
        return found  # the topic is gone, and with it all that was appended
    while batches := log.read(topic, partition, offset, _READ_BYTES):
        for batch in batches:
            found.update(batch.values.to_pylist())
            offset = batch.next_offset
    return found
