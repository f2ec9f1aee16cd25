"""Measures of what traded in intervals: POST /v1/aggregations."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.errors import BadInput
from k2.query import Answer, Reader

router = APIRouter(tags=["bars"])

_MOST: Final = 100_000
"""Rows of an answer."""


@router.post(
    "/v1/aggregations",
    responses=shapes.table("Aggregation"),
    openapi_extra=asked.json_body(asked.AggregationsAsked),
    summary="Measures of intervals",
)
async def aggregations(request: Request) -> Response:
    """VWAP, TWAP, volume by price and more of each interval in which up to 50 symbols traded.

    In a TWAP each price counts for as long as it held: until the next trade, or the end of the
    interval or of the range; the last price before an interval, of the same exchange date, from
    the interval's beginning on. A row has the columns of the metrics that were asked for.
    """
    query = await asked.body(request, asked.AggregationsAsked)
    wanted = asked.selection(
        answers.desk(request).clock,
        symbols=query.symbols,
        exchanges=query.exchanges,
        start_time=query.start_time,
        end_time=query.end_time,
    )

    def make(reader: Reader, seconds: float) -> Answer:
        found = reader.aggregate(
            wanted,
            query.metrics,
            query.interval,
            all_trades=query.all_trades,
            bin_size=None if query.bin_size is None else f"{query.bin_size:f}",
            session=query.session,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            timeout=seconds,
        )
        if found.table.num_rows > _MOST:
            raise BadInput(
                f"the answer has {found.table.num_rows:,} intervals",
                place="interval",
                expected=f"at most {_MOST:,}",
                hint="ask for fewer symbols, a shorter range or a longer interval",
            )
        return found

    return await answers.answer(request, make, asked=(wanted, query), format=query.format)
