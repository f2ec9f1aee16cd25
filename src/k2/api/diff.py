"""What was added between two states: GET /v1/diff."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.query import Selection

router = APIRouter(tags=["time travel"])


class DiffAsked(asked.FormatAsked):
    """Parameters of GET /v1/diff."""

    since: asked.AsOf = Field(
        description="First state: a time with a zone, a tag, or a snapshot id"
    )
    until: asked.AsOf | None = Field(None, description="Second state; else the newest commit")
    kind: Literal["trades", "quotes", "corrections"] = "trades"
    symbol: asked.Symbol | None = None
    exchange: asked.ExchangeName | None = None


@router.get("/v1/diff", responses=shapes.table("Added"), summary="What came between two states")
async def diff(request: Request, query: Annotated[DiffAsked, Query()]) -> Response:
    """Rows that came after one state and up to another, by symbol and exchange.

    `late` of them are of a trading date before the one on which the first state was; `corrections`
    of trades came besides. `meta.since` and `meta.until` tell the two commits.
    """
    selection = Selection(
        (query.symbol,) if query.symbol else (), (query.exchange,) if query.exchange else ()
    )
    return await answers.answer(
        request,
        lambda reader, seconds: reader.diff.between(
            query.since,
            query.until,
            kind=query.kind,
            selection=selection,
            timeout=seconds,
        ),
        asked=query,
        format=query.format,
    )
