"""What was added between two states of a kind: rows and corrections, by symbol and exchange.

Rows are only ever added, and each knows the commit that brought it, so that only files that came
after the first state are read.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput, NotFound
from k2.model import TIMESTAMP_TYPE, Exchange
from k2.query.answer import Answer, told
from k2.query.page import Page
from k2.query.port import Engine, PartialFile, Pin, Source
from k2.query.predicate import predicate
from k2.query.selection import Selection
from k2.query.state import State
from k2.query.statements import statement
from k2.query.stopping import limited
from k2.query.view import View

CORRECTIONS: Final = "corrections"
_ALL: Final = Selection()

ADDED: Final = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("first_timestamp", TIMESTAMP_TYPE),
        pa.field("last_timestamp", TIMESTAMP_TYPE),
        pa.field("late", pa.int64(), nullable=False),
        pa.field("corrections", pa.int64(), nullable=False),
    ]
)
"""Columns of a comparison. `late` of the rows are of a trading date before the one on which the
first state was; `corrections` of trades came besides.
"""


@dataclass(frozen=True)
class Stretch:
    """Commits of a kind past `first`, up to `last` (inclusive). `began` is when the first state
    was: the time that was asked for, or else that of its commit.
    """

    kind: str
    first: int
    last: int
    began: datetime


class Diff:
    """Compares states. Any thread may ask; `timeout` is in seconds."""

    def __init__(self, state: State, engine: Engine) -> None:
        self._state = state
        self._engine = engine

    def between(
        self,
        since: str,
        until: str | None = None,
        *,
        kind: str = "trades",
        selection: Selection = _ALL,
        timeout: float | None = None,
    ) -> Answer:
        """What came to a kind after the state `since` and up to `until` (None: the newest commit),
        each a time, a tag or a snapshot id: a row per symbol and exchange (see `ADDED`).
        """
        with limited(timeout):
            began = time.perf_counter()
            found = find_stretch(self._state, kind, since, until)
            view, rows = self._added(found, selection)
            beside = None
            if kind == "trades":
                beside = find_corrections(self._state, since, until, found.began)
            corrections = None if beside is None else self._added(beside, selection)[1]
            table = join_corrections(rows, corrections)
            states = {
                name: self._state.committed(kind, commit).to_json()
                for name, commit in (("since", found.first), ("until", found.last))
            }
            return Answer(table, told([view], table, began) | states)

    def _added(self, stretch: Stretch, selection: Selection) -> tuple[View, pa.Table]:
        if stretch.first:
            self._state.lake.table(stretch.kind).snapshot().check_past(stretch.first)
        page = Page(Pin(stretch.last), ())
        view = self._state.view(stretch.kind, page=page, selection=selection)
        return view, added_rows(self._engine, view, selection, stretch)


def find_stretch(state: State, kind: str, since: str, until: str | None) -> Stretch:
    """The commits between two states: times, tags or snapshot ids as text; None is the newest.

    A time before the first commit is the state without a row. Raises `NotFound` for what is none,
    `BadInput` where the first state is after the second.
    """
    last = state.last_commit(kind, until)
    if not last:
        raise NotFound(f"nothing was committed to {kind} yet")
    meant = state.moment_of(kind, since)
    try:
        first = state.last_commit(kind, since)
    except NotFound:
        if not isinstance(meant, datetime):
            raise
        first = 0
    began = meant if isinstance(meant, datetime) else state.committed(kind, first).committed_at
    assert began is not None
    if first > last:
        raise BadInput(
            "the first state is after the second",
            found=f"{since} (commit {first}) to {until or 'now'} (commit {last})",
            expected="a first state that was before the second",
        )
    return Stretch(kind, first, last, began)


def find_corrections(
    state: State, since: str, until: str | None, began: datetime
) -> Stretch | None:
    """The commits of corrections between the same two states of trades; None for no correction."""
    commits = []
    for when in (since, until):
        try:
            commits.append(state.last_commit(CORRECTIONS, when, zones_of="trades"))
        except NotFound:
            commits.append(0)
    first, last = commits
    return Stretch(CORRECTIONS, first, last, began) if last else None


def added_rows(engine: Engine, view: View, selection: Selection, stretch: Stretch) -> pa.Table:
    """What the stretch added, without corrections: columns of `ADDED` but the last."""
    files = [file for file in view.select(selection.symbols) if file.sequence > stretch.first]
    source = Source(
        columns=view.columns,
        partial=tuple(PartialFile(file.path, file.sequence) for file in files),
        pin=Pin(stretch.last, after=stretch.first),
        rows=sum(file.rows for file in files),
    )
    made = predicate(selection, view.columns, view.time, view.exchanges)
    return engine.run(
        statement("added", made.values, predicate=made.text, time=view.time),
        {"rows": source, "days": _days(view.exchanges, stretch.began)},
    )


def _days(exchanges: Mapping[str, Exchange], moment: datetime) -> pa.Table:
    """The trading date of each exchange at that moment."""
    days = [
        (moment + of.day_roll).astimezone(ZoneInfo(of.zone)).date() for of in exchanges.values()
    ]
    return pa.table(
        {
            "exchange": pa.array(list(exchanges), pa.string()),
            "day": pa.array(days, pa.date32()),
        }
    )


def join_corrections(rows: pa.Table, corrections: pa.Table | None) -> pa.Table:
    """Both as one table (see `ADDED`), by symbol and exchange."""
    keys = ["symbol", "exchange"]
    if corrections is None:
        found = rows.append_column("corrections", pa.nulls(rows.num_rows, pa.int64()))
    else:
        beside = corrections.select([*keys, "rows"]).rename_columns([*keys, "corrections"])
        found = rows.join(beside, keys, join_type="full outer")
    columns = [
        pc.fill_null(found[field.name].cast(field.type), 0)
        if pa.types.is_integer(field.type)
        else found[field.name].cast(field.type)
        for field in ADDED
    ]
    return pa.table(columns, schema=ADDED).sort_by([(key, "ascending") for key in keys])
