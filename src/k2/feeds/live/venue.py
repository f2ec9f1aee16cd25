"""What a live venue is to the machinery: its addresses, its messages, and how they are read.

A venue file is pure but for this: it opens nothing, waits for nothing and looks at no clock. Frames
go in, rows of decimal text go out; numbers of prices never pass through a float.
"""

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

import orjson

from k2.model import Exchange

UNREADABLE: Final = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError),
    # A value nested a thousand deep is JSON, and Python cannot even print it.
    RecursionError,
)
"""What reading a message of an unexpected shape raises."""

LOST: Final = "lost"
LEAVING: Final = "leaving"
MAINTENANCE: Final = "maintenance"
ONLINE: Final = "online"

FEED_DOWN: Final = "feed down"
"""The cause of what is missing because nobody followed the venue, before a feed was started again;
"disconnect" is that of a connection which ended while it did."""

MOST_ID: Final = 2**63 - 1

_PLAIN: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_FRACTION: Final = re.compile(r"(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})")


class Frame(NamedTuple):
    """A message as it came: by which connection, when (microseconds UTC), and its bytes."""

    connection: int
    received: int
    text: bytes


class Trade(NamedTuple):
    """A trade as a venue tells it: decimals as text, `timestamp` in nanoseconds UTC."""

    symbol: str
    trade_id: int
    timestamp: int
    price: str
    quantity: str
    side: str
    sequence: int | None = None
    vendor: str | None = None


class Quote(NamedTuple):
    """Best bid and ask; both texts of a side are None where it is empty.

    Where the venue has no number for it, `occurrence` tells apart quotes that are equal in all.
    """

    symbol: str
    timestamp: int
    bid_price: str | None
    bid_quantity: str | None
    ask_price: str | None
    ask_quantity: str | None
    sequence: int | None = None
    occurrence: int | None = None
    vendor: str | None = None


@dataclass(frozen=True)
class Reject:
    """What could not be read, with the frame that it stood in."""

    frame: Frame
    kind: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """What a message means for its connection.

    `LOST`: quotes of `symbol` (None: of all) cannot be trusted until it is replaced. `LEAVING`: the
    venue will hang up, so it is replaced. `MAINTENANCE`, `ONLINE`: the cause of what comes next.
    """

    connection: int
    what: str
    reason: str
    symbol: str | None = None


@dataclass
class Parsed:
    """Rows of many frames, each beside the frame that it came in, and what else they said.

    `delays`: receive time minus the venue's own time, in microseconds, of live messages. Rows of a
    symbol that is not `known` are rejects (None: all are).
    """

    known: Container[str] | None = None
    trades: list[Trade] = field(default_factory=list)
    trade_frames: list[Frame] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    quote_frames: list[Frame] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)

    def trade(self, trade: Trade, frame: Frame) -> None:
        """Take a trade."""
        if self.known is not None and trade.symbol not in self.known:
            self.reject(frame, "trades", f"{trade.symbol!r} was not asked for")
            return
        self.trades.append(trade)
        self.trade_frames.append(frame)

    def quote(self, quote: Quote, frame: Frame) -> None:
        """Take a quote."""
        if self.known is not None and quote.symbol not in self.known:
            self.reject(frame, "quotes", f"{quote.symbol!r} was not asked for")
            return
        self.quotes.append(quote)
        self.quote_frames.append(frame)

    def reject(self, frame: Frame, kind: str, reason: str) -> None:
        """Keep what could not be read."""
        self.rejects.append(Reject(frame, kind, reason))


class Parser(Protocol):
    """Reads the frames of one connection, in order; holds what outlives a frame, such as books."""

    def parse(self, frame: Frame, out: Parsed) -> None:
        """Add what the frame says to `out`; raises one of `UNREADABLE` for what it cannot read."""


@dataclass(frozen=True)
class Request:
    """A message to send, and the keys of the acknowledgements that have to answer it."""

    text: str
    keys: frozenset[str]


@dataclass(frozen=True)
class Answer:
    """An acknowledgement: of which key, and why it was refused (None: it was not)."""

    key: str
    refused: str | None = None


@dataclass(frozen=True)
class Plan:
    """One connection: where to, what to ask for there, and whose records it brings."""

    url: str
    requests: tuple[Request, ...]
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What the venue allows and promises, in seconds unless said otherwise.

    `lifetime`: it hangs up by then (None: never). `silence`: a connection that says nothing for so
    long is dead (None: it may have nothing to say). `between_messages`: the least time between two
    messages to it. `between_requests`: the least between two requests of history.
    """

    lifetime: float | None
    silence: float | None
    between_messages: float
    between_requests: float


@dataclass(frozen=True)
class Body:
    """An answer of the venue's REST interface, and when it came (microseconds UTC)."""

    text: bytes
    received: int


class Busy(Exception):
    """The venue asks to wait `retry_after` seconds before the next request."""

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


Get = Callable[[str, Mapping[str, str], Mapping[str, str]], Body]
"""Requests a path with parameters and headers, at the pace that the venue allows, until it
answers. Raises `Refused` if it says no."""


class Venue(Protocol):
    """A venue: what `binance.py` and its siblings say of theirs."""

    exchange: Exchange
    limits: Limits
    rest: str
    """Where its REST interface is."""
    quotes_are_numbered: bool
    """Whether a quote has its own `sequence`, the same on any connection, growing but for some."""

    def plans(self) -> Sequence[Plan]:
        """The connections that its symbols need."""

    def parser(self, symbols: Sequence[str]) -> Parser:
        """Reads the frames of a new connection that carries these symbols."""

    def answers(self, text: bytes) -> Sequence[Answer]:
        """What a frame acknowledges; nothing if it is no acknowledgement."""

    def history(self, get: Get, symbol: str, first: int, last: int, after: int) -> Iterator[Parsed]:
        """Trades with ids `first` to `last` (inclusive), ascending, page by page.

        `after` is the time (nanoseconds UTC) of the trade before them, 0 if that is not known.
        Other trades may come along. Ends early where the venue has no more.
        """

    def newest(self, get: Get, symbol: str) -> int | None:
        """The id of the symbol's newest trade; None if it has none."""


def parse_frames(parser: Parser, frames: Sequence[Frame], out: Parsed) -> None:
    """Read frames one after the other: one that cannot be read is kept whole and harms no other."""
    for frame in frames:
        try:
            parser.parse(frame, out)
        except orjson.JSONDecodeError as error:
            out.reject(frame, "unknown", f"the message is no JSON: {error}")
        except UNREADABLE as error:
            out.reject(frame, "unknown", f"the message has another shape: {describe(error)}")


def describe(error: Exception) -> str:
    """An error of reading, in words."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    return str(error) or type(error).__name__


def whole(value: object, what: str) -> int:
    """The value, if it is a whole number from 0 on that fits; raises `ValueError` naming `what`."""
    if type(value) is int and 0 <= value <= MOST_ID:
        return value
    raise ValueError(f"{what} {value!r} is no whole number")


def text(value: object, what: str) -> str:
    """The value, if it is a text; raises `ValueError` naming `what`."""
    if type(value) is str:
        return value
    raise ValueError(f"{what} {value!r} is no text")


def plain(value: object, what: str) -> str:
    """The value, if it is a decimal text such as 1.50; raises `ValueError` naming `what`."""
    if type(value) is str and _PLAIN.fullmatch(value):
        return value
    raise ValueError(f"{what} {value!r} is no decimal")


def digits(value: object, what: str) -> str:
    """A number as text, written out where it has an exponent; raises `ValueError` naming `what`."""
    number = text(value, what)
    if "e" in number or "E" in number:
        written = Decimal(number)
        # Written out, a huge exponent would be a huge text.
        if abs(written.adjusted()) > 100:
            raise ValueError(f"{what} {number} is too large or too small")
        return format(written, "f")
    return number


class Ordinals:
    """Numbers quotes that are equal in all, their receive time included: 0, 1, and so on.

    Those with one receive time come one after the other.
    """

    def __init__(self) -> None:
        self._received = -1
        self._seen: dict[object, int] = {}

    def number(self, received: int, content: object) -> int:
        """The ordinal of the next quote with this content."""
        if received != self._received:
            self._received = received
            self._seen.clear()
        self._seen[content] = found = self._seen.get(content, -1) + 1
        return found


def nanoseconds(when: object) -> int:
    """Nanoseconds since 1970 UTC of an RFC 3339 time; raises `ValueError`."""
    if type(when) is not str or (match := _FRACTION.fullmatch(when, 19)) is None:
        raise ValueError(f"{when!r} is no RFC 3339 time")
    seconds = _second(when[:19])
    if match[2] != "Z":
        hours, minutes = match[2][1:].split(":")
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds -= offset if match[2][0] == "+" else -offset
    return seconds * 1_000_000_000 + int((match[1] or "0").ljust(9, "0"))


# Most messages share their second with the one before: finding the day anew costs more than all
# the rest.
@lru_cache(maxsize=256)
def _second(when: str) -> int:
    return int(datetime.strptime(when, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
