"""What a venue is here: how it speaks on its sockets and answers its requests, without any I/O.

Comes in: events of a floor, texts of clients, requests. Goes out: texts. The server does the rest.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from k2.venues.events import Event


class Message(NamedTuple):
    """Something to be told to all who follow `stream`, before each connection adds its own.

    `kind` is trades, quotes or book; `first` and `last` are the trades it carries, both
    inclusive (0: none). `time` is the venue's, in microseconds.
    """

    stream: str
    kind: str
    symbol: int
    time: int
    body: str
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Request:
    """A GET request: its path and its parameters, the last of each name."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a request is answered with; `body` is JSON unless the headers say another thing."""

    body: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Talk(Protocol):
    """One connection, as the venue sees it. All times are the venue's, in microseconds."""

    streams: Collection[str]
    """What the connection follows."""

    def opened(self, now: int) -> list[str]:
        """What a new connection is told unasked."""

    def hear(self, text: str, now: int) -> list[str]:
        """The answers to what the client sent."""

    def refuse(self, text: str, now: int) -> list[str]:
        """An answer of the venue's kind that wrongly says no to what the client sent."""

    def say(self, message: Message) -> str:
        """The message as this connection gets it. A message made and not sent counts as sent."""

    def pulse(self, now: int) -> list[str]:
        """What is due by itself, such as heartbeats."""

    def notice(self, now: int) -> list[str]:
        """The venue's notice that it is about to go away; empty if it has none."""

    def unknown(self, now: int) -> list[str]:
        """A message of a type that no specification has."""


class Dialect(Protocol):
    """One venue's protocol over its floor."""

    ping_seconds: float | None
    """How often the venue pings; a client that does not answer for three times that is cut."""
    messages_a_second: int | None
    """The most messages that a client may send; one that sends more is cut."""
    most_seconds: float | None
    """How long a connection may last."""
    silent_seconds: float | None
    """How long a connection may be without following anything."""

    def hear_event(self, event: Event, wanted: Collection[str]) -> Iterator[Message]:
        """What the event says at once on the streams that anybody wants."""

    def hear_time(self, now: int, wanted: Collection[str]) -> Iterator[Message]:
        """What is due by now on streams that gather first."""

    def open_talk(self, request: Request, number: int) -> Talk | None:
        """A new connection, the `number`-th; None if there is no socket at that path."""

    def answer(self, request: Request, now: int) -> Answer:
        """The answer to a request, at `now` by the venue's clock."""
