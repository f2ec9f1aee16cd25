"""Streams: GET /v1/stream, replayed and live records, as server-sent events, as Arrow, or over a
WebSocket.

A client that does not read is waited for, then told and closed with its position; one that leaves
is let go at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Annotated, Final, Literal, Protocol

import orjson
import pyarrow as pa
from fastapi import APIRouter, Query, Request, WebSocket
from pydantic import Field, ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from k2 import encode
from k2.api import answers, asked, shapes
from k2.api.errors import invalid
from k2.api.reading import Event, Reading
from k2.api.replay import SPEED, SPEED_ABOUT, Kind, Place, to_speed
from k2.encode import FORMATS
from k2.errors import K2Error, Refused, Unavailable, fields_of
from k2.flow import Sink
from k2.pace import FASTEST
from k2.query import Part, Replayed
from k2.query.replay import PACED_ROWS, PART_ROWS

router = APIRouter(tags=["replay"])

_RETRY_MS: Final = 1_000
"""How long a browser waits before it connects again."""

_DONE: Final = 1000
_REFUSED: Final = 1008
_TRY_AGAIN: Final = 1013
"""Codes that a WebSocket is closed with."""

_LAST_SECONDS: Final = 1.0
"""What a client that takes nothing is given to take the end."""

_ERROR: Final = b'"error":'
_LISTS: Final = ("kinds", "symbols", "exchanges")

Put = Callable[[Event], Awaitable[None]]


class StreamAsked(asked.Asked):
    """Parameters of GET /v1/stream."""

    kinds: list[Kind] = Field(["trades"], min_length=1, max_length=3)
    symbols: list[asked.Symbol] = Field([], max_length=100)
    exchanges: list[asked.ExchangeName] = Field([], max_length=100)
    start_time: asked.When | None = Field(
        None, description="What is there from then on comes first; without it, what arrives alone"
    )
    end_time: asked.When | None = Field(
        None, description="Exclusive; with it the stream ends there, and what arrives stays out"
    )
    speed: str = Field(FASTEST, pattern=SPEED, description=f"{SPEED_ABOUT}, of what is there")
    batch_size: int = Field(1_000, ge=1, le=10_000, description="Records of an event, at most")
    after: Place | None = Field(None, description="A position; `Last-Event-ID` wins over it")


class EventsAsked(StreamAsked):
    """Those of the same without a WebSocket."""

    format: Literal["arrow"] | None = Field(
        None, description="In place of events; so does the `Accept` header"
    )


@router.get(
    "/v1/stream",
    responses=shapes.stream(),
    response_class=Response,
    summary="Replayed and live records, as server-sent events, as Arrow, or over a WebSocket",
)
async def stream(request: Request, query: Annotated[EventsAsked, Query()]) -> Response:
    """Events `open`, `records`, `beat`, and `end` or `error` at last; the id of each is a position.

    As Arrow, an IPC stream without an end: each event is a batch, whose metadata says which it is
    (`k2.event`), the position behind it (`k2.position`), and `k2.live` or `k2.error`.

    What is there comes in total order. What arrives comes in the order of its arrival, each
    partition of the log in its own order; where more than `batch_size` arrived at once, those come
    in total order.
    """
    at = answers.desk(request)
    after = request.headers.get("last-event-id") or query.after
    accepted = answers.accepted(request.headers.get("accept", ""))
    asked_for = _asked_for(at, query)
    form: _Form = _Events()
    if "arrow" in (query.format, accepted):
        form = _Arrow(asked_for.columns)
    with at.seats.seat():
        reading = await at.workers.run(
            request, lambda leave: _opened(at, query, asked_for, form, after, leave.seconds)
        )
    if reading.is_over and after is not None:
        # A browser connects again after the end, until it is told this.
        return Response(status_code=204)
    return _EventStream(at, reading, form)


@router.websocket("/v1/stream")
async def socket(websocket: WebSocket) -> None:
    """The same events as messages, each a JSON object with `event` and `position` besides."""
    await websocket.accept()
    at = answers.desk(websocket)

    async def put(event: Event) -> None:
        await websocket.send_text(_to_message(event))

    with suppress(WebSocketDisconnect):
        try:
            query = _from_query(websocket.query_params)
            seconds = at.workers.limits.query_seconds
            asked_for = _asked_for(at, query)
            with at.seats.seat():
                reading = await at.workers.stream(
                    lambda: _opened(at, query, asked_for, _Events(), query.after, seconds)
                )
                error = await _give(at, reading, websocket, put, "websocket.disconnect")
        except K2Error as found:
            error = found
            await put(Event("error", "", _to_fields(found)))
        code = _DONE
        if error is not None:
            code = _TRY_AGAIN if isinstance(error, Unavailable) else _REFUSED
        # One that takes nothing does not take this either: the connection is cut then.
        with suppress(TimeoutError):
            await asyncio.wait_for(websocket.close(code), _LAST_SECONDS)


class _Form(Protocol):
    """How events become bytes."""

    media_type: str
    opening: bytes

    def encode(self, part: Part, position: str) -> bytes:
        """The body of the event that these records are."""

    def piece(self, event: Event) -> bytes:
        """What is sent for an event."""


class _Events:
    """Server-sent events, whose data are JSON."""

    media_type = "text/event-stream"
    opening = b"retry: %d\n\n" % _RETRY_MS

    def encode(self, part: Part, position: str) -> bytes:
        live = b"true" if part.is_live else b"false"
        return b'"live":' + live + b',"records":[' + encode.json_rows(part.records) + b"]"

    def piece(self, event: Event) -> bytes:
        lines = b"event: %s\nid: %s\ndata: {%s}\n\n"
        return lines % (event.name.encode(), event.position.encode(), event.body)


class _Arrow:
    """One IPC stream; an event without records is a batch without rows."""

    media_type = FORMATS["arrow"].media_type
    opening = b""

    def __init__(self, columns: pa.Schema) -> None:
        self._none = columns.empty_table()
        self._sink = Sink()
        self._writer = pa.ipc.new_stream(self._sink, columns)

    def encode(self, part: Part, position: str) -> bytes:
        live = "true" if part.is_live else "false"
        told = {"k2.event": "records", "k2.position": position, "k2.live": live}
        for batch in part.records.combine_chunks().to_batches():
            self._writer.write_batch(batch, custom_metadata=told)
        return self._sink.taken()

    def piece(self, event: Event) -> bytes:
        if event.name == "records":
            return event.body
        told = {"k2.event": event.name, "k2.position": event.position}
        if event.name == "error":
            told["k2.error"] = event.body.removeprefix(_ERROR).decode()
        batch = pa.RecordBatch.from_arrays(
            [c.combine_chunks() for c in self._none.columns], schema=self._none.schema
        )
        self._writer.write_batch(batch, custom_metadata=told)
        if event.name == "end":
            self._writer.close()
        return self._sink.taken()


class _EventStream(Response):
    """A response that goes on as long as its stream does."""

    def __init__(self, at: answers.Desk, reading: Reading, form: _Form) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(media_type=form.media_type, headers=headers)
        del self.headers["content-length"]
        self._at = at
        self._reading = reading
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give events until they end or the client is gone."""

        async def put(event: Event) -> None:
            await send(_piece(self._form.piece(event)))

        with self._at.seats.seat():
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            await send(_piece(self._form.opening))
            request = Request(scope, receive)
            await _give(self._at, self._reading, request, put, "http.disconnect")
            with suppress(TimeoutError):
                await asyncio.wait_for(send(_piece(b"", more=False)), _LAST_SECONDS)


def _asked_for(at: answers.Desk, query: StreamAsked) -> Replayed:
    return Replayed(
        tuple(dict.fromkeys(query.kinds)),
        asked.selection(
            at.clock,
            symbols=query.symbols,
            exchanges=query.exchanges,
            start_time=query.start_time,
            end_time=query.end_time,
        ),
        live=query.end_time is None,
        history=query.start_time is not None or query.end_time is not None,
    )


def _opened(
    at: answers.Desk,
    query: StreamAsked,
    asked_for: Replayed,
    form: _Form,
    after: str | None,
    seconds: float,
) -> Reading:
    """The stream that is asked for, its first records read, so that what is wrong shows now."""
    speed = to_speed(query.speed, "query.speed")
    rows = PART_ROWS if speed is None else PACED_ROWS
    replay = at.reader.open_replay(asked_for, batch=query.batch_size, rows=rows, after=after)
    opened = replay.position
    first = replay.read(seconds)
    return Reading(
        at.workers, replay, opened, first, form.encode, speed=speed, batch=query.batch_size
    )


async def _give(
    at: answers.Desk, reading: Reading, client: HTTPConnection, put: Put, goodbye: str
) -> K2Error | None:
    """Put all events until they end or the client is gone; why they ended, if not well."""
    gone = asyncio.ensure_future(_left(client, goodbye))
    giving = asyncio.ensure_future(_put_all(at, reading, client, put))
    try:
        await asyncio.wait({gone, giving}, return_when=asyncio.FIRST_COMPLETED)
        return giving.result() if giving.done() else None
    finally:
        reading.close()
        gone.cancel()
        giving.cancel()
        await asyncio.gather(gone, giving, return_exceptions=True)


async def _put_all(
    at: answers.Desk, reading: Reading, client: HTTPConnection, put: Put
) -> K2Error | None:
    """Put all events, and at last the error that ended them, with the position before it."""
    stall = at.workers.limits.stall_seconds
    told = reading.position
    error: K2Error
    try:
        async with aclosing(reading.events(lambda: bool(client.app.state.stopping()))) as events:
            async for event in events:
                await asyncio.wait_for(put(event), stall)
                told = event.position
        return None
    except TimeoutError:
        error = Refused(
            "this stream was read too slowly",
            expected=f"each event to be taken within {stall:g} seconds",
            hint="go on at the position of the last one",
        )
    except K2Error as found:
        error = found
    # As long once more: a client that reads again finds why nothing follows.
    with suppress(TimeoutError):
        await asyncio.wait_for(put(Event("error", told, _to_fields(error))), stall)
    return error


async def _left(client: HTTPConnection, goodbye: str) -> None:
    """Returns once the client is gone. What it says meanwhile is not heard."""
    receive: Callable[[], Awaitable[Message]] = client.receive  # type: ignore[attr-defined]
    while (await receive())["type"] != goodbye:
        pass


def _from_query(given: QueryParams) -> StreamAsked:
    found = {name: given.getlist(name) if name in _LISTS else given[name] for name in given}
    try:
        return StreamAsked.model_validate(found)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False), "query") from error


def _to_fields(error: K2Error) -> bytes:
    return _ERROR + orjson.dumps(fields_of(error))


def _to_message(event: Event) -> str:
    head = b'{"event":"%s","position":"%s"' % (event.name.encode(), event.position.encode())
    return (head + (b"," if event.body else b"") + event.body + b"}").decode()


def _piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
