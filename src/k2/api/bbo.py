"""The best bid and offer over exchanges: GET /v1/bbo."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.query import Answer, Reader

router = APIRouter(tags=["records"])


@router.get(
    "/v1/bbo", responses=shapes.table("BestQuote"), summary="Best bid and offer over exchanges"
)
async def bbo(request: Request, query: Annotated[asked.BboAsked, Query()]) -> Response:
    """The newest `last` changes of the best bid and ask over all exchanges, oldest first.

    A quote of an exchange stands until its next one, and no longer than its exchange date. The
    quantity is that of all exchanges that quote the best price; they are named. Bid and ask of
    different exchanges may cross.
    """
    wanted = asked.selection(
        answers.desk(request).clock,
        symbols=[query.symbol],
        exchanges=query.exchange,
        start_time=query.start_time,
        end_time=query.end_time,
    )

    def make(reader: Reader, seconds: float) -> Answer:
        found = reader.bbo(
            wanted,
            last=query.last,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            timeout=seconds,
        )
        if found.table.num_rows < query.last:
            return found
        note = f"only the newest {query.last:,}: earlier ones may be left out"
        notes = found.meta.get("notes")
        told = notes if isinstance(notes, list) else []
        return replace(found, meta={**found.meta, "notes": [*told, note]})

    return await answers.answer(
        request, make, asked=(wanted, query), limit=query.last, format=query.format
    )
