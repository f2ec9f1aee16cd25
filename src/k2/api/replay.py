"""Replays: POST /v1/replay gives the records of a range in time order, page by page."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.errors import BadInput
from k2.pace import FASTEST, parse_speed
from k2.query import Past, Replayed

router = APIRouter(tags=["replay"])

Kind = Literal["trades", "quotes", "corrections"]
Place = Annotated[str, Field(min_length=1, max_length=16_384)]
"""The text of a position."""
SPEED: Final = r"^(max|[0-9]{1,7}(\.[0-9]{1,6})?)$"
SPEED_ABOUT: Final = "A multiple of real time, or `max`"


class ReplayAsked(asked.Asked):
    """Body of POST /v1/replay."""

    kinds: list[Kind] = Field(["trades"], min_length=1, max_length=3)
    symbols: list[asked.Symbol] = Field([], max_length=100)
    exchanges: list[asked.ExchangeName] = Field([], max_length=100)
    start_time: asked.When | None = Field(None, description="Inclusive")
    end_time: asked.When | None = Field(None, description="Exclusive")
    speed: str = Field(FASTEST, pattern=SPEED, description=SPEED_ABOUT)
    batch_size: asked.Whole = Field(1_000, ge=1, le=100_000, description="Records of a page")
    after: Place | None = Field(
        None, description="`next` of the page before: its range of times, its state, next records"
    )
    as_of: asked.AsOf | None = None
    as_known_at: asked.When | None = None
    format: asked.FormatName | None = None


@router.post(
    "/v1/replay",
    responses=shapes.table("Replayed"),
    openapi_extra=asked.json_body(ReplayAsked),
    summary="Records in time order, exchanges and kinds merged",
)
async def replay(request: Request) -> Response:
    """Pages of records in one order over all kinds and exchanges, of one state.

    `meta.replay` says when they are due: a record `(timestamp - origin) / speed` after the first
    one of the replay. Whoever reads keeps the pace, or asks GET /v1/stream to.
    """
    query = await asked.body(request, ReplayAsked)
    wanted = Replayed(
        tuple(dict.fromkeys(query.kinds)),
        asked.selection(
            answers.desk(request).clock,
            symbols=query.symbols,
            exchanges=query.exchanges,
            start_time=query.start_time,
            end_time=query.end_time,
        ),
        Past(query.as_of, query.as_known_at),
    )
    speed = to_speed(query.speed, "body.speed")
    return await answers.answer(
        request,
        lambda reader, seconds: reader.replay_page(
            wanted, query.batch_size, speed=speed, after=query.after, timeout=seconds
        ),
        asked=(wanted, query),
        limit=query.batch_size,
        format=query.format,
    )


def to_speed(text: str, place: str) -> float | None:
    """The speed; raises `BadInput` with the place at which a request has it."""
    try:
        return parse_speed(text)
    except BadInput as error:
        raise BadInput(error.message, place=place, expected=error.expected) from error
