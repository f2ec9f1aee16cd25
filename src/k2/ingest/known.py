"""Which records are known already: the proof that a record is new, or a duplicate.

High-water marks, and hashes of ids that are no numbers, prove most records new; whatever they
cannot prove is settled by one exact look at the rows in the table that could match, however old.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from k2.errors import Conflict
from k2.ingest.hashed import hashes_of, repeated
from k2.ingest.identity import Identity, Ints, Marked, Mask, ascending, plain, plain_column
from k2.ingest.marks import (
    NO_MARK,
    Marks,
    raise_marks,
    read_marks,
    reading_files,
    save_marks,
    symbols_in,
    symbols_of,
)
from k2.lake import LakeTable, Snapshot
from k2.model import latest, plain_schema, plain_type

LINEAGE: Final = ("log_topic", "log_id", "log_partition", "log_offset")


@dataclass(frozen=True)
class Duplicates:
    """Rows that are known: `rows`, ascending; `originals` has LINEAGE and identity of each."""

    rows: Ints
    originals: pa.Table


class Known:
    """What is known of the identities of one kind: table, pending rows, high-water marks.

    `pending` are rows that were decided but stand in no snapshot yet. One thread at a time.
    """

    def __init__(self, kind: str, table: LakeTable, snapshot: Snapshot) -> None:
        self.kind = kind
        self.snapshot = snapshot
        self._table = table
        self._schema = latest(kind)
        self._identity = Identity(kind)
        self._pending: list[pa.Table] = []
        self._marks: Marks | None = None

    def advance(
        self,
        snapshot: Snapshot,
        others: Sequence[str] = (),
        decided: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        """Go on from a later snapshot: pending rows that it holds are forgotten here.

        `others`: its files with rows that were not decided here: none before the offset that
        `decided` has of a (topic, partition). Raises `Conflict` if one of them might be the same
        record as one that is pending, or the day of one may have been closed.
        """
        since = self.snapshot.sequence
        kept = (past(table, snapshot) for table in self._pending)
        self._pending = [table for table in kept if table.num_rows]
        if self._pending and snapshot.retired != self.snapshot.retired:
            raise Conflict("days were retired in between", place=snapshot.table)
        if others and self._pending:
            mine = set().union(*map(symbols_of, self._pending))
            shared = symbols_in(others, since, decided) & mine
            if shared:
                raise Conflict(
                    "another writer has committed records of the same symbols",
                    place=f"{snapshot.table}: {min(shared)}",
                )
        if self._marks is not None:
            # Before the snapshot: what is saved meanwhile must cover all that it says.
            raise_marks(self._marks, others, self.kind, since)
        self.snapshot = snapshot

    def is_beside(self, exchange: str, rows: pa.Table, head: Snapshot) -> bool:
        """Whether none of `rows` (one exchange, found new here) is the same record as a row that
        commits after the snapshot brought in. Looks at these alone, whatever symbols they have.
        """
        later = head.files.later(self.snapshot.sequence)
        if not len(later) or not rows.num_rows:
            return True
        others = Known(self.kind, self._table, replace(head, files=later))
        others._marks = Marks.of_nothing(self._table)
        files = [file.path for file in later.select()]
        raise_marks(others._marks, files, self.kind, self.snapshot.sequence)
        return others.find(exchange, rows) is None

    def save(self) -> None:
        """Keep the high-water marks for whoever starts next. They cover the snapshot and more."""
        if self._marks is not None:
            # The snapshot first: marks only ever rise, and then cover it.
            sequence = self.snapshot.sequence
            save_marks(self._table, sequence, self._marks)

    def remember(self, rows: pa.Table) -> None:
        """Hold rows that were decided and found new, until a snapshot has them."""
        if rows.num_rows:
            self._pending.append(rows)

    def find(self, exchange: str, rows: pa.Table) -> Duplicates | None:
        """Which of `rows` (one exchange, log order, with lineage) are duplicates; None if none is.

        A row is a duplicate if its identity is in the table, pending, or earlier in `rows`.
        """
        found = [
            duplicates
            for marked in self._identity.marked(exchange, rows)
            if (duplicates := self._settle(exchange, rows, marked)) is not None
        ]
        if not found:
            return None
        order = np.argsort(np.concatenate([d.rows for d in found]), kind="stable")
        originals = pa.concat_tables([d.originals for d in found]).take(pa.array(order))
        return Duplicates(np.concatenate([d.rows for d in found])[order], originals)

    def _settle(self, exchange: str, rows: pa.Table, marked: Marked) -> Duplicates | None:
        if self._marks is None:
            self._marks = read_marks(self._table, self.snapshot, self.kind)
        marks = np.array([self._marks.numbers.get(n, NO_MARK) for n in marked.names], np.int64)
        committed = marked.numbers <= marks[marked.groups]
        repeats = ~ascending(marked)
        np.maximum.at(marks, marked.groups[marked.numeric], marked.numbers[marked.numeric])
        self._marks.numbers.update(zip(marked.names, marks.tolist(), strict=True))
        if not marked.numeric.all():
            others = np.flatnonzero(~marked.numeric)
            met = self._met(rows.take(pa.array(marked.rows[others])))
            committed[others], repeats[others] = met
        if not (committed | repeats).any():
            return None
        return self._exact(exchange, rows, marked, committed, repeats)

    def _met(self, rows: pa.Table) -> tuple[Mask, Mask]:
        """Rows with ids that are no numbers: which may be in the table or pending, and which
        repeat one of these. All of them count as met from now on.
        """
        assert self._marks is not None
        assert self._identity.id_column is not None
        hashes = hashes_of(rows, self._identity.id_column)
        before = self._marks.ids.may_hold(hashes)
        self._marks.ids.add(hashes[~before])
        return before, repeated(hashes)

    def _exact(
        self, exchange: str, rows: pa.Table, marked: Marked, committed: Mask, repeats: Mask
    ) -> Duplicates | None:
        way = marked.names[0][0]
        suspects, candidates = committed | repeats, None
        if committed.any():
            candidates = self._candidates(exchange, rows, marked, committed, way)
            if not candidates.num_rows:
                # As where a past is brought in: then the keys of all its rows need not be made.
                suspects, candidates = repeats, None
        if not suspects.any():
            return None
        places = marked.rows[suspects]
        suspect_rows = rows.take(pa.array(places))
        keys = self._identity.keys(way, suspect_rows)
        # In the batch: the first of equal keys is the original of the others. Only rows that share
        # a suspect's number can share its key.
        alike = np.isin(marked.numbers, marked.numbers[suspects])
        pool_places = marked.rows[alike]
        pool = rows.take(pa.array(pool_places))
        encoded = self._identity.keys(way, pool).dictionary_encode()
        _, first = np.unique(encoded.indices.to_numpy(), return_index=True)
        original = pool_places[first[pc.index_in(keys, encoded.dictionary).to_numpy()]]
        in_batch = original < places
        originals = plain(rows.select(LINEAGE).take(pa.array(original)))
        is_duplicate = in_batch
        if candidates is not None:
            match = pc.index_in(keys, self._identity.keys(way, candidates))
            # A row that is decided again (for the tail) must not be called its own duplicate.
            hit = pc.fill_null(match, 0)
            of = candidates.select(LINEAGE).take(hit)
            known = match.is_valid().to_numpy(zero_copy_only=False)
            known &= ~_same_place(of, suspect_rows)
            originals = _choose(known, of, originals)
            is_duplicate = in_batch | known
        if not is_duplicate.any():
            return None
        chosen = pa.array(np.flatnonzero(is_duplicate))
        named = originals.take(chosen).append_column(
            "identity", self._identity.text(way, suspect_rows.take(chosen))
        )
        return Duplicates(places[is_duplicate], named)

    def _candidates(
        self, exchange: str, rows: pa.Table, marked: Marked, wanted: Mask, way: str
    ) -> pa.Table:
        """Rows of table and pending that could be originals: symbols and numbers in range."""
        asked = rows.take(pa.array(marked.rows[wanted]))
        column: str | None = None
        condition = pc.field("exchange") == exchange
        columns = list(self._schema.arrow.names)
        symbols = None
        if "symbol" in columns:
            symbols = sorted({marked.names[g][2] for g in np.unique(marked.groups[wanted])})
            condition &= pc.field("symbol").isin(symbols)
        if way == "content" and "timestamp" in columns:
            low, high = (
                pa.scalar(int(n), pa.timestamp("us", tz="UTC"))
                for n in _range(marked.numbers[wanted])
            )
            files = self.snapshot.files.select(
                symbols=symbols, times=(low.as_py(), high.as_py() + timedelta(microseconds=1))
            )
            column = "timestamp"
        elif way == "content":
            files = self.snapshot.files.select(symbols=symbols)
        else:
            column = self._identity.id_column
            assert column is not None
            # A row with an occurrence is known by its content, whatever id it carries.
            columns = ["symbol", "exchange", "id_space", column, "occurrence"]
            condition &= pc.field("occurrence").is_null()
            low, high = (pc.min(asked[column]), pc.max(asked[column]))
            bounds = (low.as_py(), high.as_py()) if column == "trade_id" else None
            files = self.snapshot.files.select(symbols=symbols, trade_ids=bounds)
        wide = [*columns, *LINEAGE]
        schema = pa.unify_schemas([self._schema.arrow, _LINEAGE_SCHEMA])
        wanted_of = None if column is None else (column, _values(asked, column))
        if column is not None:
            condition &= _within(column, asked)
        found = _scan([f.path for f in files], schema, wide, condition, wanted_of) if files else []
        found += [plain(table.select(wide)).filter(condition) for table in self._pending]
        if not found:
            return plain(rows.select(wide).slice(0, 0))
        return pa.concat_tables(found, promote_options="permissive")


def _within(column: str, asked: pa.Table) -> pc.Expression:
    """Rows between the values that are asked for, of each symbol apart where these are few: row
    groups without any of them are not read then.
    """
    field, values = pc.field(column), _values(asked, column)
    of = _values(asked, "symbol") if "symbol" in asked.column_names else None
    edges = pa.table({"by": of if of is not None else pa.repeat("", len(values)), "v": values})
    found = edges.group_by("by").aggregate([("v", "min"), ("v", "max")])
    if of is None or found.num_rows > _RANGES:
        return (field >= pc.min(values)) & (field <= pc.max(values))
    return reduce(
        or_,
        (
            (pc.field("symbol") == symbol) & (field >= low) & (field <= high)
            for symbol, low, high in zip(found["by"], found["v_min"], found["v_max"], strict=True)
        ),
    )


def _values(table: pa.Table, column: str) -> pa.ChunkedArray:
    """A column without its dictionary."""
    return table[column].cast(plain_type(table.schema.field(column).type))


_RANGES: Final = 64
_LINEAGE_SCHEMA: Final = pa.schema(
    [
        ("log_topic", pa.string()),
        ("log_id", pa.string()),
        ("log_partition", pa.int32()),
        ("log_offset", pa.int64()),
    ]
)


def _scan(
    paths: Sequence[str],
    schema: pa.Schema,
    columns: Sequence[str],
    condition: pc.Expression,
    wanted: tuple[str, pa.ChunkedArray] | None,
) -> list[pa.Table]:
    """Rows of files that a condition holds for; if `wanted`, those with one of the values in a
    column. Of the others no more than a batch is in memory.
    """
    with reading_files():
        found = ds.dataset(list(paths), schema=plain_schema(schema), format="parquet")
        batches = found.to_batches(columns=list(columns), filter=condition)
        if wanted is not None:
            column, values = wanted
            values = values.unique()
            batches = (b.filter(pc.is_in(b[column], value_set=values)) for b in batches)
        return [pa.Table.from_batches([batch]) for batch in batches if batch.num_rows]


def past(table: pa.Table, snapshot: Snapshot) -> pa.Table:
    """The rows of `table` (all of one topic) at or past the snapshot's offsets."""
    topic = str(table["log_topic"][0]) if table.num_rows else ""
    offsets = snapshot.offsets.get(topic)
    if offsets is None:
        return table
    partition, offset = (table[name].to_numpy() for name in ("log_partition", "log_offset"))
    keep = np.ones(table.num_rows, np.bool_)
    for number, limit in offsets.next_offset.items():
        keep &= (partition != number) | (offset >= limit)
    return table if keep.all() else table.filter(pa.array(keep))


def _same_place(left: pa.Table, right: pa.Table) -> Mask:
    same = np.ones(left.num_rows, np.bool_)
    for column in ("log_partition", "log_offset"):
        same &= left[column].to_numpy() == right[column].to_numpy()
    for column in ("log_topic", "log_id"):
        same &= pc.equal(plain_column(left[column]), plain_column(right[column])).to_numpy()
    return same


def _choose(mask: Mask, yes: pa.Table, no: pa.Table) -> pa.Table:
    """Row by row, from `yes` where the mask is set, else from `no`."""
    yes, no = plain(yes), plain(no)
    columns = [pc.if_else(pa.array(mask), yes[c], no[c]) for c in LINEAGE]
    return pa.table(columns, schema=_LINEAGE_SCHEMA)


def _range(numbers: Ints) -> tuple[int, int]:
    return int(numbers.min()), int(numbers.max())
