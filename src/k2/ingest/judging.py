"""What retention lets go of a table: days that are over for long enough, by their symbols' tiers,
unless a pin holds them.

Comes in: the file of retention, the tiers, the pins, the time. Goes out: a verdict on each day of a
symbol, and what came of them.
"""

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from k2.errors import Conflict
from k2.ingest.keep import Keep, Rule
from k2.ingest.tiers import Tiers
from k2.lake import Dataset, Lake, Retired, Verdict, pins_commit, pins_of, retire
from k2.lake.compact import OVER_AFTER
from k2.lake.retire import Seen
from k2.model import Exchange, exchange_dates, start_of_day

_TIERS: Final = (1, 2, 3)
_DAY: Final = timedelta(days=1)
_EPOCH: Final = date(1970, 1, 1)
_DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Hold:
    """What a pin is of: times `[start, end)` (a date: midnight in the zone of each exchange; None:
    open), trading dates up to `last`, symbols and exchanges (None: all).

    It holds whole days of symbols, also those of which no row met its conditions, and rows that
    came later: so that its question can be asked again, whatever else is retired.
    """

    name: str
    start: datetime | date | None
    end: datetime | date | None
    last: date
    symbols: frozenset[str] | None
    exchanges: frozenset[str] | None

    @classmethod
    def of(cls, pin: Dataset) -> "_Hold":
        """What this pin holds."""
        question = json.loads(pin.question)
        return cls(
            pin.name,
            _edge(question.get("start")),
            _edge(question.get("end")),
            # Nothing that was pinned is of a later day, in any zone.
            pin.pinned_at.date() + _DAY,
            frozenset(question["symbols"]) if question.get("symbols") else None,
            frozenset(question["exchanges"]) if question.get("exchanges") else None,
        )

    def has_day(self, exchange: Exchange, day: date) -> bool:
        """Whether it may be of rows of this day."""
        return (
            day <= self.last
            and (self.exchanges is None or exchange.name in self.exchanges)
            and (self.end is None or start_of_day(day, exchange) < _instant(self.end, exchange))
            and (
                self.start is None
                or start_of_day(day + _DAY, exchange) > _instant(self.start, exchange)
            )
        )

    def has(self, symbol: str) -> bool:
        """Whether it may be of rows of this symbol."""
        return self.symbols is None or symbol in self.symbols


def _edge(text: str | None) -> datetime | date | None:
    """An end of a range, as a pin's question spells it."""
    if text is None:
        return None
    is_date = len(text) == len("2026-01-05")
    return date.fromisoformat(text) if is_date else datetime.fromisoformat(text)


def _instant(edge: datetime | date, exchange: Exchange) -> datetime:
    if isinstance(edge, datetime):
        return edge
    return datetime.combine(edge, time(), ZoneInfo(exchange.zone)).astimezone(UTC)


class Judging:
    """A `k2.lake.Judge` of one table, as of one moment."""

    def __init__(self, lake: Lake, kind: str, keep: Keep, tiers: Tiers, now: datetime) -> None:
        self._lake = lake
        self._tiers = tiers
        # Before the pins: of one that is made meanwhile `check` knows.
        self._pinned = pins_commit(lake)
        self._holds = [_Hold.of(pin) for pin in pins_of(lake).values() if pin.table == kind]
        self._exchanges = lake.table(kind).snapshot().exchanges
        self._held: dict[tuple[str, date], tuple[_Hold, ...]] = {}
        self._ends: dict[tuple[str, int], tuple[date, Rule]] = {}
        for exchange in self._exchanges.values():
            for tier in _TIERS:
                if (rule := keep.rule(kind, exchange.name, tier)) is not None:
                    end = first_kept(exchange, rule.days, now)
                    self._ends[exchange.name, tier] = (end, rule)

    def concerns(self, day: date) -> Hashable | None:
        """As `k2.lake.Judge` says."""
        due = tuple((at, rule.text) for at, (end, rule) in self._ends.items() if day < end)
        if not due:
            return None
        names = {exchange for (exchange, _), _ in due}
        holds = tuple((name, self._holding(name, day)) for name in sorted(names))
        return due, self._tiers.version, holds

    def verdict(self, exchange: str, day: date, symbol: str) -> Verdict | None:
        """As `k2.lake.Judge` says."""
        tier = self._tiers.tier(exchange, symbol)
        end, rule = self._ends.get((exchange, tier), (date.min, None))
        if rule is None or day >= end:
            return None
        pins = tuple(hold.name for hold in self._holding(exchange, day) if hold.has(symbol))
        return Verdict(tier, rule.text, pins)

    def check(self) -> None:
        """As `k2.lake.Judge` says."""
        if pins_commit(self._lake) != self._pinned:
            raise Conflict("somebody has pinned meanwhile, or let go of a pin")

    def _holding(self, exchange: str, day: date) -> tuple[_Hold, ...]:
        if (exchange, day) not in self._held:
            of = self._exchanges[exchange]
            self._held[exchange, day] = tuple(h for h in self._holds if h.has_day(of, day))
        return self._held[exchange, day]


def first_kept(exchange: Exchange, days: int, now: datetime) -> date:
    """The first trading date that is kept where `days` whole ones are, behind the one that goes on
    at the exchange. A day counts as over an hour after its end.
    """
    at = (now - OVER_AFTER - _DAWN) // timedelta(microseconds=1)
    today = exchange_dates(np.array([at], np.int64), exchange)
    return _EPOCH + timedelta(days=int(today[0]) - days)


def retire_due(
    lake: Lake,
    kind: str,
    keep: Keep,
    tiers: Tiers,
    now: datetime,
    *,
    seen: Seen | None = None,
    dry_run: bool = False,
    may_go_on: Callable[[], bool] = lambda: True,
    on_step: Callable[[str], None] = lambda step: None,
) -> Retired | None:
    """Take out of a table what the rules let go by now, and say what; None where no rule is for
    such records. Raises as `k2.lake.retire` does.
    """
    if not keep.retires(kind) or not lake.has(kind):
        return None
    return retire(
        lake,
        kind,
        Judging(lake, kind, keep, tiers, now),
        seen=seen,
        dry_run=dry_run,
        may_go_on=may_go_on,
        on_step=on_step,
    )


def unknown_exchanges(lake: Lake, keep: Keep) -> list[str]:
    """Exchanges that have lines of their own and that no table has records of, sorted."""
    known: set[str] = set()
    for kind in {kind for kind, _, _ in keep.rules}:
        if lake.has(kind):
            exchanges: Mapping[str, Exchange] = lake.table(kind).snapshot().exchanges
            known |= exchanges.keys()
    return sorted(keep.exchanges - known)
