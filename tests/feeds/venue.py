"""A venue on loopback, small enough to do exactly what a test says: Binance's protocol, and the
histories of all three.

WebSocket and REST share a port. A test adds trades and says what is sent; faults are attributes.
"""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

T0 = 1_767_600_000_000_000
"""Microseconds of 2026-01-05T08:00:00Z: trade n was at T0 + n milliseconds."""


def trade(number: int, symbol: str = "BTCUSDT") -> dict[str, Any]:
    """The trade with an id, as the stream tells it."""
    return {
        **{"e": "trade", "E": T0 + number * 1000 + 2, "s": symbol, "t": number},
        **{"p": f"{91250 + number % 7}.10000000", "q": "0.00420000"},
        **{"T": T0 + number * 1000, "m": number % 2 == 0, "M": True},
    }


def quote(number: int, symbol: str = "BTCUSDT") -> dict[str, Any]:
    """The quote with an update id."""
    return {
        **{"u": number, "s": symbol, "b": "91250.00000000", "B": f"{number}.50000000"},
        **{"a": "91250.10000000", "A": "0.80000000"},
    }


class Venue:
    """What the venue did and does. Change its attributes at any time."""

    def __init__(self) -> None:
        self.sockets: list[ServerConnection] = []
        self.subscribed: list[list[str]] = []
        self.requests: list[str] = []
        self.past: dict[str, list[int]] = {}
        """Ids that the history has, by symbol."""
        self.answer: Callable[[dict[str, Any]], str | None] = _acknowledge
        self.rest_faults: list[Response] = []
        """Answers that the next requests get."""
        self.handshake_faults: list[Response] = []
        self.secure = False
        self._server: Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.socket.getsockname()[1]
        return port

    @property
    def options(self) -> str:
        s = "s" if self.secure else ""
        return f"ws=ws{s}://127.0.0.1:{self.port}&rest=http{s}://127.0.0.1:{self.port}"

    def send(self, *messages: dict[str, Any] | str, to: int = -1) -> None:
        """Send to the connection that was subscribed last, or the one numbered `to`."""
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(_wrapped(message))
            self.sockets[to].send(text)

    def trades(self, *numbers: int, symbol: str = "BTCUSDT", past: bool = True) -> None:
        """Send trades, which the history then has."""
        if past:
            self.past.setdefault(symbol, []).extend(numbers)
        self.send(*(trade(number, symbol) for number in numbers))

    def wait_for(self, connections: int) -> None:
        """Wait until so many were subscribed in all."""
        end = time.monotonic() + 20
        while len(self.sockets) < connections:
            assert time.monotonic() < end, f"only {len(self.sockets)} connections"
            time.sleep(0.01)

    def _handle(self, socket: ServerConnection) -> None:
        try:
            for message in socket:
                asked = json.loads(message)
                if answer := self.answer(asked):
                    socket.send(answer)
                self.subscribed.append(asked["params"])
                self.sockets.append(socket)
        except ConnectionClosed:
            pass

    def _request(self, socket: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        if parts.path == "/stream":
            return self.handshake_faults.pop(0) if self.handshake_faults else None
        self.requests.append(request.path)
        if self.rest_faults:
            return self.rest_faults.pop(0)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path.startswith("/products/"):
            return answer_of(200, json.dumps(self._coinbase(parts.path.split("/")[2], asked)))
        if parts.path == "/0/public/Trades":
            return answer_of(200, self._kraken(asked))
        ids = sorted(set(self.past.get(asked["symbol"], [])))
        if "fromId" in asked:
            ids = [n for n in ids if n >= int(asked["fromId"])][: int(asked["limit"])]
        else:
            ids = ids[-int(asked["limit"]) :]
        return answer_of(200, json.dumps([_row(number) for number in ids]))

    def _coinbase(self, symbol: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        before = int(asked.get("after", 2**62))
        ids = sorted(n for n in self.past[symbol] if n < before)[-int(asked["limit"]) :]
        about = {"price": "91250.12", "size": "0.0031", "side": "sell"}
        return [about | {"trade_id": n, "time": _time(n)} for n in reversed(ids)]

    def _kraken(self, asked: dict[str, str]) -> str:
        since = int(asked.get("since", 0)) // 1000
        ids = sorted(n for n in self.past[asked["pair"]] if T0 + n * 1000 > since)
        ids = ids[: int(asked["count"])] if "since" in asked else ids[-int(asked["count"]) :]
        rows = [f'["1.5","2",{_seconds(n)},"b","m","",{n}]' for n in ids]
        last = (T0 + ids[-1] * 1000) * 1000 if ids else since * 1000
        return f'{{"error":[],"result":{{"XXBTZUSD":[{",".join(rows)}],"last":"{last}"}}}}'


def answer_of(status: int, body: str = "", **headers: str) -> Response:
    """An answer of the REST interface."""
    data = body.encode()
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = Headers({"Content-Length": str(len(data)), "Connection": "close", **pairs})
    return Response(status, "Said", kept, data)


@contextmanager
def opened(certificate: Path | None = None) -> Iterator[Venue]:
    """A venue that is open, with TLS if it has a certificate (PEM: key and chain)."""
    venue = Venue()
    context = None
    if certificate is not None:
        venue.secure = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with serve(
        venue._handle,
        "127.0.0.1",
        0,
        ssl=context,
        process_request=venue._request,
        close_timeout=0.2,
    ) as server:
        venue._server = server
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield venue
        finally:
            server.shutdown()
            thread.join()
            for socket in venue.sockets:
                socket.close()


def _seconds(number: int) -> str:
    return f"{(T0 + number * 1000) // 10**6}.{(T0 + number * 1000) % 10**6:06}"


def _time(number: int) -> str:
    when = datetime.fromtimestamp(T0 // 10**6, UTC) + timedelta(milliseconds=number)
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _acknowledge(asked: dict[str, Any]) -> str:
    return json.dumps({"result": None, "id": asked["id"]})


def _wrapped(message: dict[str, Any]) -> dict[str, Any]:
    if "s" not in message:
        return message
    kind = "trade" if message.get("e") == "trade" else "bookTicker"
    return {"stream": f"{message['s'].lower()}@{kind}", "data": message}


def _row(number: int) -> dict[str, Any]:
    told = trade(number)
    return {
        **{"id": number, "price": told["p"], "qty": told["q"], "quoteQty": "383.25"},
        **{"time": told["T"], "isBuyerMaker": told["m"], "isBestMatch": True},
    }
