"""Bars, aggregations and best quotes as questions: from what is asked for to an answer that tells
what state it is of, and what it lacks.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput
from k2.query.adjust import ADJUSTMENTS, adjusted
from k2.query.aggregations import Measures, aggregate, check_metrics
from k2.query.answer import Answer, told
from k2.query.asking import PRICE_NOTE, Asking
from k2.query.bars import BarsWanted, make_bars
from k2.query.bbo import make_bbo
from k2.query.consolidated import make_consolidated, of_all
from k2.query.counted import KINDS, CountedWanted, dates_began, make_counted, parse_size, settled
from k2.query.frame import EVERY, as_one
from k2.query.gaps import Gap, complete, told_gaps
from k2.query.interval import parse_interval
from k2.query.profile import parse_bin
from k2.query.selection import Past, Selection
from k2.query.sessions import Sessions
from k2.query.view import View
from k2.query.zones import from_us

BAR_KINDS: Final = ("time", *KINDS)
"""What may close a bar."""

SESSIONS: Final = ("all", "regular")
"""Which trades count: all, or those of the declared sessions of their exchange."""


@dataclass(frozen=True)
class BarsAsked:
    """Bars as they are asked for: `interval` is a width of time, or of other `kind` (see
    `BAR_KINDS`) what closes a bar; `fill` shows intervals without trades; `last` keeps the newest
    of each symbol and exchange; `consolidated` makes one bar of all exchanges; `adjusted` by what
    (see `k2.query.adjust`).
    """

    interval: str
    kind: str = "time"
    all_trades: bool = False
    fill: bool = False
    last: int | None = None
    consolidated: bool = False
    session: str = "all"
    adjusted: str = "none"


@dataclass(frozen=True)
class AggregationsAsked:
    """Measures as they are asked for: `metrics` by their names, `bin_size` as text."""

    metrics: tuple[str, ...]
    interval: str
    all_trades: bool = False
    bin_size: str | None = None
    session: str = "all"


def answer_bars(asking: Asking, selection: Selection, asked: BarsAsked, past: Past) -> Answer:
    """The answer to a question for bars."""
    began = time.perf_counter()
    if asked.kind not in BAR_KINDS:
        raise BadInput(
            "there are no such bars", place="kind", found=asked.kind, expected=", ".join(BAR_KINDS)
        )
    if asked.adjusted not in ADJUSTMENTS:
        raise BadInput(
            "there is no such adjustment",
            place="adjusted",
            found=asked.adjusted,
            expected=", ".join(ADJUSTMENTS),
        )
    selection = _in_session(asking, selection, asked.session)
    of = _time_bars if asked.kind == "time" else _counted_bars
    return of(asking, selection, asked, past, began)


def _time_bars(
    asking: Asking, selection: Selection, asked: BarsAsked, past: Past, began: float
) -> Answer:
    wanted = BarsWanted(
        parse_interval(asked.interval), asked.all_trades, fill=asked.fill, last=asked.last
    )
    view = asking.view("trades", past, selection)
    if asked.consolidated and asked.adjusted != "none":
        raise BadInput(
            "bars of all exchanges as one are not adjusted: each has its own corporate actions",
            place="adjusted",
            hint="ask for them by exchange",
        )
    make = make_consolidated if asked.consolidated else make_bars
    table = make(asking.engine, view, selection, wanted)
    gaps = asking.gaps(view, selection, table)
    markets = as_one(view.exchanges, selection) if asked.consolidated else view.exchanges
    mine = of_all(gaps) if asked.consolidated else gaps
    whole = complete(table, mine, wanted.interval, markets)
    table = table.append_column("complete", whole)
    if asked.fill:
        table = table.append_column("state", _states(table, is_whole=not view.shed))
    notes: list[str] = []
    if asked.adjusted != "none":
        now = view.known_at or asking.clock()
        table, notes = adjusted(asking, view, table, wanted.interval, asked.adjusted, past, now)
    return _told(view, selection, table, began, past, gaps, all_trades=asked.all_trades, more=notes)


def _states(bars: pa.Table, *, is_whole: bool) -> pa.Array:
    """What is known of each interval: it was traded in, was empty, or nobody knows.

    While records wait in the log that were shed (the view is not whole), nobody knows of any: when
    they happened is not known before they are in.
    """
    untraded = pc.if_else(bars["complete"], "empty", "unknown") if is_whole else "unknown"
    return pc.if_else(pc.greater(bars["trade_count"], 0), "traded", untraded)


def _counted_bars(
    asking: Asking, selection: Selection, asked: BarsAsked, past: Past, began: float
) -> Answer:
    given = {
        "fill": asked.fill,
        "consolidated": asked.consolidated,
        "adjusted": asked.adjusted != "none",
    }
    for name, value in given.items():
        if value:
            raise BadInput(
                f"{asked.kind} bars take no {name}",
                place=name,
                hint="bars of time do: --kind time (kind=time)",
            )
    wanted = CountedWanted(
        parse_size(asked.kind, asked.interval), all_trades=asked.all_trades, last=asked.last
    )
    view = asking.view("trades", past, selection)
    made = make_counted(asking.engine, view, selection, wanted)
    looked = selection
    if made.num_rows:
        # What a date lacks before a bar shifts it.
        looked = replace(selection, start=from_us(int(dates_began(made, view.exchanges).min())))
    gaps = asking.gaps(view, looked, made)
    table = settled(made, gaps, view.exchanges)
    return _told(view, selection, table, began, past, gaps, all_trades=asked.all_trades)


def answer_aggregations(
    asking: Asking, selection: Selection, asked: AggregationsAsked, past: Past
) -> Answer:
    """The answer to a question for measures."""
    began = time.perf_counter()
    wanted = Measures(
        check_metrics(asked.metrics),
        parse_interval(asked.interval),
        asked.all_trades,
        None if asked.bin_size is None else parse_bin(asked.bin_size),
    )
    if wanted.bin_size is not None and "volume_profile" not in wanted.metrics:
        raise BadInput("a bin size is for the metric volume_profile", place="bin_size")
    selection = _in_session(asking, selection, asked.session)
    view = asking.view("trades", past, selection)
    table = aggregate(asking.engine, view, selection, wanted)
    gaps = asking.gaps(view, selection, table)
    whole = complete(table, gaps, wanted.interval, view.exchanges)
    table = table.append_column("complete", whole)
    return _told(view, selection, table, began, past, gaps, all_trades=asked.all_trades)


def answer_bbo(asking: Asking, selection: Selection, last: int | None, past: Past) -> Answer:
    """The answer to a question for the best bid and offer over exchanges."""
    began = time.perf_counter()
    view = asking.view("quotes", past, selection)
    table = make_bbo(asking.engine, view, selection, last)
    gaps = asking.gaps(view, selection, table)
    return _told(view, selection, table, began, past, gaps, all_trades=True)


def _in_session(asking: Asking, selection: Selection, session: str) -> Selection:
    """The selection, without what is outside the regular sessions where these are asked for."""
    if session not in SESSIONS:
        raise BadInput(
            "there is no such session", place="session", found=session, expected="regular, all"
        )
    return selection if session == "all" else replace(selection, sessions=asking.sessions())


def _told(
    view: View,
    selection: Selection,
    table: pa.Table,
    began: float,
    past: Past,
    gaps: Sequence[Gap],
    *,
    all_trades: bool,
    more: Sequence[str] = (),
) -> Answer:
    notes = [*([] if all_trades else [PRICE_NOTE]), *more, *told_gaps(view.table, gaps)]
    if selection.sessions is None:
        return Answer(table, told([view], table, began, past=past, notes=notes))
    notes += _session_notes(selection.sessions, table)
    meta = told([view], table, began, past=past, notes=notes)
    return Answer(table, {**meta, "sessions": selection.sessions.version})


def _session_notes(sessions: Sessions, table: pa.Table) -> Iterator[str]:
    yield "only trades of regular sessions"
    names = sorted(set(table["exchange"].to_pylist()) - sessions.of.keys())
    if names and names != [EVERY]:
        yield f"no session of {', '.join(names)} is declared: all of their trades are in"
