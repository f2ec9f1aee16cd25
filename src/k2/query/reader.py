"""The facade of this room: every question that a door may ask, answered over history and tail.

A `Reader` is opened on a home folder and closed by whoever opened it; any thread may ask.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput, NotFound
from k2.ingest import GAP_STATES, WriterLevel, with_state
from k2.lake import LEDGERS, RECORD_TABLES
from k2.log import Access
from k2.model import Exchange
from k2.query.answer import Answer, told
from k2.query.asking import PRICE_NOTE, Asking
from k2.query.bars import BarsWanted, make_bars
from k2.query.copies import Copies
from k2.query.corrections import corrected, find_targets
from k2.query.diff import Diff
from k2.query.estimates import Estimates
from k2.query.evidence import CERTIFICATE, Evidence
from k2.query.gaps import Gap, Gaps, told_gaps
from k2.query.interval import parse_interval
from k2.query.inventory import (
    Counts,
    ledger_statement,
    list_snapshots,
    list_stats,
    list_symbols,
)
from k2.query.measures import Measures
from k2.query.page import Page, from_token, to_token
from k2.query.pins import Pins
from k2.query.port import Engine, Source
from k2.query.predicate import bounds
from k2.query.pulse import Pulse
from k2.query.question import Question
from k2.query.records import Wanted, fetch_records, question
from k2.query.remembered import Remembered
from k2.query.replays import Replays
from k2.query.retired import as_gaps, of_newest, still_gaps
from k2.query.rollup import RolledUp, roll_up
from k2.query.selection import NOW, Past, Selection, check_count, check_text
from k2.query.sessions import Sessions, read_sessions, trading_days
from k2.query.state import State
from k2.query.stopping import limited
from k2.query.turnover import sum_turnover
from k2.query.view import View
from k2.query.zones import from_us

_TRADED: Final = ("trades", "quotes")
_ALL: Final = Selection()
_MOST_GAPS: Final = 100_000
"""Gaps, the newest, among which those of a state are looked for."""


class Reader(Measures, Replays, Estimates):
    """Answers queries over one home folder. Every method may be called from any thread.

    `as_of` is a time (ISO 8601 with zone), a tag or a snapshot id, as text; `as_known_at` a time,
    as text: only what was known by then counts, whenever K2 got it. Trades are those that stand,
    after all corrections. `timeout` is in seconds. Raises `BadInput` for what cannot be asked,
    `NotFound` for what is not there, `Refused` for what is not allowed or took too long,
    `Unavailable` when log or lake are away or the writer is far behind.
    """

    def __init__(
        self,
        state: State,
        engine: Engine,
        pulse: Pulse,
        sessions: Path | None = None,
        copies: Copies | None = None,
    ) -> None:
        self._state = state
        self._engine = engine
        self._pulse = pulse
        self._copies = copies
        self._counts = Counts(engine)
        self._gaps = Gaps(state.lake)
        self._sessions = sessions
        self._asking = Asking(engine, self._view, self._gaps_of, self._read_sessions, state.clock)
        self.pins = Pins(state, engine, self._seen)
        self.evidence = Evidence(state, engine, self._seen)
        self.diff = Diff(state, engine)

    def _seen(self, kind: str, past: Past, selection: Selection, page: Page) -> View:
        """The state that was pinned, whatever the log holds by now."""
        return self._view(kind, past, selection, page=page)

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
        as_known_at: str | None = None,
        history: bool = False,
        certificate: bool = False,
        timeout: float | None = None,
    ) -> Answer:
        """Records of a kind in total order: all, the newest `last`, or a page of `limit`.

        `fields` are the columns wanted: the kind's own by default. `after` is the `next` of the
        page before: it sees the state that the first page saw. With `history`, trades come as they
        were first reported, and columns say what became of each. Corrections have a column
        `has_target`: whether the trade that they are about is there. With `certificate`, meta has
        one of these rows (see `k2.query.evidence`).
        """
        with limited(timeout):
            began = time.perf_counter()
            past = Past(as_of, as_known_at, history)
            wanted = Wanted(last, limit, fields)
            asked = question(kind, selection, wanted, past)
            page = from_token(after, asked) if after is not None else None
            view = self._view(kind, past, selection, page=page)
            views = [view]
            if look := kind == "corrections" and not fields:
                names = view.columns.names
                dated = tuple(names[: names.index("exchange_date") + 1])
                wanted = replace(wanted, fields=dated)
            table, following = fetch_records(self._engine, view, selection, wanted, after=page)
            views[0] = of_newest(view, table, last)
            if look:
                views.append(self._state.view("trades", as_of=as_of))
                found = find_targets(self._engine, views[-1], table)
                table = table.drop_columns("exchange_date").append_column("has_target", found)
            gaps = self._gaps_of(view, selection, table) if past == NOW else []
            proof: dict[str, object] = {}
            if certificate:
                key = page.key if page is not None else None
                again = Question(kind, selection, last, limit, key, history)
                rows = table.drop_columns("has_target") if look else table
                missing = gaps or self._gaps_of(view, selection, table)
                proof = {CERTIFICATE: self.evidence.certify(again, view, rows, missing)}
            return Answer(
                table,
                told(views, table, began, past=past, notes=told_gaps(kind, gaps)) | proof,
                to_token(following, asked) if following else None,
            )

    def _view(
        self,
        kind: str,
        past: Past,
        selection: Selection = _ALL,
        *,
        page: Page | None = None,
        day: date | None = None,
    ) -> View:
        """The state that is asked for; of trades, with what corrections made of the selection's."""
        if past.history and kind != "trades":
            raise BadInput("only trades have a history of corrections", found=kind)
        view = self._state.view(kind, as_of=past.as_of, page=page, selection=selection, day=day)
        view = view.of_symbols(selection.symbols)
        known_at = None
        if page is not None and page.known_at is not None:
            known_at = from_us(page.known_at)
        elif past.as_known_at is not None:
            known_at = self._state.known_at(kind, past.as_known_at)
        view = replace(view, known_at=known_at, history=past.history)
        if kind != "trades":
            return view
        pin = page.corrections if page else None
        beside = self._state.corrections(as_of=past.as_of, pin=pin)
        if beside is not None:
            beside = replace(beside, known_at=known_at)
        return corrected(self._engine, view, beside, selection, day)

    def _gaps_of(self, view: View, selection: Selection, table: pa.Table) -> list[Gap]:
        """What is missing where the answer `table` looked: of what K2 holds now."""
        if view.table not in _TRADED:
            return []
        asked = bounds(selection, view.exchanges)
        start = asked.start
        when = next((name for name in (view.time, "start") if name in table.column_names), None)
        if start is None and when is not None:
            # Of the newest records, what lies before them was not asked for.
            start = pc.min(table[when]).as_py()
        found = self._gaps.touching(
            view.table, selection.symbols, selection.exchanges, start, asked.end
        )
        retired = as_gaps(view, selection.symbols)
        return [*still_gaps(found, retired), *retired]

    def summary(
        self,
        symbol: str,
        day: date,
        *,
        exchange: str | None = None,
        as_of: str | None = None,
        as_known_at: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """One exchange day, a row per exchange; `NotFound` when there is none."""
        with limited(timeout):
            began = time.perf_counter()
            selection = Selection((symbol,), (exchange,) if exchange is not None else ())
            wanted = BarsWanted(parse_interval("1d"), day=day)
            past = Past(as_of, as_known_at)
            view = self._view("trades", past, selection, day=day)
            made = make_bars(self._engine, view, selection, wanted)
            if not made.num_rows:
                raise NotFound(
                    f"no trade of {symbol} formed a price on {day}",
                    hint="`symbols` lists what there is, with its first and last time",
                )
            dates = pa.array([day] * made.num_rows, pa.date32())
            table = made.set_column(2, "date", dates)
            that_day = replace(selection, start=day, end=day + timedelta(days=1))
            gaps = self._gaps_of(view, that_day, table)
            notes = [PRICE_NOTE, *told_gaps("trades", gaps)]
            return Answer(table, told([view], table, began, past=past, notes=notes))

    def symbols(
        self,
        *,
        exchange: str | None = None,
        as_of: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """What is traded: symbol, exchange, asset_class, trades, quotes, first and last time."""
        with limited(timeout):
            began = time.perf_counter()
            if exchange is not None:
                check_text("an exchange", exchange)
            views = self._state.views(as_of=as_of)
            read = [view for view in views.values() if view.table in _TRADED]
            counted = {view.table: self._counts.of(view) for view in read}
            exchanges = {name: of for view in read for name, of in view.exchanges.items()}
            table = list_symbols(counted, exchanges, exchange)
            return Answer(table, told(read, table, began, past=Past(as_of)))

    def turnover(self, selection: Selection, *, timeout: float | None = None) -> Answer:
        """What was traded: exchange, symbol, currency, trades, volume and value of each symbol."""
        with limited(timeout):
            began = time.perf_counter()
            view = self._state.view("trades", selection=selection)
            table = sum_turnover(self._engine, view, selection)
            return Answer(table, told([view], table, began))

    def stats(self, *, as_of: str | None = None, timeout: float | None = None) -> Answer:
        """Per table: rows, files, bytes, commit, snapshot, first and last time, tail rows, lag.

        `rows` are those committed, `tail_rows` those past them; `lag_messages` is null as of a
        past moment.
        """
        with limited(timeout):
            began = time.perf_counter()
            views = self._state.views(as_of=as_of)
            lags = {kind: self._state.lag_messages([of]) for kind, of in views.items() if not as_of}
            counted = {
                kind: self._counts.of(view)
                for kind, view in views.items()
                if view.pin is not None and kind in _TRADED
            }
            table = list_stats(views, counted, lags)
            return Answer(table, told(views.values(), table, began, past=Past(as_of)))

    def snapshots(self, table: str = "trades", *, limit: int = 100) -> Answer:
        """Commits of a table, newest first: commit, snapshot_id, committed_at, operation, rows,
        duplicates, rejected, tags. An id or a tag can be given as `as_of`.
        """
        began = time.perf_counter()
        check_count("limit", limit)
        found = list_snapshots(self._state.commits(table), limit)
        return Answer(found, told([], found, began))

    def ledger(
        self,
        name: str,
        *,
        wanted: Mapping[str, str | None] | None = None,
        state: str | None = None,
        limit: int = 1000,
        timeout: float | None = None,
    ) -> Answer:
        """The newest entries of a ledger (rejected, duplicates, shed, gaps, commits), newest
        first. Those of gaps tell besides how much is missing by now: see `k2.ingest.with_state`.

        `wanted`: values of the ledger's columns (symbol, exchange, kind, cause …) that an entry
        has; None counts for nothing. `state`: that of gaps. Raises `BadInput` for a column that
        the ledger does not have, or a state that there is not.
        """
        with limited(timeout):
            began = time.perf_counter()
            check_count("limit", limit)
            values = {column: value for column, value in (wanted or {}).items() if value}
            if state is not None:
                if name != "gaps":
                    raise BadInput(f"the entries of {name!r} have no state", place="state")
                if state not in GAP_STATES:
                    raise BadInput(
                        "gaps have no such state",
                        place="state",
                        found=state,
                        expected=", ".join(GAP_STATES),
                    )
            source = self._state.ledger(name)
            most = limit if state is None else _MOST_GAPS
            table = self._engine.run(ledger_statement(name, most, values), {"rows": source})
            if name == "gaps":
                table = with_state(self._state.lake, table)
            if state is not None:
                table = table.filter(pc.equal(table["state"], state)).slice(0, limit)
            return Answer(table, told([], table, began))

    def exchange(self, name: str) -> Exchange:
        """The declaration of an exchange; `NotFound` for one that nobody has declared."""
        return self._state.exchange(name)

    def trading_days(self, exchanges: Sequence[str], first: date, end: date) -> Answer:
        """The days from `first` on and before `end` on which these exchanges trade, by their
        declared sessions: exchange, date, open, close. Raises `NotFound` for an unknown one.
        """
        began = time.perf_counter()
        declared = {name: self._state.exchange(name) for name in exchanges}
        table = trading_days(self._read_sessions(), declared, first, end)
        return Answer(table, told([], table, began))

    def _read_sessions(self) -> Sessions:
        if self._sessions is None:
            raise BadInput("no sessions are declared", hint="K2_SESSIONS names their file")
        return read_sessions(self._sessions)

    def levels(self) -> list[WriterLevel]:
        """How overloaded each writer that runs is: see `k2.ingest.levels`."""
        return self._state.levels()

    def sql(
        self,
        text: str,
        *,
        limit: int | None = None,
        as_of: str | None = None,
        as_known_at: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The answer of one read-only SELECT over the tables of records, tail included,
        and the ledgers. It reaches no files, network or settings. Of `trades` it sees what stands.

        The ledgers tell of all time: with `as_of` or `as_known_at` they are refused.
        """
        with limited(timeout):
            began = time.perf_counter()
            if limit is not None:
                check_count("limit", limit)
            names = sorted(self._engine.reads(text, (*RECORD_TABLES, *LEDGERS)))
            past = Past(as_of, as_known_at)
            views = {name: self._view(name, past) for name in names if name in RECORD_TABLES}
            if past != NOW and (not views or len(views) < len(names)):
                raise BadInput(
                    "only tables of records can be read as of a moment, not ledgers",
                    found=", ".join(name for name in names if name not in views) or "no table",
                    expected=", ".join(RECORD_TABLES),
                )
            sources: dict[str, Source | pa.Table] = {
                name: views[name].source(views[name].select())
                if name in views
                else self._state.ledger(name)
                for name in names
            }
            table, more = self._engine.ask(text, sources, limit=limit)
            notes = [f"only the first {limit:,} rows; there are more"] if more else []
            return Answer(table, told(views.values(), table, began, past=past, notes=notes))

    def roll_up(self, may_go_on: Callable[[], bool] = lambda: True) -> RolledUp:
        """Make the partial bars that data files of trades lack: see `k2.query.rollup.roll_up`."""
        return roll_up(self._engine, self._state.lake.table("trades"), may_go_on)

    def status(self) -> dict[str, object]:
        """Records per second, lag, freshness, snapshot: what a status strip shows, JSON-ready."""
        return self._pulse.status()

    def close(self) -> None:
        """Let go of everything that is open. Nothing else may be called afterwards."""
        self._pulse.stop()
        if self._copies is not None:
            self._copies.stop()
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


def open_reader(
    home: Path,
    *,
    follow: bool = False,
    log: str | None = None,
    registry: str | None = None,
    log_access: Access | None = None,
    registry_access: Access | None = None,
    lake: Path | None = None,
    skew: timedelta = timedelta(minutes=5),
    memory: int | None = None,
    hot_rows: int = 0,
    answers: int = 0,
    decoded_bytes: int = 0,
    sessions: Path | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Reader:
    """A reader of the lake and log below `home`; `follow` keeps the tail up to date in a thread,
    in memory `hot_rows` of the newest trades and quotes of symbols that are asked for and `answers`
    bytes of what was asked, and in a folder of the home `decoded_bytes` of decoded copies of files
    that are read again and again.

    `log`, `registry` (URLs, signed in to by their accesses) and `lake` (a folder) are elsewhere if
    given; `skew` is the writer's own. Queries use `memory` bytes together, beyond it they go to
    disk. `sessions` is the file that declares when exchanges trade.
    """
    # Imported here: it takes longer to load than all the rest.
    from k2.query.duckdb import DuckDB

    state = State(
        home,
        log=log,
        registry=registry,
        log_access=log_access,
        registry_access=registry_access,
        lake=lake,
        skew=skew,
        clock=clock,
    )
    engine: Engine = DuckDB(
        folders=[state.lake.folder / "tables"], memory=memory, spill=home / "spill"
    )
    pulse = Pulse(state, clock)
    copies = Copies(home, decoded_bytes) if follow and decoded_bytes else None
    if follow:
        if hot_rows:
            state.keep_hot(hot_rows)
        if answers:
            engine = Remembered(engine, answers)
        pulse.start()
    if copies is not None:
        state.keep_decoded(copies)
        copies.start()
    return Reader(state, engine, pulse, sessions or home / "sessions.toml", copies)
