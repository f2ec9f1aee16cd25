"""The symbols of an exchange by what they traded, and the file of tiers that follows from it.

Comes in: traded values, each in its symbol's own currency. Goes out: ranks and tiers, as TOML for
`k2.ingest.tiers`.
"""

import glob
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from k2.ingest.tiers import ANY_EXCHANGE, BUILT_IN, LOWEST, QUOTES

LARGEST: Final = 20
"""So many symbols of an exchange are of tier 1, besides Bitcoin and Ether."""
NEXT: Final = 80
"""So many after these are of tier 2."""

_BITCOIN: Final = ("BTC", "XBT")
_MARKS: Final = ("-", "/")
_FIRST: Final = frozenset(BUILT_IN[ANY_EXCHANGE]["tier_1"])
_NAMES_A_LINE: Final = 6


@dataclass(frozen=True)
class Traded:
    """What a symbol traded: `value` is in the currency that its prices are in, if that is known."""

    symbol: str
    currency: str | None
    volume: Decimal
    value: Decimal


@dataclass(frozen=True)
class Ranked:
    """A symbol's rank among those of its exchange, from 1, and the tier that it gives."""

    symbol: str
    rank: int
    tier: int


def rank(traded: Sequence[Traded]) -> list[Ranked]:
    """The symbols of one exchange, the largest first.

    Values in several currencies are compared by what Bitcoin cost in each of them there; those in
    a currency that it was not traded in come last. An exchange without Bitcoin has one currency.
    """
    prices = _bitcoin_prices(traded)

    def size(of: Traded) -> tuple[bool, Decimal]:
        if not prices:
            return True, of.value
        price = prices.get(_pair(of)[1])
        return (False, of.value) if price is None else (True, of.value / price)

    ordered = sorted(traded, key=lambda of: (*size(of), of.symbol), reverse=True)
    symbols = [of.symbol for of in ordered]
    first = {*symbols[:LARGEST], *_FIRST.intersection(symbols)}
    second = {*[symbol for symbol in symbols if symbol not in first][:NEXT]}
    return [
        Ranked(symbol, number, 1 if symbol in first else 2 if symbol in second else LOWEST)
        for number, symbol in enumerate(symbols, 1)
    ]


def to_table(ranked: Sequence[Ranked]) -> dict[str, list[str]]:
    """One exchange's table of the file of tiers, as `to_tiers` takes it.

    Where Bitcoin or Ether are traded, their names in currencies that may come later stand there
    too.
    """
    symbols = [each.symbol for each in ranked]
    marks = {_mark(symbol) for symbol in symbols if symbol in _FIRST}
    more = [name for name in BUILT_IN[ANY_EXCHANGE]["tier_1"] if _mark(name) in marks]
    first = [_literally(each.symbol) for each in ranked if each.tier == 1]
    return {
        "tier_1": [*first, *(name for name in more if name not in first)],
        "tier_2": [_literally(each.symbol) for each in ranked if each.tier == 2],
    }


def to_toml(document: Mapping[str, Mapping[str, Sequence[str]]], heading: str) -> str:
    """The tables of exchanges as the text of a file, under a heading of comment lines."""
    lines = [f"# {line}" for line in heading.splitlines()]
    for exchange, table in document.items():
        lines += ["", f"[{_quoted(exchange)}]"]
        for key, names in table.items():
            lines.append(f"{key} = [")
            for start in range(0, len(names), _NAMES_A_LINE):
                some = names[start : start + _NAMES_A_LINE]
                lines.append(f"    {', '.join(map(_quoted, some))},")
            lines.append("]")
    return "\n".join(lines) + "\n"


def _bitcoin_prices(traded: Iterable[Traded]) -> dict[str | None, Decimal]:
    """What one bitcoin cost on average, by the currency that was paid for it."""
    volumes: dict[str | None, Decimal] = defaultdict(Decimal)
    values: dict[str | None, Decimal] = defaultdict(Decimal)
    for of in traded:
        base, currency = _pair(of)
        if base in _BITCOIN:
            volumes[currency] += of.volume
            values[currency] += of.value
    prices = {of: value / volumes[of] for of, value in values.items() if value and volumes[of]}
    return prices and {**prices, **dict.fromkeys(_BITCOIN, Decimal(1))}


def _pair(of: Traded) -> tuple[str, str | None]:
    """What is traded, and the currency that is paid: said by the feed, or by the symbol."""
    for mark in _MARKS:
        if mark in of.symbol:
            base, _, quote = of.symbol.rpartition(mark)
            return base, of.currency or quote
    known = [of.currency] if of.currency else sorted(QUOTES, key=len, reverse=True)
    quote = next((each for each in known if of.symbol.endswith(each)), "")
    return of.symbol.removesuffix(quote), of.currency or quote or None


def _mark(symbol: str) -> str:
    return next((mark for mark in _MARKS if mark in symbol), "")


def _literally(symbol: str) -> str:
    """As the file has to name it: an asterisk of its own is no pattern."""
    return glob.escape(symbol)


def _quoted(text: str) -> str:
    """As a string of TOML, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
