"""The facade of this room: every question that a door may ask, answered over history and tail.

A `Reader` is opened on a home folder and closed by whoever opened it; any thread may ask.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pyarrow as pa

from k2.errors import NotFound
from k2.query.answer import Answer
from k2.query.bars import BarsWanted, make_bars
from k2.query.interval import parse_interval
from k2.query.page import from_token, to_token
from k2.query.port import Engine
from k2.query.records import Wanted, fetch_records, question
from k2.query.selection import Selection
from k2.query.view import View

if TYPE_CHECKING:
    from k2.query.state import State

PRICE_NOTE = "only trades that form prices; all_trades takes the others in"


class Reader:
    """Answers queries over one home folder. Every method may be called from any thread.

    `as_of` is a time (ISO 8601 with zone), a tag or a snapshot id, as text. `timeout` is in
    seconds. Raises `BadInput` for what cannot be asked, `NotFound` for what is not there,
    `Refused` for what is not allowed or took too long, `Unavailable` when log or lake are away or
    the writer is far behind.
    """

    def __init__(self, state: "State", engine: Engine) -> None:
        self._state = state
        self._engine = engine

    def records(
        self,
        kind: str,
        selection: Selection,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: str | None = None,
        fields: tuple[str, ...] = (),
        as_of: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Records of a kind in total order: all, the newest `last`, or a page of `limit`.

        `fields` are the columns wanted: the kind's own by default. `after` is the `next` of the
        page before: it sees the state that the first page saw.
        """
        began = time.perf_counter()
        wanted = Wanted(last, limit, fields)
        asked = question(kind, selection, wanted, as_of)
        page = from_token(after, asked) if after is not None else None
        view = self._state.view(kind, as_of=as_of, page=page)
        table, following = fetch_records(
            self._engine, view, selection, wanted, after=page, timeout=timeout
        )
        return Answer(
            table,
            told([view], table, began, as_of=as_of),
            to_token(following, asked) if following else None,
        )

    def bars(
        self,
        selection: Selection,
        interval: str,
        *,
        all_trades: bool = False,
        fill: bool = False,
        last: int | None = None,
        as_of: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Time bars: symbol, exchange, start, open, high, low, close, volume, trade_count, vwap.

        `interval` is a number and s, m, h or d (`1m`); `last` keeps the newest bars of each symbol
        and exchange. `start` is when the interval begins, UTC; a day begins at midnight where it
        is traded.
        """
        began = time.perf_counter()
        wanted = BarsWanted(parse_interval(interval), all_trades=all_trades, fill=fill, last=last)
        view = self._state.view("trades", as_of=as_of)
        table = make_bars(self._engine, view, selection, wanted, timeout=timeout)
        notes = [] if all_trades else [PRICE_NOTE]
        return Answer(table, told([view], table, began, as_of=as_of, notes=notes))

    def summary(
        self,
        symbol: str,
        day: date,
        *,
        exchange: str | None = None,
        as_of: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """One exchange day, a row per exchange; `NotFound` when there is none."""
        began = time.perf_counter()
        selection = Selection((symbol,), (exchange,) if exchange is not None else ())
        wanted = BarsWanted(parse_interval("1d"), day=day)
        view = self._state.view("trades", as_of=as_of)
        made = make_bars(self._engine, view, selection, wanted, timeout=timeout)
        if not made.num_rows:
            raise NotFound(
                f"no trade of {symbol} formed a price on {day}",
                hint="`symbols` lists what there is, with its first and last time",
            )
        dates = pa.array([day] * made.num_rows, pa.date32())
        table = made.set_column(2, "date", dates)
        return Answer(table, told([view], table, began, as_of=as_of, notes=[PRICE_NOTE]))

    def symbols(self, *, exchange: str | None = None, as_of: str | None = None) -> Answer:
        """What is traded: symbol, exchange, asset_class, trades, quotes, first and last time."""
        raise NotImplementedError

    def stats(self, *, as_of: str | None = None) -> Answer:
        """Per table: rows, files, bytes, snapshot, first and last timestamp, tail rows, lag."""
        raise NotImplementedError

    def snapshots(self, table: str = "trades", *, limit: int = 100) -> Answer:
        """Commits of a table, newest first: commit, snapshot_id, committed_at, rows."""
        raise NotImplementedError

    def ledger(self, name: str, *, limit: int = 1000) -> Answer:
        """The newest entries of a ledger: rejected, duplicates, gaps or commits."""
        raise NotImplementedError

    def sql(self, text: str, *, limit: int | None = None, timeout: float | None = None) -> Answer:
        """The answer of one read-only SELECT over trades, quotes, instruments and the ledgers."""
        raise NotImplementedError

    def status(self) -> dict[str, object]:
        """Records per second, lag, freshness, snapshot: what a status strip shows, JSON-ready."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything that is open. Nothing else may be called afterwards."""
        self._engine.close()
        self._state.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def told(
    views: Iterable[View],
    table: pa.Table,
    began: float,
    *,
    as_of: str | None = None,
    notes: Iterable[str] = (),
) -> dict[str, object]:
    """The meta of an answer: which state it is of, how much, how long it took."""
    found = list(views)
    return {
        "snapshots": {view.table: _snapshot(view) for view in found},
        "offsets": {topic: of for view in found for topic, of in _offsets(view).items()},
        "as_of": as_of,
        "rows": table.num_rows,
        "milliseconds": round((time.perf_counter() - began) * 1000, 3),
        "notes": list(notes),
    }


def _snapshot(view: View) -> Mapping[str, object]:
    narrowed = view.pin is not None and view.pin.sequence != view.sequence
    return {
        "commit": view.pin.sequence if view.pin else view.sequence,
        # As text: JavaScript's numbers end at 2^53.
        "snapshot_id": None if narrowed or view.snapshot_id is None else str(view.snapshot_id),
    }


def _offsets(view: View) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for r in view.pin.ranges if view.pin else view.ranges:
        found.setdefault(r.topic, {})[str(r.partition)] = r.end
    return found


def open_reader(
    home: Path,
    *,
    follow: bool = False,
    log: str | None = None,
    registry: str | None = None,
    lake: Path | None = None,
    skew: timedelta = timedelta(minutes=5),
    memory: int | None = None,
) -> Reader:
    """A reader of the lake and log below `home`; `follow` keeps the tail up to date in a thread.

    `log`, `registry` (URLs) and `lake` (a folder) are elsewhere if given; `skew` is the writer's
    own, `memory` a limit in bytes for queries.
    """
    # Imported here: engine and stores take longer to load than the types that doors import.
    from k2.query.duckdb import DuckDB
    from k2.query.state import State

    state = State(home, log=log, registry=registry, lake=lake, skew=skew)
    return Reader(state, DuckDB(memory=memory))
