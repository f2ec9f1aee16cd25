"""One exchange day: GET /v1/summary/{symbol}/{date}."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from k2.api import answers, asked, shapes

router = APIRouter(tags=["bars"])


@router.get(
    "/v1/summary/{symbol:path}/{date}",
    responses=shapes.table("Summary"),
    summary="One exchange day of a symbol",
)
async def summary(
    request: Request,
    symbol: Annotated[asked.Symbol, Path()],
    day: Annotated[asked.Day, Path(alias="date", description="The exchange's own date")],
    query: Annotated[asked.SummaryAsked, Query()],
) -> Response:
    """Open, high, low, close, volume, trades and VWAP, a row per exchange; 404 if there is none.

    The symbol may hold a slash.
    """
    date = asked.day(day)
    return await answers.answer(
        request,
        lambda reader, seconds: reader.summary(
            symbol,
            date,
            exchange=query.exchange,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            timeout=seconds,
        ),
        asked=(symbol, date, query),
        format=query.format,
    )
