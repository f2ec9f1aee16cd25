"""What a question would read: GET /v1/explain."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from k2.api import answers, asked, shapes

router = APIRouter(tags=["evidence"])

Kind = Literal["trades", "quotes", "corrections"]


class ExplainAsked(asked.FormatAsked):
    """Parameters of GET /v1/explain."""

    kind: list[Kind] = Field(["trades"], min_length=1, max_length=3)
    symbol: list[asked.Symbol] = Field([], max_length=100, description="May be repeated")
    exchange: list[asked.ExchangeName] = Field([], max_length=100, description="May be repeated")
    start_time: asked.When | None = Field(None, description=asked.FROM)
    end_time: asked.When | None = Field(None, description=asked.TO)
    as_of: asked.AsOf | None = None


@router.get("/v1/explain", responses=shapes.table("Estimate"), summary="What a question would read")
async def explain(request: Request, query: Annotated[ExplainAsked, Query()]) -> Response:
    """How many files, rows and bytes a question about this selection would read, at most.

    Nothing is read for it but the index.
    """
    wanted = asked.selection(
        answers.desk(request).clock,
        symbols=query.symbol,
        exchanges=query.exchange,
        start_time=query.start_time,
        end_time=query.end_time,
    )
    kinds = tuple(dict.fromkeys(query.kind))
    return await answers.answer(
        request,
        lambda reader, _: reader.explain(kinds, wanted, as_of=query.as_of),
        asked=(kinds, wanted, query),
        format=query.format,
    )
