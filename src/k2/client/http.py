"""Requests to a K2 server, and its errors as K2's own."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from k2.errors import BadInput, K2Error, NotFound, Refused, Unavailable

ARROW: Final = "application/vnd.apache.arrow.stream"
JSON: Final = "application/json"

_ERRORS: Final[Mapping[str, type[K2Error]]] = {
    "VALIDATION_ERROR": BadInput,
    "PAYLOAD_TOO_LARGE": BadInput,
    "NOT_FOUND": NotFound,
    "UNAUTHORIZED": Refused,
    "FORBIDDEN": Refused,
    "RATE_LIMITED": Unavailable,
    "UNAVAILABLE": Unavailable,
}


class Http:
    """Asks one server. Nothing is held open between requests; any thread may ask.

    Raises `Unavailable` when the server cannot be reached, or its answer breaks off, and the
    server's own errors as K2's.
    """

    def __init__(self, url: str, timeout: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput("this is no server's address", found=url, expected=f"http://{url}")
        self._url = url.rstrip("/")
        self._timeout = timeout

    def table(
        self, path: str, asked: Mapping[str, Any] | None = None, body: object = None
    ) -> tuple[pa.Table, str | None]:
        """The rows of an answer, and the token of its next page."""
        with self.opened(path, asked, body, ARROW) as response:
            return pa.ipc.open_stream(response.read()).read_all(), response.headers.get("K2-Next")

    def json(self, path: str) -> Any:
        """An answer as JSON has it."""
        with self.opened(path, None, None, JSON) as response:
            return json.loads(response.read())

    @contextmanager
    def opened(
        self, path: str, asked: Mapping[str, Any] | None, body: object, accept: str
    ) -> Iterator[http.client.HTTPResponse]:
        """The response, to be read within the block."""
        query = f"?{urllib.parse.urlencode(asked, doseq=True)}" if asked else ""
        request = urllib.request.Request(
            self._url + path + query,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": accept, "Content-Type": JSON},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                yield response
        except urllib.error.HTTPError as error:
            raise _translated(error) from error
        except http.client.IncompleteRead as error:
            raise Unavailable(
                "the answer broke off", place=self._url, hint="ask again; the server's log says why"
            ) from error
        except OSError as error:
            raise Unavailable(
                f"the server cannot be reached: {error}",
                place=self._url,
                hint="start it with `k2 serve`, or name its address",
            ) from error


def _translated(error: urllib.error.HTTPError) -> K2Error:
    """The server's error as K2's own."""
    try:
        told = json.loads(error.read())["error"]
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"the server answered {error.code} {error.reason}", place=error.url)
    return to_error(told)


def to_error(told: Mapping[str, Any]) -> K2Error:
    """An error as the server tells it, as K2's own."""
    kind = _ERRORS.get(told["code"], K2Error)
    return kind(told["message"], place=told.get("place"), hint=told.get("hint"))
