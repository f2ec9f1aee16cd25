"""Ends of an exchange's day, as lived: the last commit made by then gets a name for good.

`ASX-2026-11-20-close` is what K2 held when the trading date 2026-11-20 ended at ASX, given once and
never moved: late records do not change it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.lake.index import DataFileRef
from k2.lake.ledgers import COMMITS, Tables, commits_of, tag_all, tags_in
from k2.model import TIMESTAMP_TYPE, Exchange, start_of_day

KINDS: Final = ("quotes", "trades")
CORRECTIONS: Final = "corrections"
SETTLED_AFTER: Final = timedelta(minutes=5)
"""A commit has its time before it is the table's: one that was under way at a day's end may come
into sight afterwards, and belongs to that day."""

_COLUMNS: Final = ("exchange", "commit_sequence")


@dataclass(frozen=True)
class Close:
    """The end of one trading date at one exchange."""

    exchange: Exchange
    day: date

    @property
    def name(self) -> str:
        """Such as `ASX-2026-11-20-close`."""
        return f"{self.exchange.name}-{self.day}-close"

    @property
    def at(self) -> datetime:
        """When the date ends: when the next one begins."""
        return start_of_day(self.day + timedelta(days=1), self.exchange)


def tag_closes(lake: Tables, now: datetime) -> list[str]:
    """Tag the ends of days that are over by `now`; the names that are new, sorted.

    A day of an exchange is tagged in the table of trades, and of quotes, where that exchange had
    rows of it by its end, and in that of corrections besides, so that all are of one moment. Days
    are looked at from the newest tagged one on: doing it often is cheap. Doing it again, or two at
    once, gives no name twice.
    """
    found: dict[str, dict[str, int]] = {}
    closes: dict[str, Close] = {}
    for kind in KINDS:
        if lake.has(kind):
            ended = dict(_closes(lake, kind, now))
            found[kind] = {close.name: commit for close, commit in ended.items()}
            closes |= {close.name: close for close in ended}
    # Corrections first: whoever is killed in between finds these days again.
    if closes and lake.has(CORRECTIONS):
        commits = _Commits(commits_of(lake, CORRECTIONS))
        by_then = {name: commits.by(close.at) for name, close in closes.items()}
        tag_all(lake, CORRECTIONS, {name: commit for name, commit in by_then.items() if commit})
    given = {name for kind, wanted in found.items() for name in tag_all(lake, kind, wanted)}
    return sorted(given)


def _closes(lake: Tables, kind: str, now: datetime) -> Iterator[tuple[Close, int]]:
    """The closes that are to be tagged in a table, each with the last commit by then."""
    snapshot = lake.table(kind).snapshot()
    commits = _Commits(commits_of(lake, kind))
    tagged = _newest_tagged(lake, kind, snapshot.exchanges)
    firsts: dict[str, dict[str, int]] = {}
    dates = (file.exchange_date for file in snapshot.files.select())
    for day in sorted({day for day in dates if day is not None}):
        for exchange in snapshot.exchanges.values():
            close = Close(exchange, day)
            if day <= tagged.get(exchange.name, date.min) or close.at + SETTLED_AFTER > now:
                continue
            commit = commits.by(close.at)
            files = snapshot.files.select(dates=(day, day), as_of=commit) if commit else ()
            if any(_first_commit(file, exchange.name, firsts) <= commit for file in files):
                yield close, commit


def _newest_tagged(lake: Tables, kind: str, exchanges: Iterable[str]) -> dict[str, date]:
    """Of each exchange, the newest day whose close has its tag. Whatever came to days before it
    came later than they ended: they are decided.
    """
    if not lake.has(COMMITS):
        return {}
    tags = tags_in(lake.table(COMMITS).snapshot().files.select(), kind)
    found: dict[str, date] = {}
    for name in exchanges:
        for tag in tags:
            day = tag.removeprefix(f"{name}-").removesuffix("-close")
            if tag == f"{name}-{day}-close" and (when := _to_date(day)) is not None:
                found[name] = max(when, found.get(name, date.min))
    return found


def _to_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


class _Commits:
    """The commits of one table by their times."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows.filter(pc.not_equal(rows["operation"], "tag"))

    def by(self, moment: datetime) -> int:
        """The last commit by then; 0 if there was none."""
        by_then = pc.less_equal(self._rows["committed_at"], pa.scalar(moment, TIMESTAMP_TYPE))
        return int(pc.max(self._rows.filter(by_then)["commit"]).as_py() or 0)


def _first_commit(file: DataFileRef, exchange: str, known: dict[str, dict[str, int]]) -> float:
    """The first commit that brought a row of the exchange into the file; infinite for none."""
    if file.path not in known:
        known[file.path] = _first_commits(file)
    return known[file.path].get(exchange, float("inf"))


def _first_commits(file: DataFileRef) -> dict[str, int]:
    """The first commit of each exchange that has rows in the file, from its statistics where these
    tell it: most files are of one exchange.
    """
    opened = pq.ParquetFile(file.path, read_dictionary=["exchange"])
    found: dict[str, int] = {}
    for group in range(opened.metadata.num_row_groups):
        told = _from_statistics(opened.metadata.row_group(group), file.sequence)
        if told is None:
            told = _from_rows(opened.read_row_group(group, list(_COLUMNS)), file.sequence)
        for name, commit in told.items():
            found[name] = min(commit, found.get(name, commit))
    return found


def _from_statistics(group: pq.RowGroupMetaData, sequence: int) -> dict[str, int] | None:
    of = {
        column.path_in_schema: column.statistics
        for column in map(group.column, range(group.num_columns))
        if column.path_in_schema in _COLUMNS
    }
    exchange, commit = (of.get(name) for name in _COLUMNS)
    if exchange is None or not exchange.has_min_max or exchange.min != exchange.max:
        return None
    if commit is None or not (commit.has_min_max or commit.null_count == group.num_rows):
        return None
    # A null stands for the file's own commit, which none in it is after.
    return {exchange.min: commit.min if commit.has_min_max else sequence}


def _from_rows(rows: pa.Table, sequence: int) -> dict[str, int]:
    own: Any = pa.scalar(sequence, pa.int64())
    commits = pc.fill_null(rows["commit_sequence"], own)
    table = pa.table({"exchange": rows["exchange"].cast(pa.string()), "commit": commits})
    least = table.group_by("exchange").aggregate([("commit", "min")])
    return dict(zip(*(least[n].to_pylist() for n in ("exchange", "commit_min")), strict=True))
