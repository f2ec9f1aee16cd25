"""The outermost layer of the server: what is settled before any handler sees a request.

Correlation id, host check, size of the body, access log, and the last net for exceptions.
"""

import ipaddress
import logging
import re
import time
import uuid
from typing import Final
from urllib.parse import unquote_to_bytes

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k2.api.errors import TooLarge, to_response
from k2.errors import BadInput, Broken, K2Error, Refused
from k2.traces import Step, step

_log = logging.getLogger("k2.api")
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Edge:
    """An ASGI layer around the application. One per process."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        body_bytes: int,
        requests: Counter,
        seconds: Histogram,
    ) -> None:
        self._app = app
        self._body_bytes = body_bytes
        self._requests = requests
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens inside."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send, headers)
            return
        with step(scope["method"], caller=headers, http__request__method=scope["method"]) as trace:
            await self._answer(scope, receive, send, headers, trace)

    async def _connect(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        """Let a WebSocket in, or refuse it."""
        correlation_id = _correlation_id(headers.get("x-correlation-id"))
        scope.setdefault("state", {})["correlation_id"] = correlation_id
        began = time.perf_counter()
        try:
            self._check(scope, headers)
            _check_origin(headers)
        except K2Error as error:
            _log.warning("refused a WebSocket: %s correlation_id=%s", error, correlation_id)
            # Without the error's text: uvicorn takes an answer with a body for a broken handshake.
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)
        _log.info(
            "a WebSocket was open for %.1f s correlation_id=%s",
            time.perf_counter() - began,
            correlation_id,
            extra={"correlation_id": correlation_id, "path": scope["path"][:200]},
        )

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, trace: Step
    ) -> None:
        correlation_id = _correlation_id(headers.get("x-correlation-id"))
        scope.setdefault("state", {})["correlation_id"] = correlation_id
        status = 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Correlation-ID"] = correlation_id
                out["X-Content-Type-Options"] = "nosniff"
            await send(message)

        began = time.perf_counter()
        try:
            self._check(scope, headers)
            await self._app(scope, receive, tell)
        except ClientDisconnect:
            # Gone while it was sending its body: nobody is left to answer. The log says 499, as
            # nginx does.
            status = 499
        except K2Error as error:
            await to_response(error, correlation_id)(scope, receive, tell)
        except Exception:  # noqa: BLE001 - the outermost loop: log it, answer, live on
            _log.exception(
                "a request failed, correlation_id=%s",
                correlation_id,
                extra={"correlation_id": correlation_id},
            )
            if not status:
                await to_response(
                    Broken(
                        "the server failed at this request",
                        hint=f"its log has the cause under correlation id {correlation_id}",
                    ),
                    correlation_id,
                )(scope, receive, tell)
        finally:
            self._note(scope, status, time.perf_counter() - began, correlation_id, trace)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises `BadInput` (bytes that are no text), `TooLarge`, `Refused` (a foreign host)."""
        if not _is_loopback_name(headers.get("host", "")):
            # A page elsewhere may point its own name at 127.0.0.1 and read through the browser.
            raise Refused(
                "this server answers only to its loopback name",
                place="header Host",
                found=headers.get("host", "")[:80],
                expected="localhost, 127.0.0.1 or [::1]",
            )
        _check_text(scope.get("raw_path") or b"", "the path")
        _check_text(scope["query_string"], "the query")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:18]) > self._body_bytes:
            raise too_large(self._body_bytes)

    def _note(
        self, scope: Scope, status: int, seconds: float, correlation_id: str, trace: Step
    ) -> None:
        route = getattr(scope.get("route"), "path", "none")
        trace.tell(
            f"{scope['method']} {route}",
            http__route=route,
            http__response__status_code=status,
            k2__correlation_id=correlation_id,
        )
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        path = scope["path"].encode("unicode_escape").decode()[:200]
        _log.info(
            "%s %s %d %.1f ms correlation_id=%s",
            scope["method"],
            path,
            status,
            seconds * 1000,
            correlation_id,
            extra={
                "correlation_id": correlation_id,
                "method": scope["method"],
                "path": path,
                "status": status,
                "seconds": round(seconds, 6),
            },
        )


def too_large(limit: int) -> TooLarge:
    """The error for a body of more than `limit` bytes."""
    return TooLarge(
        f"the body is larger than {limit:,} bytes",
        place="body",
        hint="ask in several smaller requests",
    )


def _correlation_id(given: str | None) -> str:
    if given and _CORRELATION_ID.fullmatch(given):
        return given
    return uuid.uuid4().hex


def _check_text(raw: bytes, place: str) -> None:
    # Decoders further in replace what is no UTF-8 by a mark, and would look for another symbol.
    if b"%" not in raw and raw.isascii():
        return
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{place} is no UTF-8 text", place=place, found=f"byte {raw[:80]!r}"
        ) from error
    if "\0" in text:
        raise BadInput(f"{place} holds a NUL character", place=place)


def _check_origin(headers: Headers) -> None:
    # Unlike what it fetches, a page elsewhere may read what a WebSocket to this machine tells it.
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and origin.lower().partition("://")[2] != host.lower():
        raise Refused(
            "a page of another place may not connect here",
            place="header Origin",
            found=origin[:80],
            expected=f"http://{host}, or none",
        )


def _is_loopback_name(host: str) -> bool:
    name = re.sub(r":\d+$", "", host).strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
