"""The rows of a tail that a question asks for, without the engine: mostly there are none."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.model import micros
from k2.query.port import Pin, Source
from k2.query.rows import positions, taken


@dataclass(frozen=True)
class Span:
    """Symbols and exchanges (empty: all) and times `[start, end)`, microseconds; None is open."""

    symbols: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None


def tail_within(source: Source, time: str, span: Span) -> pa.Table | None:
    """The rows of the source's tail within the span, as the tail has them; None where none is."""
    tail = source.tail
    if tail is None or not tail.num_rows:
        return None
    # A tail may be long: no row is copied before it is known to be one of them.
    mine: pa.Array | None = None
    for name, wanted in (("symbol", span.symbols), ("exchange", span.exchanges)):
        if wanted:
            rows = tail.select([name]) if mine is None else taken(tail.select([name]), mine)
            found = positions(rows[name], wanted)
            mine = found if mine is None else mine.take(found)
    rows = tail.select([time]) if mine is None else taken(tail.select([time]), mine)
    when = micros(rows[time])
    within = np.ones(len(when), np.bool_)
    if span.start is not None:
        within &= when >= span.start
    if span.end is not None:
        within &= when < span.end
    if not within.any():
        return None
    if mine is not None:
        tail = taken(tail, mine.filter(pa.array(within)))
    elif not within.all():
        tail = tail.filter(pa.array(within))
    if source.pin is not None:
        tail = tail.filter(_in_ranges(tail, source.pin))
    return tail if tail.num_rows else None


def _in_ranges(rows: pa.Table, pin: Pin) -> pa.Array:
    """Which rows stood in the log in the state of the pin."""
    topic, log_id = (rows[name].cast(pa.string()) for name in ("log_topic", "log_id"))
    partition, offset = (rows[name].to_numpy() for name in ("log_partition", "log_offset"))
    found = np.zeros(rows.num_rows, np.bool_)
    for r in pin.ranges:
        there = pc.and_(pc.equal(topic, r.topic), pc.equal(log_id, r.log_id))
        within = (partition == r.partition) & (offset >= r.first) & (offset < r.end)
        found |= within & there.to_numpy(zero_copy_only=False).astype(np.bool_)
    return pa.array(found)
