"""Rows as numbered streams, and the streams of a whole table: read from its rows, or kept beside
it.

Comes in: a table's files. Goes out: the state of each stream after the last commit, as if each
commit had been tracked when it was made.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.ingest.identity import groups_of
from k2.ingest.kept import Kept
from k2.ingest.marks import ID_COLUMN, reading_files, to_numbers
from k2.ingest.sequence import Hole, Mark, Numbered, State, Stream, bounded, track
from k2.lake import LakeTable, Snapshot
from k2.model import DICTIONARY_TYPE, micros

_AT_ONCE: Final = 1_000_000
"""Rows of past commits that are held at once, about."""
_NAMES: Final = ("symbol", "id_space")


@dataclass(frozen=True)
class Followed:
    """Which streams of a table are followed: of the kind, those of the exchanges `counting`.

    `relieve` is given all streams after each commit's rows, and may let go of holes.
    """

    kind: str
    counting: Collection[str]
    relieve: Callable[[dict[Stream, State]], None]


def numbered(exchange: str, kind: str, rows: pa.Table) -> Numbered:
    """The rows, all of this exchange and in log order, that have a number that counts."""
    id_column = ID_COLUMN[kind]
    if id_column not in rows.column_names:
        # Records of the first version have no ids.
        empty = np.zeros(0, np.int64)
        return Numbered([], empty.astype(np.int32), *[empty] * 5)
    numbers, numeric = to_numbers(rows[id_column])
    # One that has an occurrence is known by its content, whatever number it carries.
    counted = numeric & rows["occurrence"].is_null().to_numpy()
    if not counted.all():
        rows, numbers = rows.filter(pa.array(counted)), numbers[counted]
    groups, names = groups_of(rows.unify_dictionaries(), _NAMES)
    return Numbered(
        [(exchange, symbol, id_space) for symbol, id_space in names],
        groups,
        numbers,
        micros(rows["timestamp"]),
        micros(rows["ingestion_timestamp"]),
        rows["log_partition"].to_numpy().astype(np.int64),
        rows["log_offset"].to_numpy(),
    )


def read_states(table: LakeTable, snapshot: Snapshot, of: Followed) -> dict[Stream, State]:
    """The streams that are followed after the snapshot's last commit.

    Raises `Broken` where a data file cannot be read.
    """
    since, states = _kept(table, snapshot)
    files = [file.path for file in snapshot.files.since(since)]
    replay(states, snapshot, files, since, of)
    return states


def replay(
    states: dict[Stream, State],
    snapshot: Snapshot,
    files: Iterable[str],
    since: int,
    of: Followed,
) -> None:
    """Take into `states` the rows that these files of the snapshot have of the commits after
    `since`, a commit after the other.
    """
    spans = sorted((*snapshot.files.commits(path), path) for path in files)
    sequence = dict(zip(snapshot.files.columns.path, snapshot.files.columns.sequence, strict=True))
    held: list[pa.Table] = []
    for least, _, path in spans:
        if sum(part.num_rows for part in held) >= _AT_ONCE:
            held = _track(states, held, least, of)
        rows = _read(path, of.kind, int(sequence[path]), of.counting)
        held.append(rows.filter(pc.greater(rows["commit"], since)))
    _track(states, held, None, of)


def keep_states(table: LakeTable, sequence: int, states: Mapping[Stream, State]) -> None:
    """Keep the streams as they are after the commit `sequence`, for whoever starts next."""
    _beside(table).keep(sequence, orjson.dumps(list(states.items()), default=list))


def _kept(table: LakeTable, snapshot: Snapshot) -> tuple[int, dict[Stream, State]]:
    """The newest streams kept that are not ahead of the snapshot, and the commit they are of."""
    for sequence, state in _beside(table).newest(snapshot):
        with suppress(orjson.JSONDecodeError):
            return sequence, dict(map(_stream, orjson.loads(state)))
    return 0, {}


def _beside(table: LakeTable) -> Kept:
    return Kept(table, "sequences")


def _stream(found: Sequence[Any]) -> tuple[Stream, State]:
    (exchange, symbol, id_space), (base, top, holes) = found
    opened = [Hole(Mark(*before), Mark(*after), *rest) for before, after, *rest in holes]
    return (exchange, symbol, id_space), State(base, Mark(*top), tuple(opened))


def _read(path: str, kind: str, sequence: int, counting: Collection[str]) -> pa.Table:
    """The file's rows of these exchanges, with the commit that brought each."""
    wanted = ["exchange", *_NAMES, ID_COLUMN[kind], "occurrence", "timestamp"]
    wanted += ["ingestion_timestamp", "log_partition", "log_offset", "commit_sequence"]
    with reading_files():
        there = pq.read_schema(path).names
        coded = [name for name in ("exchange", *_NAMES) if name in there]
        file = pq.ParquetFile(path, read_dictionary=coded)
        rows = file.read(columns=[name for name in wanted if name in there])
    for name in wanted:
        if name not in rows.column_names:
            # A file from before the column was there: nothing in it counts.
            kinds = {"id_space": DICTIONARY_TYPE, "trade_id": pa.string()}
            rows = rows.append_column(name, pa.nulls(len(rows), kinds.get(name, pa.int64())))
    rows = rows.filter(
        pc.is_in(rows["exchange"].cast(pa.string()), pa.array(sorted(counting), pa.string()))
    )
    commit = pc.fill_null(rows["commit_sequence"], sequence)
    return rows.drop_columns(["commit_sequence"]).append_column("commit", commit)


def _track(
    states: dict[Stream, State], held: list[pa.Table], end: int | None, of: Followed
) -> list[pa.Table]:
    """Track the rows of commits before `end` (of all, if None); the others."""
    if not held:
        return []
    rows = pa.concat_tables(held, promote_options="permissive")
    rest = [] if end is None else [rows.filter(pc.greater_equal(rows["commit"], end))]
    if end is not None:
        rows = rows.filter(pc.less(rows["commit"], end))
    if not rows.num_rows:
        return rest
    order = [(name, "ascending") for name in ("commit", "log_partition", "log_offset")]
    rows = rows.unify_dictionaries().combine_chunks().sort_by(order)
    starts = np.flatnonzero(np.diff(rows["commit"].to_numpy(), prepend=-1))
    ends = [*starts[1:].tolist(), rows.num_rows]
    for start, stop in zip(starts.tolist(), ends, strict=True):
        commit = rows.slice(start, stop - start)
        for exchange in sorted(of.counting):
            mine = commit.filter(pc.equal(commit["exchange"].cast(pa.string()), exchange))
            changed = track(states, numbered(exchange, of.kind, mine)).changed
            states.update((stream, bounded(state)) for stream, state in changed.items())
        of.relieve(states)
    return rest


def by_topic(tables: Iterable[tuple[str, pa.Table]]) -> dict[str, pa.Table]:
    """The rows of each topic together, in the order in which they came."""
    found: dict[str, list[pa.Table]] = defaultdict(list)
    for topic, rows in tables:
        found[topic].append(rows)
    return {topic: pa.concat_tables(parts) for topic, parts in found.items()}
