"""A market whose days are retired, and the same once more in plain Python."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from k2.ingest import audit
from k2.ingest.judging import retire_due
from k2.ingest.keep import Keep, read_keep
from k2.ingest.tiers import to_tiers
from k2.lake import Retired
from tests.query.make import EXCHANGES, Row
from tests.query.plain import date_begins
from tests.query.test_reader import Market

TIERS = to_tiers({"*": {"tier_1": ["A"], "tier_2": ["B"]}}, "these tests")
TIER = {"A": 1, "B": 2}
DAY = timedelta(days=1)

Unit = tuple[str, date, str]
"""Exchange, trading date, symbol: what is retired as one."""


def keep_of(folder: Path, text: str) -> Keep:
    path = folder / "retention.toml"
    path.write_text(text)
    return read_keep(path)


def retire(
    market: Market,
    keep: Keep,
    now: datetime,
    on_step: Callable[[str], None] = lambda step: None,
    *,
    dry_run: bool = False,
) -> Retired:
    found = retire_due(market.lake, "trades", keep, TIERS, now, on_step=on_step, dry_run=dry_run)
    assert found is not None
    return found


def unit(row: Row) -> Unit:
    return row["exchange"], row["exchange_date"], row["symbol"]


@dataclass(frozen=True)
class Hold:
    """What a pin holds, in plain Python."""

    symbols: frozenset[str]
    exchanges: frozenset[str]
    start: datetime | None
    end: datetime | None

    def has(self, of: Unit) -> bool:
        exchange, day, symbol = of
        return (
            (not self.symbols or symbol in self.symbols)
            and (not self.exchanges or exchange in self.exchanges)
            and (self.end is None or date_begins(exchange, day) < self.end)
            and (self.start is None or date_begins(exchange, day + DAY) > self.start)
        )


@dataclass
class Plain:
    """What must be left: rows by their ids, and what became of all the others."""

    rows: dict[str, Row] = field(default_factory=dict)
    waiting: list[Row] = field(default_factory=list)
    closed: set[Unit] = field(default_factory=set)
    holds: dict[str, Hold] = field(default_factory=dict)
    retired: int = 0
    duplicates: int = 0

    def commit(self) -> None:
        for row in self.waiting:
            if unit(row) in self.closed:
                self.retired += 1
            elif row["trade_id"] in self.rows:
                self.duplicates += 1
            else:
                self.rows[row["trade_id"]] = row
        self.waiting = []

    def retire(self, days: Mapping[tuple[str, int], int], now: datetime) -> int:
        """`days` are kept of each exchange and tier; what no key names is kept for good."""
        units = {unit(row) for row in self.rows.values()}
        gone = {of for of in units if self._is_due(of, days, now)}
        ids = [id_ for id_, row in self.rows.items() if unit(row) in gone]
        for id_ in ids:
            del self.rows[id_]
        self.closed |= gone
        self.retired += len(ids)
        return len(ids)

    def _is_due(self, of: Unit, days: Mapping[tuple[str, int], int], now: datetime) -> bool:
        exchange, day, symbol = of
        kept = days.get((exchange, TIER.get(symbol, 3)))
        if kept is None or any(hold.has(of) for hold in self.holds.values()):
            return False
        at = now - timedelta(hours=1) + EXCHANGES[exchange].day_roll
        return day < at.astimezone(ZoneInfo(EXCHANGES[exchange].zone)).date() - kept * DAY


def fates(market: Market) -> dict[str, int]:
    """The audit's sums, once it found nothing wrong."""
    found = audit(market.log, market.lake)
    assert found.ok, [part for part in found.partitions if part.problem]
    names = ("committed", "duplicate", "rejected", "retired", "in_flight")
    return {name: sum(getattr(part, name) for part in found.partitions) for name in names}


def at_noon(day: int) -> datetime:
    """So many days after the first of these tests."""
    return datetime(2024, 3, 4, 12, tzinfo=UTC) + day * DAY
