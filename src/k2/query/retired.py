"""Days that are not kept any more: which of them an answer touches, and past states that had them.

Comes in: a view, and what is asked of it. Goes out: the view with what of the ledger touches this,
or an error where the state that is asked for had rows that were retired since.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import Refused
from k2.lake import Lake
from k2.lake.retired import RetiredRows, of_kind
from k2.model import Exchange, start_of_day
from k2.query.gaps import Gap
from k2.query.predicate import instants
from k2.query.selection import Selection
from k2.query.view import View

CAUSE: Final = "retired"
"""Of a gap that is none: records were there, and are not kept."""

_COLUMNS: Final = (
    *("event", "kind", "exchange", "exchange_date", "symbols"),
    *("first_timestamp", "last_timestamp", "first_commit", "commit"),
)
_MICROSECOND: Final = timedelta(microseconds=1)


class Retirements:
    """The ledger of one lake, as answers need it. Any thread may ask."""

    def __init__(self, lake: Lake) -> None:
        self._ledger = RetiredRows(lake, _COLUMNS)

    def told(self, view: View, selection: Selection, day: date | None = None) -> View:
        """The view with the entries that the selection (of one trading date) touches.

        Raises `Refused` where the view is of a state that had such rows, and they were retired
        since: what was there then cannot be told any more. By days and symbols: a state is refused
        as well where a day had rows of these symbols outside of the times that are asked for.
        """
        if not view.retirement:
            return view
        rows = of_kind(self._ledger.rows(), view.table, view.retirement)
        rows = rows.filter(_touched(view, selection, day))
        if selection.symbols:
            rows = rows.filter(_names_one(rows["symbols"], selection.symbols))
        upto = view.pinned.sequence
        since = pc.field("commit") > upto
        if not view.pinned.ranges:
            # What came by a later commit was not there; but what was in the log then, was.
            since &= pc.field("first_commit") <= upto
        if view.pin is not None and (lost := rows.filter(since)).num_rows:
            raise Refused(
                f"{view.table} that were there then were retired since",
                place=_spell(lost),
                found=f"the state of commit {upto}",
                expected=f"commit {pc.max(lost['commit']).as_py()} or a later one",
                hint="`retired` lists what is not kept; other days and symbols can be asked for",
            )
        gone = rows.filter(pc.field("commit") <= upto)
        return replace(view, retired=gone) if gone.num_rows else view


def _touched(view: View, selection: Selection, day: date | None) -> pc.Expression:
    wanted = pc.field("commit") > 0
    if selection.exchanges:
        wanted &= pc.field("exchange").isin(list(selection.exchanges))
    if day is not None:
        return wanted & (pc.field("exchange_date") == day)
    for at, edge in instants(selection.start, selection, view.exchanges).items():
        wanted &= (pc.field("last_timestamp") >= edge) | _is_other(at)
    for at, edge in instants(selection.end, selection, view.exchanges).items():
        wanted &= (pc.field("first_timestamp") < edge) | _is_other(at)
    return wanted


def _is_other(exchange: str) -> pc.Expression:
    """Of another exchange than this one, whose edge it is ('': that of all)."""
    return pc.field("exchange") != exchange if exchange else pc.field("commit") < 0


def _names_one(symbols: pa.ChunkedArray, wanted: Sequence[str]) -> pa.ChunkedArray:
    """Which of these JSON lists name one of the symbols: as text, since lists are long."""
    found = pc.is_null(symbols)
    for symbol in wanted:
        spelled = json.dumps(symbol, ensure_ascii=False)
        found = pc.or_(found, pc.match_substring(symbols, spelled))
    return found


def of_newest(view: View, table: pa.Table, last: int | None) -> View:
    """The view of an answer of the newest records: what lies before them was not asked for."""
    if view.retired is None or last is None or table.num_rows < last:
        return view
    if view.time not in table.column_names:
        return view
    since = pc.field("last_timestamp") >= pc.min(table[view.time])
    rows = view.retired.filter(since)
    return replace(view, retired=rows if rows.num_rows else None)


def note(view: View) -> Iterator[str]:
    """What an answer from this view says of days that are not kept, if it touches any."""
    if view.retired is not None:
        yield (
            f"{view.table} of {_spell(view.retired)} were retired and are not in this answer: "
            "`retired` lists them"
        )


def _spell(rows: pa.Table) -> str:
    names = ", ".join(sorted(pc.unique(rows["exchange"]).to_pylist()))
    days = pc.unique(rows["exchange_date"]).sort().to_pylist()
    if len(days) == 1:
        return f"{names} on {days[0]}"
    return f"{names} on {len(days):,} days from {days[0]} to {days[-1]}"


def as_gaps(view: View, symbols: Sequence[str]) -> list[Gap]:
    """The days of these symbols that are not kept, as gaps: of an interval in one of them nobody
    can say any more what was traded.
    """
    if view.retired is None:
        return []
    found: dict[tuple[str, date], set[str]] = {}
    for row in view.retired.to_pylist():
        names = set(json.loads(row["symbols"])).intersection(symbols)
        found.setdefault((row["exchange"], row["exchange_date"]), set()).update(names)
    gaps = []
    for (name, day), names in sorted(found.items()):
        begin, end = _ends(view.exchanges, name, day)
        gaps += [Gap(symbol, name, begin, end, None, CAUSE) for symbol in sorted(names)]
    return gaps


def still_gaps(gaps: Sequence[Gap], retired: Sequence[Gap]) -> list[Gap]:
    """The gaps that do not lie in a day that is not kept: what filled these went with it."""
    return [
        gap
        for gap in gaps
        if not any(
            (gap.symbol, gap.exchange) == (of.symbol, of.exchange)
            and of.start is not None
            and of.end is not None
            and gap.start is not None
            and gap.end is not None
            and of.start <= gap.start
            and gap.end <= of.end
            for of in retired
        )
    ]


def _ends(exchanges: Mapping[str, Exchange], name: str, day: date) -> tuple[datetime, datetime]:
    of = exchanges[name]
    return start_of_day(day, of), start_of_day(day + timedelta(days=1), of) - _MICROSECOND
