"""Joins and what is measured on them as questions: from what is asked for to an answer that tells
what state it is of.
"""

import time
from dataclasses import replace

import pyarrow as pa

from k2.errors import NotFound
from k2.query.answer import Answer, counted, told
from k2.query.asking import PRICE_NOTE, Asking
from k2.query.asof import Rule
from k2.query.gaps import told_gaps
from k2.query.join import JoinWanted, before, fetch_join, notes_of
from k2.query.markouts import MarkoutsWanted, make_markouts
from k2.query.middles import Market, Measuring
from k2.query.page import NO_COMMIT, Page, from_token, to_token
from k2.query.selection import NOW, Past, Selection
from k2.query.spreads import SpreadsWanted, make_spreads
from k2.query.view import View


def answer_join(
    asking: Asking, wanted: JoinWanted, selection: Selection, past: Past, after: str | None
) -> Answer:
    """The answer to a join; `after` is the `next` of the page before."""
    began = time.perf_counter()
    asked = repr(("join", replace(wanted, limit=None), selection, past))
    page = from_token(after, asked) if after is not None else None
    left, right = views_of(asking, wanted.left, wanted.right, selection, past, page)
    joined = fetch_join(asking.engine, left, right, selection, wanted, after=page)
    views = [left] if left is right else [left, right]
    notes = [*notes_of(wanted, joined), *correction_notes(wanted.rule, views, past)]
    if past == NOW:
        notes += gap_notes(asking, views, selection, joined.table)
    return Answer(
        joined.table,
        told(views, joined.table, began, past=past, notes=notes),
        to_token(joined.following, asked) if joined.following else None,
    )


def views_of(
    asking: Asking,
    left: str,
    right: str,
    selection: Selection,
    past: Past,
    page: Page | None = None,
) -> tuple[View, View]:
    """The views of both kinds, of one moment; of one kind, the same view twice."""
    wide = before(selection)
    if left == right:
        view = asking.view(left, past, wide, page=page)
        return view, view
    # The left first: what stood beside a record that is seen was appended before it, and is seen.
    mine = asking.view(left, past, selection, page=page)
    pin = None if page is None or page.beside is None else replace(page, pin=page.beside, key=())
    try:
        return mine, asking.view(right, past, wide, page=pin)
    except NotFound:
        if past.as_of is None:
            raise
        # The left had begun by that moment, the right had not: nothing stood.
        return mine, replace(asking.view(right, NOW, wide), pin=NO_COMMIT)


def gap_notes(
    asking: Asking, views: list[View], selection: Selection, table: pa.Table
) -> list[str]:
    """A sentence for each kind of record of which some are missing where the answer looked."""
    found = ((view.table, asking.gaps(view, selection, table)) for view in views)
    return [one for kind, gaps in found for one in told_gaps(kind, gaps)]


def correction_notes(rule: Rule, views: list[View], past: Past) -> list[str]:
    """A sentence where corrections changed what is seen: they came later than their trades."""
    corrected = any(view.standing is not None for view in views)
    if not corrected or rule.look_ahead or past.as_known_at is not None:
        return []
    return [
        "trades are as corrections left them, whenever these were made: --as-known-at "
        "(as_known_at) shows them as they were known"
    ]


def answer_spreads(
    asking: Asking, wanted: SpreadsWanted, selection: Selection, past: Past
) -> Answer:
    """The answer to a question for spreads."""
    began = time.perf_counter()
    market, views = _market(asking, selection, past)
    made = make_spreads(market, selection, wanted)
    notes = [_horizon_note(wanted.how)]
    if made.left_out:
        notes.append(_left_out(made.left_out))
    notes += _market_notes(asking, views, selection, made.table, past, wanted.how)
    return Answer(made.table, told(views, made.table, began, past=past, notes=notes))


def answer_markouts(
    asking: Asking, wanted: MarkoutsWanted, selection: Selection, past: Past
) -> Answer:
    """The answer to a question for markouts."""
    began = time.perf_counter()
    market, views = _market(asking, selection, past)
    made = make_markouts(market, selection, wanted)
    notes = [_horizon_note(wanted.how)]
    if made.sideless:
        notes.append(f"{counted(made.sideless, 'trades')} left out: nobody knows who bought")
    if made.left_out:
        notes.append(_left_out(made.left_out))
    notes += _market_notes(asking, views, selection, made.table, past, wanted.how)
    return Answer(made.table, told(views, made.table, began, past=past, notes=notes))


def _market(asking: Asking, selection: Selection, past: Past) -> tuple[Market, list[View]]:
    trades, quotes = views_of(asking, "trades", "quotes", selection, past)
    return Market(asking.engine, trades, quotes), [trades, quotes]


def _left_out(count: int) -> str:
    return f"{counted(count, 'trades')} left out: no quote of both sides stood beside"


def _horizon_note(how: Measuring) -> str:
    when = "whenever it was known" if how.rule.look_ahead else "as it was known then"
    return (
        f"the market beside a trade is taken {when}, the one a horizon later as it was, whenever "
        "it was known"
    )


def _market_notes(
    asking: Asking,
    views: list[View],
    selection: Selection,
    table: pa.Table,
    past: Past,
    how: Measuring,
) -> list[str]:
    notes = [] if how.all_trades else [PRICE_NOTE]
    notes += correction_notes(how.rule, views, past)
    return notes + (gap_notes(asking, views, selection, table) if past == NOW else [])
