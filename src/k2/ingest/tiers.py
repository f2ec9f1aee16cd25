"""Which symbols matter most under overload: a file that users edit, read again when it changes.

A TOML table for each exchange, `["*"]` for those that have none (without it, what is built in):
`tier_1` and `tier_2` list symbols or patterns (`BTC-*`); whatever neither names is of tier 3.
"""

import logging
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2.errors import BadInput

logger = logging.getLogger(__name__)

ANY_EXCHANGE: Final = "*"
LOWEST: Final = 3
_KEYS: Final = ("tier_1", "tier_2")
QUOTES: Final = (
    *("USD", "USDT", "USDC", "FDUSD", "TUSD", "BUSD", "DAI", "EUR", "GBP", "JPY", "TRY", "BRL"),
    *("AUD", "CAD", "CHF", "BTC", "ETH"),
)
BUILT_IN: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    ANY_EXCHANGE: {
        "tier_1": [
            f"{base}{mark}{quote}"
            for base in ("BTC", "XBT", "ETH")
            for mark in ("", "-", "/")
            for quote in QUOTES
            if base != quote
        ],
    }
}
"""Bitcoin and Ether in every quote currency; what else is large, a ranking of volumes says."""


@dataclass(frozen=True)
class _Rules:
    """One exchange's tiers: exact names, then patterns, each of tier 1 before tier 2."""

    names: Mapping[str, int]
    patterns: tuple[tuple[re.Pattern[str], int], ...]

    def tier(self, symbol: str) -> int:
        if (known := self.names.get(symbol)) is not None:
            return known
        return next((tier for rule, tier in self.patterns if rule.fullmatch(symbol)), LOWEST)


@dataclass(frozen=True)
class Tiers:
    """The tiers of all exchanges. `version` is the same for the same content alone."""

    version: str
    rules: Mapping[str, _Rules]
    _known: dict[tuple[str, str], int] = field(default_factory=dict, compare=False)

    def of(self, exchange: str, symbols: Sequence[str]) -> npt.NDArray[np.int8]:
        """The tier, 1 to 3, of each symbol."""
        return np.array([self.tier(exchange, symbol) for symbol in symbols], np.int8)

    def tier(self, exchange: str, symbol: str) -> int:
        """The tier, 1 to 3, of a symbol."""
        key = (exchange, symbol)
        if key not in self._known:
            rules = self.rules.get(exchange) or self.rules.get(ANY_EXCHANGE)
            self._known[key] = rules.tier(symbol) if rules else LOWEST
        return self._known[key]


def to_tiers(document: Mapping[str, Any], place: str) -> Tiers:
    """The tiers that a document tells. Raises `BadInput`, naming the table and the key."""
    rules = {}
    for exchange, table in document.items():
        if not isinstance(table, dict):
            raise BadInput(
                f"{exchange} is no table", place=place, expected="[EXCHANGE] and its tiers"
            )
        if unknown := sorted(table.keys() - set(_KEYS)):
            where = f"{place}: [{exchange}]"
            raise BadInput(
                f"there is no {unknown[0]!r} here", place=where, expected=", ".join(_KEYS)
            )
        for key, names in table.items():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                where = f"{place}: [{exchange}] {key}"
                raise BadInput("these are no symbols", place=where, expected='["BTCUSDT", "ETH-*"]')
        rules[exchange] = _to_rules(table)
    text = repr(sorted((e, k, list(v)) for e, table in document.items() for k, v in table.items()))
    return Tiers(sha256(text.encode()).hexdigest()[:12], rules)


def _to_rules(table: Mapping[str, Sequence[str]]) -> _Rules:
    names: dict[str, int] = {}
    patterns = []
    for tier, key in enumerate(_KEYS, 1):
        for name in table.get(key, ()):
            if any(mark in name for mark in "*?["):
                patterns.append((re.compile(translate(name)), tier))
            else:
                names.setdefault(name, tier)
    return _Rules(names, tuple(patterns))


class TierFile:
    """The tiers of a file, or those built in where there is none. One thread at a time."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._tiers = to_tiers(BUILT_IN, "built in")

    def tiers(self) -> Tiers:
        """As the file is now. One that cannot be read changes nothing, and is told once."""
        if self._path is None:
            return self._tiers
        try:
            status = self._path.stat()
        except OSError:
            return self._tiers
        seen = (status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            self._seen = seen
            try:
                self._tiers = read_tiers(self._path)
            except BadInput as error:
                logger.error("%s; the tiers stay as they were", error)
        return self._tiers


def read_tiers(path: Path) -> Tiers:
    """The tiers of a file. Raises `BadInput` for one that cannot be read."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(
            "the file of tiers cannot be read", place=str(path), found=str(error)
        ) from error
    return to_tiers({**BUILT_IN, **document}, str(path))
