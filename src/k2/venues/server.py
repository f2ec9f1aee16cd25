"""A venue that listens: sockets and requests on one port of this machine, in a thread of its own.

Comes in: a dialect, a floor, a script. Goes out: frames and answers. The market goes on while
nobody is connected.
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Asked
from websockets.http11 import Response

from k2.errors import Unavailable
from k2.venues.faults import Faults, Sent
from k2.venues.floor import Floor
from k2.venues.port import Answer, Dialect, Message, Request, Talk
from k2.venues.script import Fault
from k2.venues.truth import Truth

_TICK_SECONDS: Final = 0.005
_MOST_WAITING: Final = 50_000
"""Messages that may wait for a client that reads slowly; then it is cut, as venues do."""
_MOST_CONNECTIONS: Final = 300
"""New connections within five minutes."""
_FIVE_MINUTES: Final = 300_000_000
_GOING_AWAY, _POLICY = 1001, 1008

# The library tells of each answered request as a failed handshake.
_LOGGER = logging.getLogger("k2.venues.connections")
_LOGGER.setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Parts:
    """What a server puts together."""

    dialect: Dialect
    floor: Floor
    faults: Faults
    truth: Truth


class _Client:
    """One connection and what waits to be sent to it."""

    def __init__(self, connection: ServerConnection, talk: Talk, opened: int) -> None:
        self.connection = connection
        self.talk = talk
        self.opened = opened
        self.since: dict[str, int] = {}
        """When each stream was followed that was asked for later."""
        self.heard: list[int] = []
        self.is_leaving = False
        self.waiting: asyncio.Queue[str | bytes] = asyncio.Queue()

    def put(self, text: str | bytes) -> None:
        """Have it sent, after what waits already."""
        if self.waiting.qsize() >= _MOST_WAITING:
            self.connection.transport.abort()
        else:
            self.waiting.put_nowait(text)

    async def send(self) -> None:
        """Send what waits, until the connection ends."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.connection.send(await self.waiting.get())


class Server:
    """A venue at `host` and `port` (0: any that is free), from its making until `close`.

    `clock` tells the true time in microseconds since 1970. Raises `Unavailable` for a port that
    cannot be had.
    """

    def __init__(self, parts: Parts, clock: Callable[[], int], host: str, port: int) -> None:
        self._parts = parts
        self._clock = clock
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._clients: set[_Client] = set()
        self._count = 0
        self._came: list[int] = []
        self._leaving: list[tuple[int, Fault]] = []
        self._broken = 0
        self._flushed = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        self._ended = threading.Event()
        # A market that began before has its past at once, not while clients ask already.
        self._tick(clock())
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="venue")
        self._thread.start()

    def close(self) -> None:
        """Cut all connections, stop listening and finish the truth."""
        self._ended.set()
        self._thread.join()
        self._parts.truth.close()
        if self._failure is not None:
            raise self._failure

    async def _serve(self) -> None:
        ping = self._parts.dialect.ping_seconds
        async with serve(
            self._hear,
            sock=self._socket,
            process_request=self._receive,
            compression=None,
            ping_interval=ping,
            ping_timeout=None if ping is None else 3 * ping,
            close_timeout=1,
            logger=_LOGGER,
            server_header=None,
        ):
            while not self._ended.is_set():
                self._tick(self._clock())
                await asyncio.sleep(_TICK_SECONDS)
            for client in self._clients:
                client.connection.transport.abort()

    # --- what happens by itself

    def _tick(self, now: int) -> None:
        """All that is due by now. Nothing in here waits: clients see one consistent order."""
        floor, faults, dialect = self._parts.floor, self._parts.faults, self._parts.dialect
        wanted = {stream for client in self._clients for stream in client.talk.streams}
        if wanted:
            faults.begin(now)
        self._start_faults(now)
        for event, lost in floor.advance(now):
            self._parts.truth.made(event, lost=lost)
            for message in dialect.hear_event(event, wanted):
                self._shape(message, now)
        for message in dialect.hear_time(floor.now(now), wanted):
            self._shape(message, now)
        for sent in faults.released(now):
            self._send(sent)
        for client in self._clients:
            self._pulse(client, now)
        if now - self._flushed > 1_000_000:
            self._flushed = now
            self._parts.truth.flush()

    def _shape(self, message: Message, now: int) -> None:
        history = self._parts.floor.histories[message.symbol]
        lost = history.is_lost(message.first, message.last)
        for sent in self._parts.faults.shape(message, now, lost=lost):
            self._send(sent)
        if self._parts.faults.takes("unknown"):
            for client in self._clients:
                self._put(client, client.talk.unknown(message.time), now)
        # Faults that come with the next message must be there before it is.
        self._start_faults(now)

    def _send(self, sent: Sent) -> None:
        if sent.how == "broken":
            self._broken += 1
        for client in self._clients:
            stream = sent.message.stream
            # What is late for others is older than the snapshot of one who came since.
            is_old = sent.made < client.since.get(stream, client.opened)
            if stream in client.talk.streams and not is_old:
                text = client.talk.say(sent.message)
                if sent.how == "whole":
                    client.put(text)
                elif sent.how == "broken":
                    client.put(_broken(text, self._broken))

    def _put(self, client: _Client, texts: Sequence[str], now: int) -> None:
        if not self._parts.faults.is_silent(now):
            for text in texts:
                client.put(text)

    def _pulse(self, client: _Client, now: int) -> None:
        dialect = self._parts.dialect
        self._put(client, client.talk.pulse(self._parts.floor.now(now)), now)
        age = (now - client.opened) / 1_000_000
        if dialect.most_seconds is not None and age > dialect.most_seconds:
            self._cut(client, _GOING_AWAY)
        elif not client.talk.streams and age > (dialect.silent_seconds or age):
            self._cut(client, _POLICY)

    def _cut(self, client: _Client, code: int) -> None:
        """End a connection: with a closing handshake of that code, or (0) without a word."""
        if code == 0:
            client.connection.transport.abort()
            return
        if client.is_leaving:
            return
        client.is_leaving = True
        task = asyncio.get_running_loop().create_task(client.connection.close(code))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # --- faults

    def _start_faults(self, now: int) -> None:
        floor, faults = self._parts.floor, self._parts.faults
        for fault in faults.due(now):
            self._parts.truth.fault(now, f"{fault.fault}: {fault}")
            if fault.fault == "disconnect":
                self._cut_all(fault.code)
                faults.shut(now, fault.seconds)
            elif fault.fault == "maintenance":
                for client in self._clients:
                    self._put(client, client.talk.notice(floor.now(now)), now)
                self._leaving.append((now + int(fault.notice * 1_000_000), fault))
            elif fault.fault == "skip" and fault.lost:
                floor.lose(floor.index.get(fault.symbol or ""), fault.count)
            elif fault.fault == "clock_off":
                floor.clock_off = fault.milliseconds * 1_000
            elif fault.fault == "stale_snapshot":
                floor.stale_snapshots += fault.count
        if floor.clock_off and faults.clock_ended(now):
            floor.clock_off = 0
        for when, fault in [*self._leaving]:
            if when <= now:
                self._leaving.remove((when, fault))
                self._cut_all(_GOING_AWAY)
                faults.shut(now, fault.seconds, all_of_it=True)

    def _cut_all(self, code: int) -> None:
        for client in self._clients:
            self._cut(client, code)

    # --- what clients do

    def _receive(self, connection: ServerConnection, asked: Asked) -> Response | None:
        """The answer to a request; None lets a client in to talk."""
        now = self._clock()
        try:
            answer = self._respond(_to_request(asked), now)
        except Exception as error:
            # The library would answer 500 and say nothing: `close` raises it.
            self._failure = error
            raise
        return None if answer is None else _response(answer, self._parts.floor.now(now))

    def _respond(self, request: Request, now: int) -> Answer | None:
        faults, dialect = self._parts.faults, self._parts.dialect
        if request.headers.get("upgrade", "").lower() != "websocket":
            answer = faults.http_answer(now)
            return answer or dialect.answer(request, self._parts.floor.now(now))
        self._came = [when for when in self._came if now - when < _FIVE_MINUTES] + [now]
        if faults.is_shut(now):
            return Answer("", 503, {"Retry-After": "1"})
        if len(self._came) > _MOST_CONNECTIONS:
            return Answer("", 429, {"Retry-After": "60"})
        if dialect.open_talk(request, 0) is None:
            return Answer("", 404)
        return None

    async def _hear(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self._count += 1
        now = self._clock()
        request = _to_request(connection.request)
        talk = self._parts.dialect.open_talk(request, self._count)
        assert talk is not None
        client = _Client(connection, talk, now)
        self._put(client, talk.opened(self._parts.floor.now(now)), now)
        self._clients.add(client)
        sender = asyncio.create_task(client.send())
        try:
            with contextlib.suppress(ConnectionClosed):
                async for text in connection:
                    self._answer(client, text if isinstance(text, str) else "")
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._clients.discard(client)
            sender.cancel()

    def _answer(self, client: _Client, text: str) -> None:
        now, most = self._clock(), self._parts.dialect.messages_a_second
        client.heard = [when for when in client.heard if now - when < 1_000_000] + [now]
        if most is not None and len(client.heard) > most:
            self._cut(client, _POLICY)
            return
        told = self._parts.floor.now(now)
        # Only what has to do with subscriptions: a ping in JSON must not use the fault up.
        subscribes = "subscri" in text.lower()
        if subscribes and self._parts.faults.takes("no_answer"):
            return
        if subscribes and self._parts.faults.takes("wrong_answer"):
            self._put(client, client.talk.refuse(text, told), now)
            return
        before = set(client.talk.streams)
        answers = client.talk.hear(text, told)
        client.since |= dict.fromkeys(set(client.talk.streams) - before, now)
        self._put(client, answers, now)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise Unavailable(
            f"port {port} cannot be had: {error}",
            place="--port",
            hint="another server may hold it: choose another port",
        ) from error


def _to_request(asked: Asked) -> Request:
    parts = urlsplit(asked.path)
    headers = {name.lower(): value for name, value in asked.headers.raw_items()}
    return Request(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers)


def _response(answer: Answer, now: int) -> Response:
    body = answer.body.encode()
    date = formatdate(now / 1e6, usegmt=True)
    usual = {"Date": date, "Content-Type": "application/json", "Connection": "close"}
    headers = Headers({**usual, **answer.headers, "Content-Length": str(len(body))})
    known = answer.status in {status.value for status in HTTPStatus}
    reason = HTTPStatus(answer.status).phrase if known else ""
    return Response(answer.status, reason, headers, body)


def _broken(text: str, number: int) -> str | bytes:
    """What arrives in place of the text: its first half, other bytes, or no JSON at all."""
    if number % 3 == 1:
        return text[: len(text) // 2]
    return text.replace(":", ";").encode() if number % 3 == 2 else "\x00" + text[1:]
