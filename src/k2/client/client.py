"""The Python client: the HTTP interface's questions, answered as Arrow tables.

Decimals stay exact (`decimal128(18, 8)`), times are `timestamp[us, UTC]`. It needs nothing of the
server's machine but its address.
"""

import urllib.parse
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from k2.client.download import downloaded
from k2.client.http import Http
from k2.client.replay import Batch, replayed
from k2.client.stream import streamed
from k2.errors import Refused

When: TypeAlias = datetime | date | str

_PAGE_ROWS: Final = 100_000
_MOST_BARS: Final = 100_000
_MOST_LISTED: Final = 10_000
_RANGE: Final[Mapping[str, str]] = {"start": "start_time", "end": "end_time"}
_BAR_ORDER: Final = [(name, "ascending") for name in ("symbol", "exchange", "start")]


class Client:
    """Asks a K2 server. Nothing is held open between questions; any thread may ask.

    `start` and `end` bound a half-open range: a zoned datetime, a date (midnight in the exchange's
    own zone), or text as the command line takes it (`-15m`). `as_of` asks for the data as K2 held
    it at a time, a tag or a snapshot id. Trades are those that stand after corrections. Raises
    `Unavailable` when the server cannot be reached, and the server's own errors as K2's.
    """

    def __init__(self, url: str = "http://127.0.0.1:8642", *, timeout: float = 60.0) -> None:
        self._http = Http(url, timeout)

    def trades(self, *symbols: str, **selection: Any) -> pa.Table:
        """All matching trades in total order; keywords as `records`."""
        return pa.concat_tables(self.records("trades", *symbols, **selection))

    def quotes(self, *symbols: str, **selection: Any) -> pa.Table:
        """All matching quotes in total order; keywords as `records`."""
        return pa.concat_tables(self.records("quotes", *symbols, **selection))

    def records(
        self,
        kind: str,
        *symbols: str,
        exchanges: Sequence[str] = (),
        start: When | None = None,
        end: When | None = None,
        fields: Sequence[str] = (),
        as_of: When | None = None,
        as_known_at: When | None = None,
        history: bool = False,
    ) -> Iterator[pa.Table]:
        """Matching records as the server sends them, some at a time, all of one state. One that
        does not take them is waited for; a connection that breaks is opened again.

        `as_known_at` leaves out what was known later; with `history` trades come as they were first
        reported, with columns that say what became of each.
        """
        asked = _present(
            symbol=list(symbols),
            exchange=list(exchanges),
            start_time=_text(start),
            end_time=_text(end),
            fields=list(fields),
            as_of=_text(as_of),
            as_known_at=_text(as_known_at),
            history="true" if history else None,
        )
        yield from downloaded(self._http, kind, asked)

    def join(
        self,
        left: str = "trades",
        right: str = "quotes",
        *symbols: str,
        exchanges: Sequence[str] = (),
        start: When | None = None,
        end: When | None = None,
        max_age: str | None = None,
        strict: bool = False,
        look_ahead: bool = False,
        fields: Sequence[str] = (),
        as_of: When | None = None,
        as_known_at: When | None = None,
    ) -> pa.Table:
        """Each record of `left` with the one of `right` that stood when it printed: at or before it
        (`strict`: before it), not older than `max_age` (`5s`), and known by then, unless the join
        may `look_ahead`. Where nothing stood, the columns of `right` are null.
        """
        question = _present(
            left=left,
            right=right,
            symbols=list(symbols),
            exchanges=list(exchanges),
            start_time=_text(start),
            end_time=_text(end),
            max_age=max_age,
            strict=strict or None,
            look_ahead=look_ahead or None,
            fields=list(fields),
            as_of=_text(as_of),
            as_known_at=_text(as_known_at),
            limit=_PAGE_ROWS,
        )
        return pa.concat_tables(self._pages("/v1/join", question))

    def spreads(
        self, symbol: str, interval: str = "1m", horizon: str = "10s", **asked: Any
    ) -> pa.Table:
        """Quoted, effective and realised spreads of each interval in which anything happened, the
        realised ones against the middle a `horizon` later; keywords as `markouts`.
        """
        question = _measured(symbol, interval=interval, horizon=horizon, **asked)
        return self._http.table("/v1/spreads", question)[0]

    def markouts(
        self, symbol: str, horizons: Sequence[str] = ("1s", "10s", "1m"), **asked: Any
    ) -> pa.Table:
        """The mean move of the middle after trades, by side and horizon. Keywords: `exchange`,
        `start`, `end`, `max_age`, `strict`, `look_ahead`, `all_trades`, `as_of`, `as_known_at`.
        """
        question = _measured(symbol, horizon=list(horizons), **asked)
        return self._http.table("/v1/markouts", question)[0]

    def _pages(self, path: str, question: Mapping[str, Any]) -> Iterator[pa.Table]:
        """Every page of the answer to a POSTed question."""
        after: str | None = None
        while True:
            page = question if after is None else {**question, "after": after}
            table, after = self._http.table(path, body=page)
            yield table
            if after is None:
                return

    def replay(
        self,
        *symbols: str,
        kinds: Sequence[str] = ("trades",),
        exchanges: Sequence[str] = (),
        start: When | None = None,
        end: When | None = None,
        speed: float | None = None,
        batch: int = 10_000,
        after: str | None = None,
        as_of: When | None = None,
        as_known_at: When | None = None,
    ) -> Iterator[Batch]:
        """Records in one order over all kinds and exchanges, `speed` times as fast as they were
        made; None: as fast as it goes. In batches of at most `batch`.

        `after` goes on behind a batch, by its position, in its range of times and its state.
        """
        question = _present(
            kinds=list(kinds),
            symbols=list(symbols),
            exchanges=list(exchanges),
            start_time=_text(start),
            end_time=_text(end),
            as_of=_text(as_of),
            as_known_at=_text(as_known_at),
            batch_size=batch,
        )
        return replayed(
            lambda body: self._http.table("/v1/replay", body=body),
            question,
            speed=speed,
            after=after,
        )

    def stream(
        self,
        *symbols: str,
        kinds: Sequence[str] = ("trades",),
        exchanges: Sequence[str] = (),
        start: When | None = None,
        end: When | None = None,
        speed: float | None = None,
        batch: int = 1_000,
        after: str | None = None,
    ) -> Generator[Batch, None, None]:
        """What is there from `start` on, as a replay at this `speed` gives it, then what arrives,
        without a seam and for as long as it is read. Without `start`: what arrives alone. With
        `end` it ends there.

        `after` goes on behind a batch, by its position; to `close` it lets go of the server. One
        that is away for some seconds is waited for, and nothing is missed or told twice.
        """
        question = _present(
            kinds=list(kinds),
            symbols=list(symbols),
            exchanges=list(exchanges),
            start_time=_text(start),
            end_time=_text(end),
            speed=None if speed is None else f"{speed:f}",
            batch_size=batch,
        )
        return streamed(self._http, question, after)

    def corrections(
        self,
        symbol: str | None = None,
        *,
        exchange: str | None = None,
        start: When | None = None,
        end: When | None = None,
        as_of: When | None = None,
        as_known_at: When | None = None,
    ) -> pa.Table:
        """All corrections that venues made in the range, and whether each has its trade."""
        asked = _present(
            symbol=symbol,
            exchange=exchange,
            start_time=_text(start),
            end_time=_text(end),
            as_of=_text(as_of),
            as_known_at=_text(as_known_at),
            limit=_MOST_LISTED,
        )
        pages: list[pa.Table] = []
        after: str | None = None
        while not pages or after is not None:
            page, after = self._http.table("/v1/corrections", asked | _present(after=after))
            pages.append(page)
        return pa.concat_tables(pages)

    def correct(self, *corrections: Mapping[str, Any]) -> pa.Table:
        """Bring in corrections, all or none, and return each as K2 holds it.

        Keys are the fields of a correction: symbol, exchange, timestamp, action, trade_id … To send
        them once more changes nothing.
        """
        given = [{name: _sent(value) for name, value in each.items()} for each in corrections]
        return self._http.table("/v1/corrections", body={"corrections": given})[0]

    def last(self, symbol: str, count: int = 100, *, kind: str = "trades") -> pa.Table:
        """The newest `count` records of a symbol, oldest first: history and tail as one."""
        return self._http.table(f"/v1/{kind}", {"symbol": symbol, "last": count})[0]

    def bars(
        self,
        symbol: str,
        interval: str = "1m",
        *,
        kind: str = "time",
        exchange: str | None = None,
        start: When | None = None,
        end: When | None = None,
        all_trades: bool = False,
        fill: bool = False,
        consolidated: bool = False,
        session: str = "all",
        adjusted: str = "none",
        as_of: When | None = None,
        as_known_at: When | None = None,
    ) -> pa.Table:
        """All bars of the range: symbol, exchange, start, open, high, low, close, volume,
        trade_count, vwap, complete; with `fill` their state, with `consolidated` one of all
        exchanges, which are named.

        Of `kind` tick, volume or dollar, `interval` is what closes a bar (`500`), and there is an
        `end`. Raises `Refused` where these are more than the server gives at once.
        """
        asked = _present(
            symbol=symbol,
            kind=None if kind == "time" else kind,
            exchange=exchange,
            start_time=_text(start),
            end_time=_text(end),
            all_trades="true" if all_trades else None,
            fill="true" if fill else None,
            consolidated="true" if consolidated else None,
            session=None if session == "all" else session,
            adjusted=None if adjusted == "none" else adjusted,
            as_of=_text(as_of),
            as_known_at=_text(as_known_at),
            last=_MOST_BARS,
        )
        pages: list[pa.Table] = []
        while True:
            page = self._http.table(f"/v1/bars/{interval}", asked)[0]
            edge = _cut_at(page)
            if edge is None:
                return pa.concat_tables([page, *pages]).sort_by(_BAR_ORDER) if pages else page
            if kind != "time":
                # They go by all trades of their date before them: no end can cut them in two.
                raise Refused(
                    f"these are {_MOST_BARS:,} bars or more",
                    hint="ask for a shorter range, or for longer bars",
                )
            # What lies before the edge comes once more, with all that was left out.
            pages.append(page.filter(pc.greater_equal(page["start"], edge)))
            asked["end_time"] = edge.as_py().isoformat()

    def aggregate(
        self,
        *symbols: str,
        metrics: Sequence[str],
        interval: str = "1m",
        exchanges: Sequence[str] = (),
        start: When | None = None,
        end: When | None = None,
        bin_size: Decimal | str | None = None,
        all_trades: bool = False,
        session: str = "all",
        as_of: When | None = None,
        as_known_at: When | None = None,
    ) -> pa.Table:
        """Measures of each interval in which up to 50 symbols traded: `metrics` of vwap, twap,
        ohlcv, volume_profile and trade_count; `bin_size` is the width of a price level.
        """
        asked = _present(
            symbols=list(symbols),
            metrics=list(metrics),
            interval=interval,
            exchanges=list(exchanges),
            start_time=_text(start),
            end_time=_text(end),
            bin_size=_sent(bin_size),
            all_trades=all_trades or None,
            session=None if session == "all" else session,
            as_of=_text(as_of),
            as_known_at=_text(as_known_at),
        )
        return self._http.table("/v1/aggregations", body=asked)[0]

    def bbo(
        self,
        symbol: str,
        *,
        exchanges: Sequence[str] = (),
        start: When | None = None,
        end: When | None = None,
        last: int = _MOST_LISTED,
        as_of: When | None = None,
        as_known_at: When | None = None,
    ) -> pa.Table:
        """The newest `last` changes of the best bid and ask over all exchanges, oldest first."""
        asked = _present(
            symbol=symbol,
            exchange=list(exchanges),
            start_time=_text(start),
            end_time=_text(end),
            last=last,
            as_of=_text(as_of),
            as_known_at=_text(as_known_at),
        )
        return self._http.table("/v1/bbo", asked)[0]

    def summary(
        self,
        symbol: str,
        day: date | str,
        *,
        exchange: str | None = None,
        as_of: When | None = None,
        as_known_at: When | None = None,
    ) -> pa.Table:
        """One exchange day, a date or text such as 2014-03-11. Raises `NotFound` if there is
        none.
        """
        path = f"/v1/summary/{urllib.parse.quote(symbol)}/{_text(day)}"
        asked = _present(exchange=exchange, as_of=_text(as_of), as_known_at=_text(as_known_at))
        return self._http.table(path, asked)[0]

    def pins(self) -> pa.Table:
        """All pinned datasets that stand, by name."""
        return self._http.table("/v1/pins")[0]

    def pin(self, name: str) -> pa.Table:
        """What is kept of one pin, as a row. Raises `NotFound`."""
        return self._http.table(f"/v1/pins/{urllib.parse.quote(name, safe='')}")[0]

    def create_pin(
        self,
        name: str,
        *symbols: str,
        kind: str = "trades",
        exchanges: Sequence[str] = (),
        start: When | None = None,
        end: When | None = None,
        fields: Sequence[str] = (),
        as_of: When | None = None,
        as_known_at: When | None = None,
        author: str | None = None,
        note: str | None = None,
    ) -> pa.Table:
        """Pin these records as they are committed now, or were: what is kept of it, as a row.

        The same again changes nothing. Raises `Refused` where other rows have that name.
        """
        wanted = _present(
            name=name,
            kind=kind,
            symbols=list(symbols),
            exchanges=list(exchanges),
            start_time=_text(start),
            end_time=_text(end),
            fields=list(fields),
            as_of=_text(as_of),
            as_known_at=_text(as_known_at),
            author=author,
            note=note,
        )
        return self._http.table("/v1/pins", body=wanted)[0]

    def verify_pin(self, name: str) -> pa.Table:
        """Whether the rows of a pin come back, value for value: `ok`, and `problem` where not."""
        path = f"/v1/pins/{urllib.parse.quote(name, safe='')}/verify"
        return self._http.table(path, body={})[0]

    def pinned(self, name: str) -> pa.Table:
        """The rows of a pin, in total order."""
        kind = self.pin(name)["kind"][0].as_py()
        return pa.concat_tables(
            self._pages(f"/v1/{kind}/query", {"pin": name, "limit": _PAGE_ROWS})
        )

    def diff(
        self,
        since: When,
        until: When | None = None,
        *,
        kind: str = "trades",
        symbol: str | None = None,
        exchange: str | None = None,
    ) -> pa.Table:
        """What came after one state and up to another (the newest, if none is named), by symbol and
        exchange; each a time, a tag or a snapshot id.
        """
        asked = _present(
            since=_text(since), until=_text(until), kind=kind, symbol=symbol, exchange=exchange
        )
        return self._http.table("/v1/diff", asked)[0]

    def symbols(self, *, exchange: str | None = None) -> pa.Table:
        """What is traded, and how many trades and quotes of it there are."""
        return self._http.table("/v1/symbols", _present(exchange=exchange))[0]

    def audit(self) -> Mapping[str, Any]:
        """Every record's fate, found afresh: `ok`, and `partitions` with the counts of each."""
        answer = self._http.json("/v1/audit")
        return {"ok": answer["meta"]["ok"], "partitions": answer["data"]}


def _cut_at(bars: pa.Table) -> pa.Scalar | None:
    """From which start on the page has all bars, where some symbol at some exchange has as many
    as a page may have; else None.
    """
    held = bars.group_by(["symbol", "exchange"]).aggregate([("start", "min"), ([], "count_all")])
    full = held.filter(pc.greater_equal(held["count_all"], _MOST_BARS))
    return pc.max(full["start_min"]) if full.num_rows else None


def _measured(symbol: str, **asked: Any) -> dict[str, Any]:
    """The parameters of a question for spreads or markouts."""
    named = {_RANGE.get(name, name): value for name, value in asked.items()}
    values = {
        name: "true" if value is True else None if value is False else _text(value)
        for name, value in named.items()
    }
    return _present(symbol=symbol, **values)


def _present(**asked: Any) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value not in (None, [], ())}


def _text(when: When | None) -> str | None:
    return when.isoformat() if isinstance(when, date) else when


def _sent(value: object) -> object:
    """A value as JSON has it: times as text, decimals by their digits."""
    if isinstance(value, date):
        return value.isoformat()
    return f"{value:f}" if isinstance(value, Decimal) else value
