"""What there is: GET /v1/symbols, /v1/stats."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from k2.api import answers, asked, shapes

router = APIRouter(tags=["what there is"])


@router.get("/v1/symbols", responses=shapes.table("Symbol"), summary="What is traded and quoted")
async def symbols(request: Request, query: Annotated[asked.SymbolsAsked, Query()]) -> Response:
    """Every symbol with its counts of trades and quotes, its first and its last time."""
    return await answers.answer(
        request,
        lambda reader, seconds: reader.symbols(
            exchange=query.exchange, as_of=query.as_of, timeout=seconds
        ),
        asked=query,
        format=query.format,
    )


@router.get("/v1/stats", responses=shapes.table("Stats"), summary="The tables in numbers")
async def stats(request: Request, query: Annotated[asked.StatsAsked, Query()]) -> Response:
    """Per table: rows, files, bytes, snapshot, first and last time, rows of the tail, lag."""
    return await answers.answer(
        request,
        lambda reader, seconds: reader.stats(as_of=query.as_of, timeout=seconds),
        asked=query,
        format=query.format,
    )
