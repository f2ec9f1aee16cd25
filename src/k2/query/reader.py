"""The facade of this room: every question that a door may ask, answered over history and tail.

A `Reader` is opened on a home folder and closed by whoever opened it; any thread may ask.
"""

from datetime import date
from pathlib import Path
from types import TracebackType

from k2.query.answer import Answer
from k2.query.selection import Selection


class Reader:
    """Answers queries over one home folder. Every method may be called from any thread.

    `as_of` is a time (ISO 8601 with zone), a tag or a snapshot id, as text. `timeout` is in
    seconds. Raises `BadInput` for what cannot be asked, `NotFound` for what is not there,
    `Refused` for what is not allowed or took too long.
    """

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
        """Records of a kind in total order: all, the newest `last`, or a page of `limit`."""
        raise NotImplementedError

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

        `interval` is a number and s, m, h or d (`1m`); `last` keeps the newest bars per symbol.
        """
        raise NotImplementedError

    def summary(
        self, symbol: str, day: date, *, exchange: str | None = None, as_of: str | None = None
    ) -> Answer:
        """One exchange day, a row per exchange; `NotFound` when there is none."""
        raise NotImplementedError

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

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_reader(home: Path, *, follow: bool = False) -> Reader:
    """A reader of the lake and log below `home`; `follow` keeps the tail up to date in a thread."""
    return Reader()
