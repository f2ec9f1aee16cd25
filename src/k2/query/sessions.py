"""When exchanges trade: their regular sessions, as a file of the home folder declares them.

Comes in: TOML, a table an exchange. Goes out: which days are traded, and a predicate on trades.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput
from k2.model import TIMESTAMP_TYPE, Exchange, micros

Bind = Callable[[object], str]
"""Makes a parameter of a value: `Predicate.bind`."""

_KEYS: Final = ("open", "close", "days", "closed", "early")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EXAMPLE: Final = '[ASX] open = "10:00" close = "16:00" closed = ["2026-12-25"]'
SCHEMA: Final = pa.schema(
    [
        ("exchange", pa.string()),
        ("date", pa.date32()),
        ("open", TIMESTAMP_TYPE),
        ("close", TIMESTAMP_TYPE),
    ]
)
"""Columns of trading days: the instants (UTC) between which `[open, close)` is traded."""


@dataclass(frozen=True)
class Session:
    """Local times `[open, close)` on `days` of the week (1 is Monday), but for the dates `closed`;
    `early` says when it closes on other dates. One that opens later than it closes does so on the
    evening before its date.
    """

    open: time
    close: time
    days: tuple[int, ...] = (1, 2, 3, 4, 5)
    closed: tuple[date, ...] = ()
    early: tuple[tuple[date, time], ...] = ()

    def is_traded(self, day: date) -> bool:
        """Whether there is a session on this exchange date."""
        return day.isoweekday() in self.days and day not in self.closed

    def closes(self, day: date) -> time:
        """When it closes on this date."""
        return dict(self.early).get(day, self.close)


@dataclass(frozen=True)
class Sessions:
    """Those of each exchange that has any; `version` is the same for the same content alone."""

    of: Mapping[str, Session]
    version: str


def read_sessions(path: Path) -> Sessions:
    """The sessions of a file. Raises `BadInput` where there is none, or one that cannot be read."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise BadInput(
            "no sessions are declared", place=str(path), expected=f"a file such as {_EXAMPLE}"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(
            "the file of sessions cannot be read", place=str(path), found=str(error)
        ) from error
    found = {name: _to_session(table, f"{path}: [{name}]") for name, table in document.items()}
    return Sessions(found, sha256(repr(sorted(found.items())).encode()).hexdigest()[:12])


def session_terms(sessions: Sessions, exchanges: Mapping[str, Exchange], bind: Bind) -> str | None:
    """SQL: the trade is of a session of its exchange, or of an exchange that has none declared.
    None where no exchange has one.
    """
    terms = []
    for name, exchange in exchanges.items():
        session = sessions.of.get(name)
        mine = f"exchange = {bind(name)}"
        terms.append(mine if session is None else f"{mine} and {_term(session, exchange, bind)}")
    if not any(name in sessions.of for name in exchanges):
        return None
    return f"(({') or ('.join(terms)}))"


def _term(session: Session, exchange: Exchange, bind: Bind) -> str:
    local = f"timezone({bind(exchange.zone)}, timestamp)::time"
    close = bind(session.close)
    if session.early:
        cases = (f"when {bind(day)} then {bind(at)}" for day, at in session.early)
        close = f"case exchange_date {' '.join(cases)} else {close} end"
    overnight = "or" if session.open >= session.close else "and"
    days = ", ".join(map(str, session.days))
    terms = [
        f"isodow(exchange_date) in ({days})",
        f"({local} >= {bind(session.open)} {overnight} {local} < {close})",
    ]
    if session.closed:
        terms.append(f"exchange_date not in ({', '.join(map(bind, session.closed))})")
    return " and ".join(terms)


def trading_days(
    sessions: Sessions, exchanges: Mapping[str, Exchange], first: date, end: date
) -> pa.Table:
    """The trading days (see `SCHEMA`) of these exchanges from `first` on and before `end`."""
    rows = [row for name in exchanges for row in _days(sessions, exchanges[name], first, end)]
    return pa.table(
        {
            field.name: pa.array([row[at] for row in rows], field.type)
            for at, field in enumerate(SCHEMA)
        }
    )


def _days(
    sessions: Sessions, exchange: Exchange, first: date, end: date
) -> Iterator[tuple[str, date, datetime, datetime]]:
    session = sessions.of.get(exchange.name)
    if session is None:
        raise BadInput(
            f"no session of {exchange.name} is declared", expected=f"a table such as {_EXAMPLE}"
        )
    zone = ZoneInfo(exchange.zone)
    for day in (first + timedelta(n) for n in range((end - first).days)):
        if session.is_traded(day):
            eve = timedelta(1) if session.open >= session.close else timedelta(0)
            begin = datetime.combine(day - eve, session.open, zone)
            finish = datetime.combine(day, session.closes(day), zone)
            yield exchange.name, day, begin.astimezone(UTC), finish.astimezone(UTC)


def _to_session(table: Any, place: str) -> Session:
    if not isinstance(table, dict):
        raise BadInput("this is no table", place=place, expected=_EXAMPLE)
    if unknown := sorted(table.keys() - set(_KEYS)):
        raise BadInput(f"there is no {unknown[0]!r} here", place=place, expected=", ".join(_KEYS))
    if missing := [key for key in ("open", "close") if key not in table]:
        raise BadInput(f"there is no {missing[0]!r}", place=place, expected=_EXAMPLE)
    early = table.get("early", {})
    if not isinstance(early, dict):
        raise BadInput(
            "this is no table", place=f"{place} early", expected='"2026-12-24" = "14:10"'
        )
    return Session(
        _time(table["open"], f"{place} open"),
        _time(table["close"], f"{place} close"),
        _weekdays(table.get("days", list(_DAYS[:5])), f"{place} days"),
        tuple(sorted(_date(day, f"{place} closed") for day in _list(table, "closed", place))),
        tuple(
            sorted(
                (_date(d, f"{place} early"), _time(t, f"{place} early")) for d, t in early.items()
            )
        ),
    )


def _list(table: Mapping[str, Any], key: str, place: str) -> list[Any]:
    found = table.get(key, [])
    if not isinstance(found, list):
        raise BadInput("this is no list", place=f"{place} {key}", expected='["2026-12-25"]')
    return found


def _time(value: Any, place: str) -> time:
    try:
        found = value if isinstance(value, time) else time.fromisoformat(value)
        if found.tzinfo is None:
            return found
    except (TypeError, ValueError):
        pass
    raise BadInput("this is no time of day", place=place, found=str(value), expected='"10:00"')


def _date(value: Any, place: str) -> date:
    try:
        return value if type(value) is date else date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise BadInput(
            "this is no date", place=place, found=str(value), expected='"2026-12-25"'
        ) from error


def _weekdays(value: Any, place: str) -> tuple[int, ...]:
    if isinstance(value, list) and value and all(day in _DAYS for day in value):
        return tuple(sorted({_DAYS.index(day) + 1 for day in value}))
    raise BadInput(
        "these are no days of the week", place=place, found=str(value), expected=", ".join(_DAYS)
    )


def within(bars: pa.Table, width_us: int, days: pa.Table) -> pa.Array:
    """For each interval of bars (exchange, start) so wide, whether it reaches into a trading day
    (see `trading_days`) of its exchange; yes, where these are not given.
    """
    start = micros(bars["start"])
    found = np.ones(bars.num_rows, np.bool_)
    for name in pc.unique(days["exchange"]).to_pylist():
        mine = pc.equal(bars["exchange"], name).to_numpy(zero_copy_only=False)
        of = days.filter(pc.equal(days["exchange"], name))
        # The first session that closes after the interval begins must open before it ends.
        at = np.searchsorted(micros(of["close"]), start[mine], side="right")
        opens = np.append(micros(of["open"]), np.iinfo(np.int64).max)
        found[mine] = opens[at] < start[mine] + width_us
    return pa.array(found)
