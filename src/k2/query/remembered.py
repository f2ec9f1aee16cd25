"""Answers of statements over files that never change, kept in memory.

Comes in: an engine. Goes out: one that answers the same, and does not read again what was asked
before. What is kept is named by all that an answer follows from: the statement, what it binds, the
files, the state and what corrections made of the rows. Where new rows may belong to it, because a
commit brought a file or the log holds some, it is another question, and asked anew.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping
from typing import Final

import pyarrow as pa

from k2.query.port import Engine, Source, Standing, Statement

_PART: Final = 8
"""An answer is kept that takes at most one part in so many of all there is."""
_TABLE_BYTES: Final = 65_536
"""A table beside the files is read to tell it from others if it is no larger than this."""


class Remembered:
    """An engine (see `port.Engine`) that keeps at most `most_bytes` of the answers of another."""

    def __init__(self, engine: Engine, most_bytes: int) -> None:
        self._engine = engine
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, pa.Table] = OrderedDict()
        self._bytes = 0

    def run(self, statement: Statement, sources: Mapping[str, Source | pa.Table]) -> pa.Table:
        """The statement's rows, from memory where they were asked for before."""
        key = _key(statement, sources)
        if key is None:
            return self._engine.run(statement, sources)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = self._engine.run(statement, sources)
        self._keep(key, made)
        return made

    def reads(self, text: str, relations: Collection[str]) -> frozenset[str]:
        """The relations that a user's SQL reads."""
        return self._engine.reads(text, relations)

    def ask(
        self, text: str, sources: Mapping[str, Source | pa.Table], *, limit: int | None = None
    ) -> tuple[pa.Table, bool]:
        """A user's SELECT, each time anew: it may ask for the time, or for chance."""
        return self._engine.ask(text, sources, limit=limit)

    def close(self) -> None:
        """Let go of memory and files."""
        self._engine.close()

    def _keep(self, key: Hashable, made: pa.Table) -> None:
        if made.nbytes > self._most_bytes // _PART:
            return
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += made.nbytes
            while self._bytes > self._most_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes


def _key(statement: Statement, sources: Mapping[str, Source | pa.Table]) -> Hashable | None:
    """All that the answer follows from; None where it is not kept."""
    parts: list[Hashable] = [statement.text, _values(statement.values)]
    for name, source in sources.items():
        part = _of_table(source) if isinstance(source, pa.Table) else _of_source(source)
        if part is None:
            return None
        parts.append((name, part))
    return tuple(parts)


def _values(values: Mapping[str, object]) -> Hashable:
    return tuple((name, type(value).__name__, repr(value)) for name, value in values.items())


def _of_source(source: Source) -> Hashable | None:
    if source.tail is not None and source.tail.num_rows:
        return None
    standing = _of_standing(source.standing)
    if source.standing is not None and standing is None:
        return None
    return (
        source.files,
        source.partial,
        source.pin,
        source.beyond,
        source.known_at,
        standing,
        source.mixed,
        source.named,
        tuple(source.columns.names),
    )


def _of_standing(standing: Standing | None) -> Hashable | None:
    if standing is None:
        return None
    table = _of_table(standing.table)
    return None if table is None else (table, standing.files, standing.history)


def _of_table(table: pa.Table) -> Hashable | None:
    """The table's rows as bytes; None where that would take long."""
    if table.nbytes > _TABLE_BYTES:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()
