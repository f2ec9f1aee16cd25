"""Trades and quotes: GET /v1/trades, /v1/quotes, /v1/trades/recent, POST /v1/{kind}/query."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from k2.api import answers, asked, shapes
from k2.errors import BadInput
from k2.query import Selection

router = APIRouter(tags=["records"])


@router.get("/v1/trades", responses=shapes.table("Trade"), summary="Trades in total order")
async def trades(request: Request, query: Annotated[asked.TradesAsked, Query()]) -> Response:
    """Trades by symbol, exchange and time: pages from the oldest on, or the newest with `last`."""
    return await listed(request, "trades", query, history=query.history)


@router.get("/v1/quotes", responses=shapes.table("Quote"), summary="Quotes in total order")
async def quotes(request: Request, query: Annotated[asked.RecordsAsked, Query()]) -> Response:
    """Quotes by symbol, exchange and time: pages from the oldest on, or the newest with `last`."""
    return await listed(request, "quotes", query)


@router.get(
    "/v1/trades/recent", responses=shapes.table("Trade"), summary="Trades of the last minutes"
)
async def recent(request: Request, query: Annotated[asked.RecentAsked, Query()]) -> Response:
    """The newest trades of the last minutes, history and tail as one."""
    since = answers.desk(request).clock() - timedelta(minutes=query.window_minutes)
    wanted = Selection(
        symbols=(query.symbol,) if query.symbol else (),
        exchanges=(query.exchange,) if query.exchange else (),
        start=since,
    )
    return await answers.answer(
        request,
        lambda reader, seconds: reader.records("trades", wanted, last=query.limit, timeout=seconds),
        asked=(wanted, query),
        limit=query.limit,
        format=query.format,
    )


@router.post(
    "/v1/trades/query",
    responses=shapes.table("Trade"),
    openapi_extra=asked.json_body(asked.QueryAsked),
    summary="Trades of many symbols, filtered",
)
async def query_trades(request: Request) -> Response:
    """Trades of up to 100 symbols, with filters and chosen columns, in pages."""
    return await queried(request, "trades", await asked.body(request, asked.QueryAsked))


@router.post(
    "/v1/quotes/query",
    responses=shapes.table("Quote"),
    openapi_extra=asked.json_body(asked.QueryAsked),
    summary="Quotes of many symbols, filtered",
)
async def query_quotes(request: Request) -> Response:
    """Quotes of up to 100 symbols, with filters and chosen columns, in pages."""
    return await queried(request, "quotes", await asked.body(request, asked.QueryAsked))


async def queried(
    request: Request, kind: str, query: asked.QueryAsked, as_of: str | None = None
) -> Response:
    """The answer to a POSTed query; `as_of` wins over the query's own."""
    if query.pin is not None:
        if as_of is not None:
            raise BadInput("a pin is of a state of its own", place="body.pin")
        return await _pinned(request, kind, query, query.pin)
    wanted = asked.selection(
        answers.desk(request).clock,
        symbols=query.symbols,
        exchanges=query.exchanges,
        start_time=query.start_time,
        end_time=query.end_time,
        where=asked.conditions(query, kind),
    )
    return await answers.answer(
        request,
        lambda reader, seconds: reader.records(
            kind,
            wanted,
            limit=query.limit,
            after=query.after,
            fields=tuple(dict.fromkeys(query.fields)),
            as_of=as_of or query.as_of,
            as_known_at=query.as_known_at,
            history=query.history,
            certificate=query.certificate,
            timeout=seconds,
        ),
        asked=(kind, wanted, query, as_of),
        limit=query.limit,
        format=query.format,
    )


async def _pinned(request: Request, kind: str, query: asked.QueryAsked, name: str) -> Response:
    """The answer to a query for the rows of a pin, page by page."""
    others = query.model_fields_set - {"pin", "limit", "after", "format", "table"}
    if others:
        raise BadInput(
            "a pin says by itself which rows, columns and state it is of",
            place=f"body.{min(others)}",
            expected="`limit`, `after` and `format` besides",
        )
    return await answers.answer(
        request,
        lambda reader, seconds: reader.pins.records(
            name, kind, limit=query.limit, after=query.after, timeout=seconds
        ),
        asked=(kind, query),
        limit=query.limit,
        format=query.format,
    )


async def listed(
    request: Request, kind: str, query: asked.RecordsAsked, *, history: bool = False
) -> Response:
    """The answer to a GET for records of a kind: the newest, or a page from the oldest on."""
    if query.last is not None and query.after is not None:
        raise BadInput(
            "`last` and `after` exclude each other",
            place="query.last",
            hint="`last` gives the newest rows, `after` the page behind another",
        )
    wanted = asked.selection(
        answers.desk(request).clock,
        symbols=[query.symbol] if query.symbol else [],
        exchanges=[query.exchange] if query.exchange else [],
        start_time=query.start_time,
        end_time=query.end_time,
    )
    return await answers.answer(
        request,
        lambda reader, seconds: reader.records(
            kind,
            wanted,
            last=query.last,
            limit=None if query.last else query.limit,
            after=query.after,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            history=history,
            certificate=query.certificate,
            timeout=seconds,
        ),
        asked=(kind, wanted, query),
        limit=query.last or query.limit,
        format=query.format,
    )
