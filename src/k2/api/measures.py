"""What trading cost: GET /v1/spreads, /v1/markouts."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.api.join import Span, span
from k2.query import MarkoutsWanted, Measuring, Rule, Selection, SpreadsWanted, parse_interval

router = APIRouter(tags=["measures"])


class MeasureAsked(asked.FormatAsked):
    """What both take."""

    symbol: asked.Symbol
    exchange: asked.ExchangeName | None = None
    start_time: asked.When | None = Field(None, description=asked.FROM)
    end_time: asked.When | None = Field(None, description=asked.TO)
    all_trades: asked.Flag = Field(False, description="Take in trades that form no price")
    max_age: Span | None = Field(None, description="No quote that is older is taken: 5s, 250ms …")
    strict: asked.Flag = Field(False, description="Quotes before the time of a trade, not at it")
    look_ahead: asked.Flag = Field(
        False, description="Take also quotes that were not known yet when a trade printed"
    )
    as_of: asked.AsOf | None = None
    as_known_at: asked.When | None = Field(None, description=asked.KNOWN)


class SpreadsAsked(MeasureAsked):
    """Parameters of GET /v1/spreads."""

    interval: asked.Interval = "1m"
    horizon: Span = Field("10s", description="When after a trade its realised spread is measured")


class MarkoutsAsked(MeasureAsked):
    """Parameters of GET /v1/markouts."""

    horizon: list[Span] = Field(
        ["1s", "10s", "1m"],
        min_length=1,
        max_length=20,
        description="How long after a trade the market is looked at; may be repeated",
    )


@router.get("/v1/spreads", responses=shapes.table("Spread"), summary="Spreads of intervals")
async def spreads(request: Request, query: Annotated[SpreadsAsked, Query()]) -> Response:
    """Quoted, effective and realised spreads of each interval in which anything happened.

    `quoted_spread` is ask - bid by the time for which each quote stood, of the `quoted_seconds` in
    which both sides did. `effective_spread` is 2 * |price - middle|, and `realised_spread` 2 *
    (price - the middle a `horizon` later) for buys, the negative for sells, both by quantity.
    """
    wanted = SpreadsWanted(
        parse_interval(query.interval), span("query.horizon", query.horizon), _how(query)
    )
    selection = _selection(request, query)
    return await answers.answer(
        request,
        lambda reader, seconds: reader.spreads(
            wanted,
            selection,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            timeout=seconds,
        ),
        asked=(selection, query),
        format=query.format,
    )


@router.get("/v1/markouts", responses=shapes.table("Markout"), summary="Moves after trades")
async def markouts(request: Request, query: Annotated[MarkoutsAsked, Query()]) -> Response:
    """The mean move of the middle after trades, by quantity, for each side and horizon.

    `markout` is (the middle a `horizon` later - the middle when the trade printed) for buys, the
    negative for sells: above zero the market went the way of whoever crossed the spread.
    """
    horizons = dict.fromkeys(span("query.horizon", text) for text in query.horizon)
    wanted = MarkoutsWanted(tuple(horizons), _how(query))
    selection = _selection(request, query)
    return await answers.answer(
        request,
        lambda reader, seconds: reader.markouts(
            wanted,
            selection,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            timeout=seconds,
        ),
        asked=(selection, query),
        format=query.format,
    )


def _how(query: MeasureAsked) -> Measuring:
    age = None if query.max_age is None else span("query.max_age", query.max_age)
    return Measuring(Rule(query.strict, query.look_ahead), age, query.all_trades)


def _selection(request: Request, query: MeasureAsked) -> Selection:
    return asked.selection(
        answers.desk(request).clock,
        symbols=[query.symbol],
        exchanges=[query.exchange] if query.exchange else [],
        start_time=query.start_time,
        end_time=query.end_time,
    )
