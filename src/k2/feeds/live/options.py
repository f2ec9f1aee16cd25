"""What the URL of a live feed asks for: `BTCUSDT,ETHUSDT?kinds=trades&stale=30`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from k2.errors import BadInput
from k2.feeds.live.venue import nanoseconds

KINDS: Final = ("trades", "quotes")
SIDES: Final = ("maker", "taker")
MOST_SYMBOLS: Final = 5_000

OPTIONS: Final = (
    *("ws", "rest", "kinds", "stale", "lifetime", "side", "books", "first", "last", "since"),
)
"""Names of a live feed's options, which docs/venues.md explains."""


@dataclass(frozen=True)
class Asked:
    """What is asked for, checked.

    `ws`, `rest`: other addresses than the venue's own. `stale`: seconds without a record after
    which a stream is doubted. `lifetime`: seconds after which the venue hangs up, if not its usual.
    `side`: whose side the venue's messages tell (None: as it is known). `books`: keep the raw
    changes of the book beside each quote. `ids`: only the trades of these ids (inclusive), from the
    venue's history, then the feed ends. `since`: a time before them (nanoseconds UTC; 0: not
    known), for venues whose history goes by time.
    """

    symbols: tuple[str, ...]
    kinds: tuple[str, ...] = KINDS
    ws: str | None = None
    rest: str | None = None
    stale: float = 30.0
    lifetime: float | None = None
    side: str | None = None
    books: bool = False
    ids: tuple[int, int] | None = None
    since: int = 0


def parse(venue: str, rest: str, symbol: str) -> Asked:
    """The options of `rest`; `symbol` is the pattern of a symbol. Raises `BadInput`."""
    names, _, query = rest.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise BadInput(
            f"the options of {venue} cannot be read", found=query, expected="name=value&name=value"
        ) from error
    given = dict(pairs)
    for name in given:
        if name not in OPTIONS:
            raise BadInput(f"{venue} has no option {name!r}", expected=", ".join(OPTIONS))
    if len(given) < len(pairs):
        raise BadInput(f"an option of {venue} is given twice", found=query)
    return Asked(
        _symbols(venue, unquote(names), symbol),
        _kinds(venue, given),
        _address(venue, given, "ws", ("ws", "wss")),
        _address(venue, given, "rest", ("http", "https")),
        _seconds(venue, given, "stale") or 30.0,
        _seconds(venue, given, "lifetime"),
        _one_of(venue, given, "side", SIDES),
        _one_of(venue, given, "books", ("raw",)) is not None,
        _ids(venue, given),
        _time(venue, given),
    )


def _symbols(venue: str, names: str, pattern: str) -> tuple[str, ...]:
    symbols = tuple(dict.fromkeys(names.split(",")))
    for name in symbols:
        if not re.fullmatch(pattern, name):
            raise BadInput(
                f"{name!r} is no symbol of {venue}",
                expected=f"symbols as the venue writes them ({pattern}), joined by commas",
            )
    if len(symbols) > MOST_SYMBOLS:
        raise BadInput(f"too many symbols for one feed of {venue}", expected=f"{MOST_SYMBOLS:,}")
    return symbols


def _kinds(venue: str, given: Mapping[str, str]) -> tuple[str, ...]:
    asked = given.get("kinds", "trades,quotes").split(",")
    if not set(asked) <= set(KINDS):
        raise BadInput(
            f"{venue} has no such kind",
            found=given["kinds"],
            expected="trades, quotes or trades,quotes",
        )
    return tuple(kind for kind in KINDS if kind in asked)


def _address(
    venue: str, given: Mapping[str, str], name: str, schemes: tuple[str, ...]
) -> str | None:
    if name not in given:
        return None
    url = given[name].rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or parts.query:
        raise BadInput(
            f"the {name} of {venue} is no address",
            found=given[name],
            expected=f"{schemes[-1]}://HOST[:PORT]",
        )
    return url


def _seconds(venue: str, given: Mapping[str, str], name: str) -> float | None:
    if name not in given:
        return None
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", given[name]) and float(given[name]) > 0:
        return float(given[name])
    raise BadInput(
        f"the {name} of {venue} cannot be that", found=given[name], expected="seconds, above 0"
    )


def _one_of(venue: str, given: Mapping[str, str], name: str, values: tuple[str, ...]) -> str | None:
    value = given.get(name)
    if value is not None and value not in values:
        raise BadInput(
            f"the option {name} of {venue} cannot be that",
            found=value,
            expected=" or ".join(values),
        )
    return value


def _ids(venue: str, given: Mapping[str, str]) -> tuple[int, int] | None:
    if "first" not in given and "last" not in given:
        return None
    texts = given.get("first", ""), given.get("last", "")
    if all(re.fullmatch(r"[0-9]{1,18}", text) for text in texts) and 0 < int(texts[0]) <= int(
        texts[1]
    ):
        return int(texts[0]), int(texts[1])
    raise BadInput(
        f"the range of trade ids of {venue} cannot be that",
        found=" to ".join(texts),
        expected="first=ID&last=ID, both inclusive",
    )


def _time(venue: str, given: Mapping[str, str]) -> int:
    if "since" not in given:
        return 0
    try:
        return nanoseconds(given["since"])
    except ValueError as error:
        raise BadInput(
            f"the option since of {venue} is no time",
            found=given["since"],
            expected="ISO 8601 with a zone, such as 2026-01-05T00:00:00Z",
        ) from error
