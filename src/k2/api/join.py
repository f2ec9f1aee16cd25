"""As-of joins: POST /v1/join."""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import Field, WithJsonSchema
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.errors import BadInput
from k2.query import JoinWanted, Rule
from k2.query.times import parse_span

router = APIRouter(tags=["joins"])

Kind = Literal["trades", "quotes"]
Span = Annotated[
    str,
    Field(max_length=32, examples=["5s"]),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,4}(us|ms|s|m|h|d)$"}),
]


class JoinAsked(asked.PageAsked):
    """Body of POST /v1/join."""

    left: Kind = Field("trades", description="The records that are asked for")
    right: Kind = Field("quotes", description="What stood beside each of them")
    max_age: Span | None = Field(
        None, description="None of `right` that is older is taken: 5s, 250ms …"
    )
    strict: bool = Field(False, description="Before the time of `left`, not at it")
    look_ahead: bool = Field(False, description="Take also what was not known yet by then")
    last: asked.Whole | None = Field(
        None, ge=1, le=100_000, description="The newest so many instead of pages from the oldest"
    )


@router.post(
    "/v1/join",
    responses=shapes.table("Joined"),
    openapi_extra=asked.json_body(JoinAsked),
    summary="Each trade with the quote that stood when it printed",
)
async def join(request: Request) -> Response:
    """Each record of `left` with the last of `right`, of its symbol and exchange, at or before it.

    Where nothing stood, the columns of `right` are null. Their names have `quote_` or `trade_`
    before them where `left` has the same. What was not known yet when the record of `left` was is
    not taken, but the one before it; `look_ahead` takes it, and `meta.notes` says so.
    """
    query = await asked.body(request, JoinAsked)
    if query.last is not None and query.after is not None:
        raise BadInput(
            "`last` and `after` exclude each other",
            place="body.last",
            hint="`last` gives the newest rows, `after` the page behind another",
        )
    selection = asked.selection(
        answers.desk(request).clock,
        symbols=query.symbols,
        exchanges=query.exchanges,
        start_time=query.start_time,
        end_time=query.end_time,
    )
    wanted = JoinWanted(
        query.left,
        query.right,
        Rule(query.strict, query.look_ahead),
        None if query.max_age is None else span("body.max_age", query.max_age),
        query.last,
        None if query.last else query.limit,
        tuple(dict.fromkeys(query.fields)),
    )
    return await answers.answer(
        request,
        lambda reader, seconds: reader.join(
            wanted,
            selection,
            after=query.after,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            timeout=seconds,
        ),
        asked=(selection, query),
        limit=query.last or query.limit,
        format=query.format,
    )


def span(place: str, text: str) -> timedelta:
    """The length of time that a parameter spells. Raises `BadInput` for what is none."""
    try:
        return parse_span(text)
    except BadInput as error:
        raise BadInput(
            error.message, place=place, found=text[:80], expected=error.expected, hint=error.hint
        ) from error
