"""All records that match, as one download: GET /v1/export/trades, /v1/export/quotes.

Made while it is sent, in bounded memory: a client that does not read is waited for, one that leaves
is let go.
"""

import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from k2.api import answers, asked, shapes
from k2.api.compression import CODINGS, Compressor, coding_for
from k2.encode import FORMATS
from k2.flow import Flow, flow_of
from k2.query import Bulk, Selection, cancelled_by

router = APIRouter(tags=["records"])

_SUFFIX: Final = {"arrow": "arrows"}


class ExportAsked(asked.FormatAsked):
    """Parameters of GET /v1/export/trades and /v1/export/quotes."""

    symbol: list[asked.Symbol] = Field([], max_length=100, description="May be repeated")
    exchange: list[asked.ExchangeName] = Field([], max_length=100, description="May be repeated")
    start_time: asked.When | None = Field(None, description=asked.FROM)
    end_time: asked.When | None = Field(None, description=asked.TO)
    fields: list[Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]] = Field(
        [], max_length=64, description="Columns to give back, each by its own `fields=`"
    )
    after: asked.After | None = Field(
        None, description="`next` of a page, or where a broken download goes on"
    )
    as_of: asked.AsOf | None = None
    as_known_at: asked.When | None = Field(None, description=asked.KNOWN)
    history: asked.Flag = Field(False, description="Trades as first reported, and what became")


@router.get(
    "/v1/export/trades",
    responses=shapes.export("Trade"),
    response_class=Response,
    summary="All trades that match, as one download",
)
async def trades(request: Request, query: Annotated[ExportAsked, Query()]) -> Response:
    """All matching trades in total order, of one state, without a limit.

    A download that ends early ends with an error of the connection, never as if it were whole. An
    Arrow stream says in the metadata of each batch, as `k2.position`, where another one goes on
    (`after`).
    """
    return await _export(request, "trades", query)


@router.get(
    "/v1/export/quotes",
    responses=shapes.export("Quote"),
    response_class=Response,
    summary="All quotes that match, as one download",
)
async def quotes(request: Request, query: Annotated[ExportAsked, Query()]) -> Response:
    """All matching quotes: see the download of trades."""
    return await _export(request, "quotes", query)


async def _export(request: Request, kind: str, query: ExportAsked) -> Response:
    """The response, whose first bytes are made: whatever is asked in vain shows by now."""
    at = answers.desk(request)
    name = query.format or answers.accepted(request.headers.get("accept", ""))
    coding = coding_for(request.headers.get("accept-encoding", ""), name)
    wanted = asked.selection(
        at.clock,
        symbols=query.symbol,
        exchanges=query.exchange,
        start_time=query.start_time,
        end_time=query.end_time,
    )
    download = _Download(at, kind, wanted, query, name, coding, answers.said(request))
    with at.seats.seat():
        first = await at.workers.run(request, lambda leave: download.begin(leave.seconds))
    filename = f"{kind}.{_SUFFIX.get(name, name)}"
    headers = {**answers.HEADERS, "Content-Disposition": f'attachment; filename="{filename}"'}
    if coding is not None:
        headers["Content-Encoding"] = coding
    return StreamingResponse(
        _sent(at, download, first), headers=headers, media_type=FORMATS[name].media_type
    )


class _Download:
    """One download: read and encoded some records at a time, by one thread after the other."""

    def __init__(
        self,
        at: answers.Desk,
        kind: str,
        wanted: Selection,
        query: ExportAsked,
        name: str,
        coding: str | None,
        said: dict[str, object],
    ) -> None:
        self._at, self._kind, self._wanted, self._query = at, kind, wanted, query
        self._name, self._said = name, said
        self._compressor: Compressor | None = None if coding is None else CODINGS[coding]()
        self._gone = threading.Event()
        self._bulk: Bulk
        self._flow: Flow
        self._is_done = False

    def begin(self, seconds: float) -> bytes:
        """The first bytes, which show whatever is asked in vain."""
        query = self._query
        self._bulk = self._at.reader.bulk(
            self._kind,
            self._wanted,
            fields=tuple(dict.fromkeys(query.fields)),
            after=query.after,
            as_of=query.as_of,
            as_known_at=query.as_known_at,
            history=query.history,
        )
        self._flow = flow_of(self._name, self._bulk.columns, self._meta())
        return self._piece(seconds)

    def more(self) -> bytes | None:
        """The bytes that follow, of which there may be none for now; None: there are no more."""
        if self._is_done:
            return None
        with cancelled_by(self._gone):
            return self._piece(self._at.workers.limits.query_seconds)

    def close(self) -> None:
        """Stop what still reads."""
        self._gone.set()

    def _piece(self, seconds: float) -> bytes:
        table = self._bulk.read(seconds)
        if table is None:
            self._is_done = True
            made = self._flow.end(None, self._meta())
            return made if self._compressor is None else self._small(made) + self._compressor.end()
        self._at.metrics.rows.inc(table.num_rows)
        return self._small(self._flow.add(table, self._bulk.next))

    def _small(self, part: bytes) -> bytes:
        return part if self._compressor is None else self._compressor.add(part)

    def _meta(self) -> dict[str, Any]:
        return {**self._bulk.meta(), **self._said}


async def _sent(at: answers.Desk, download: _Download, first: bytes) -> AsyncIterator[bytes]:
    """All bytes, each part made once the one before was taken."""
    try:
        with at.seats.seat():
            part: bytes | None = first
            while part is not None:
                if part:
                    yield part
                part = await at.workers.stream(download.more)
    finally:
        download.close()
