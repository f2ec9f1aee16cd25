"""Every error of the HTTP interface in one shape: which status, which code, which fields.

Comes in: an exception. Goes out: `{"success": false, "error": {...}, "meta": {...}}`.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from k2.errors import (
    BadInput,
    Broken,
    Conflict,
    K2Error,
    NotFound,
    Refused,
    Unavailable,
    fields_of,
)


class TooLarge(BadInput):
    """The request's body is larger than the server takes."""

    code = "PAYLOAD_TOO_LARGE"


class TooMany(Unavailable):
    """More requests wait than the server takes; `retry_after` says when to come again."""

    code = "RATE_LIMITED"


class HungUp(Exception):
    """The client went away before its answer was ready. Nobody reads what is sent now."""


# The most specific class first.
_STATUS: Final[tuple[tuple[type[K2Error], int], ...]] = (
    (TooLarge, 413),
    (TooMany, 429),
    (BadInput, 422),
    (NotFound, 404),
    (Refused, 403),
    (Conflict, 409),
    (Unavailable, 503),
    (Broken, 500),
    (K2Error, 500),
)

_CODE: Final[Mapping[int, str]] = {
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    422: "VALIDATION_ERROR",
    500: "BROKEN",
}


def status_of(error: K2Error) -> int:
    """The HTTP status that tells this kind of error."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def to_response(
    error: K2Error,
    correlation_id: str,
    *,
    status: int | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The error as its response. `headers` are added (such as `Allow`)."""
    status = status or status_of(error)
    more = dict(headers or {})
    if isinstance(error, Unavailable):
        more["Retry-After"] = str(max(1, round(error.retry_after or 1)))
    fields = {name: _clean(value) for name, value in fields_of(error).items()}
    fields["code"] = code or _CODE.get(status, error.code)
    if isinstance(error, TooMany | TooLarge | Unavailable):
        fields["code"] = error.code
    body = {"success": False, "error": fields, "meta": {"correlation_id": correlation_id}}
    return Response(
        orjson.dumps(body), status_code=status, media_type="application/json", headers=more
    )


def install(app: FastAPI) -> None:
    """Give every exception that a handler lets through its one shape."""

    async def on_k2(request: Request, error: Exception) -> Response:
        assert isinstance(error, K2Error)
        return to_response(error, request.state.correlation_id)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return to_response(_to_bad_input(error.errors()), request.state.correlation_id)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        found = f"{request.method} {request.url.path}"
        status, headers = error.status_code, dict(error.headers or {})
        if status == 404:
            told: K2Error = NotFound(
                "there is no such page", found=found, hint="GET /docs lists what there is"
            )
        elif status == 405:
            headers["Allow"] = _allowed(request) or headers.get("Allow", "")
            told = BadInput(
                "this method is not allowed here", found=found, expected=headers["Allow"]
            )
        else:
            told = BadInput(str(error.detail), found=found)
            status = 422 if status == 400 else status
        correlation_id = request.state.correlation_id
        return to_response(told, correlation_id, status=status, headers=headers)

    def _allowed(request: Request) -> str:
        # Of two endpoints with one path, the framework names the first one's methods alone.
        path = getattr(request.scope.get("route"), "path", "")
        return ", ".join(sorted(name.upper() for name in app.openapi()["paths"].get(path, {})))

    async def on_hung_up(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    app.add_exception_handler(K2Error, on_k2)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(HungUp, on_hung_up)


def invalid(errors: list[Any], place: str) -> BadInput:
    """What pydantic found wrong in something that stands at `place`, the first complaint first."""
    return _to_bad_input([{**one, "loc": (place, *one["loc"])} for one in errors])


def _to_bad_input(errors: Any) -> BadInput:
    first, *others = errors
    place = ".".join(str(part) for part in first["loc"])
    hint = None
    if first["type"] == "extra_forbidden":
        hint = "GET /docs lists the parameters"
    if others:
        names = ", ".join(sorted({".".join(str(p) for p in one["loc"]) for one in others}))
        hint = f"also wrong: {names[:200]}"
    return BadInput(
        first["msg"].removeprefix("Value error, "),
        place=place[:200],
        found=repr(first.get("input"))[:80],
        hint=hint,
    )


def _clean(text: str | None) -> str | None:
    """Text that UTF-8 can carry: what a client sent may hold half of a surrogate pair."""
    return None if text is None else text.encode("utf-8", "replace").decode()
