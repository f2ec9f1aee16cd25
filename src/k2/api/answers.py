"""From an answer's columns to a response: format, envelope, ETag, streaming.

The question is asked and its first part encoded in one go, in a worker thread.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import orjson
from fastapi import Request
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse

from k2.api.audit import Auditor
from k2.api.compression import LEAST_BYTES, coding_for, compressed
from k2.api.metrics import Metrics
from k2.api.reading import Seats
from k2.api.work import Leave, Workers
from k2.encode import FORMATS, json_parts
from k2.log import Producer
from k2.query import Answer, Reader

# Answers of more rows than this are sent part by part.
_WHOLE_ROWS: Final = 10_000
HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding"}
"""What every answer that comes in several formats says of itself."""

_BY_MEDIA_TYPE: Final = {kind.media_type.split(";")[0]: name for name, kind in FORMATS.items()}


@dataclass(frozen=True)
class Entry:
    """The way into the log; `skew` is how far ahead of the clock a correction's time may lie."""

    producer: Producer
    skew: timedelta


@dataclass(frozen=True)
class Desk:
    """What handlers work with: the reader, the threads, the auditor, the clock, the counters,
    the way into the log (None: nothing is taken in), and the places for streams.
    """

    reader: Reader
    workers: Workers
    auditor: Auditor
    clock: Callable[[], datetime]
    metrics: Metrics
    entry: Entry | None = None
    seats: Seats = field(default_factory=lambda: Seats(0))


def desk(request: HTTPConnection) -> Desk:
    """The desk of the application that got this request."""
    found = request.app.state.desk
    assert isinstance(found, Desk)
    return found


async def answer(
    request: Request,
    ask: Callable[[Reader, float], Answer],
    *,
    asked: object,
    limit: int | None = None,
    format: str | None = None,
) -> Response:
    """The response to `ask`, which gets the reader and the seconds that it may take.

    `asked` is what is asked for with all times resolved (its repr goes into the ETag, together
    with snapshots and offsets); `limit` is told under `pagination`; `format` wins over `Accept`.
    """
    at = desk(request)
    name = format or accepted(request.headers.get("accept", ""))

    def work(leave: Leave) -> _Made:
        found = ask(at.reader, leave.seconds)
        etag = _etag(found, name, asked)
        if _matches(request.headers.get("if-none-match"), etag):
            return _Made(found, etag, None, None)
        told = replace(found, meta={**found.meta, **said(request)})
        parts = json_parts(told, limit) if name == "json" else FORMATS[name].parts(told)
        coding = coding_for(request.headers.get("accept-encoding", ""), name)
        if found.table.num_rows <= _WHOLE_ROWS:
            whole = b"".join(parts)
            if coding is None or len(whole) < LEAST_BYTES:
                return _Made(found, etag, whole, None)
            return _Made(found, etag, b"".join(compressed(iter([whole]), coding)), None, coding)
        if coding is not None:
            parts = compressed(parts, coding)
        return _Made(found, etag, next(parts), parts, coding)

    made = await at.workers.run(request, work)
    headers = {"ETag": made.etag, **HEADERS}
    if made.found.next is not None:
        headers["K2-Next"] = made.found.next
    if made.coding is not None:
        headers["Content-Encoding"] = made.coding
    if made.first is None:
        return Response(status_code=304, headers=headers)
    at.metrics.rows.inc(made.found.table.num_rows)
    media_type = FORMATS[name].media_type
    if made.rest is None:
        return Response(made.first, headers=headers, media_type=media_type)
    body = _stream(at.workers, made.first, made.rest)
    return StreamingResponse(body, headers=headers, media_type=media_type)


def plain(request: Request, data: list[object], meta: dict[str, object] | None = None) -> Response:
    """The envelope around a few things that are no table, such as the server's state."""
    body = {
        "success": True,
        "data": data,
        "meta": {**(meta or {}), **said(request)},
        "pagination": {"limit": None, "next": None},
    }
    return Response(
        orjson.dumps(body, default=str),
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )


@dataclass(frozen=True)
class _Made:
    """An answer and its bytes: all in `first`, or the rest in `rest`; `first` None is a 304.
    `coding`: what they are compressed by.
    """

    found: Answer
    etag: str
    first: bytes | None
    rest: Iterator[bytes] | None
    coding: str | None = None


async def _stream(workers: Workers, first: bytes, rest: Iterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    while (part := await workers.step(lambda: next(rest, None))) is not None:
        yield part


def said(request: Request) -> dict[str, object]:
    """What `meta` tells of the request."""
    return {"correlation_id": request.state.correlation_id}


def accepted(header: str) -> str:
    """The format that an `Accept` header likes best; JSON where it names none of ours."""
    best, name = 0.0, "json"
    for part in header.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if media_type in _BY_MEDIA_TYPE and (quality := _quality(parameters)) > best:
            best, name = quality, _BY_MEDIA_TYPE[media_type]
    return name


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _etag(found: Answer, name: str, asked: object) -> str:
    # A certificate has the time at which it was made.
    passing = ("milliseconds", "certificate")
    state = {key: value for key, value in found.meta.items() if key not in passing}
    told = orjson.dumps(state, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    digest = hashlib.blake2b(told, digest_size=12)
    digest.update(f"{name} {asked!r}".encode("utf-8", "replace"))
    if not found.meta.get("snapshots"):
        # Ledgers and lists of commits are of no one table's state: their rows tell.
        for batch in found.table.to_batches():
            digest.update(batch.serialize())
    # Weak: `meta.milliseconds` and the correlation id differ between two answers that are equal.
    return f'W/"{digest.hexdigest()}"'


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    given = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in given or etag.removeprefix("W/") in given
