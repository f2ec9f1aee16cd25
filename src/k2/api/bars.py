"""Bars: GET /v1/bars/{interval}, POST /v1/bars/batch."""

from dataclasses import replace
from typing import Annotated

import pyarrow.compute as pc
from fastapi import APIRouter, Path, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.query import Answer, Reader, Selection

router = APIRouter(tags=["bars"])


@router.post(
    "/v1/bars/batch",
    responses=shapes.table("Bar"),
    openapi_extra=asked.json_body(asked.BarsBatchAsked),
    summary="Bars of many symbols",
)
async def batch(request: Request) -> Response:
    """The newest `last` bars of each of up to 100 symbols."""
    query = await asked.body(request, asked.BarsBatchAsked)
    wanted = asked.selection(
        answers.desk(request).clock,
        symbols=query.symbols,
        exchanges=query.exchanges,
        start_time=query.start_time,
        end_time=query.end_time,
    )
    return await _bars(request, wanted, query.interval, query)


@router.get("/v1/bars/batch", include_in_schema=False)
async def no_batch() -> Response:
    """The route below would take `batch` for an interval."""
    raise HTTPException(405, headers={"Allow": "POST"})


@router.get("/v1/bars/{interval}", responses=shapes.table("Bar"), summary="Bars of one symbol")
async def bars(
    request: Request,
    interval: Annotated[asked.BarInterval, Path()],
    query: Annotated[asked.BarsAsked, Query()],
) -> Response:
    """The newest `last` bars of the range, oldest first. Trades that form no price are left out.

    Bars of kind tick, volume and dollar begin anew with each exchange date; the trade that fills
    one closes it and is not split. `complete` is false before a bar is full, and where trades are
    missing.
    """
    wanted = asked.selection(
        answers.desk(request).clock,
        symbols=[query.symbol],
        exchanges=[query.exchange] if query.exchange else [],
        start_time=query.start_time,
        end_time=query.end_time,
    )
    return await _bars(request, wanted, interval, query)


async def _bars(
    request: Request,
    wanted: Selection,
    interval: str,
    query: asked.BarsAsked | asked.BarsBatchAsked,
) -> Response:
    def make(reader: Reader, seconds: float) -> Answer:
        made = reader.bars(
            wanted,
            interval,
            kind=query.kind,
            all_trades=query.all_trades,
            fill=query.fill,
            consolidated=query.consolidated,
            session=query.session,
            adjusted=query.adjusted,
            last=query.last,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            timeout=seconds,
        )
        held = made.table.group_by(["symbol", "exchange"]).aggregate([([], "count_all")])
        if not pc.any(pc.greater_equal(held["count_all"], query.last)).as_py():
            return made
        note = f"only the newest {query.last:,} bars of a symbol: earlier ones may be left out"
        notes = made.meta.get("notes")
        told = notes if isinstance(notes, list) else []
        return replace(made, meta={**made.meta, "notes": [*told, note]})

    return await answers.answer(
        request,
        make,
        asked=(wanted, interval, query),
        limit=query.last,
        format=query.format,
    )
