"""What is asked for: which records, between which times, under which conditions.

Comes in: what a user typed or sent. Goes out: frozen values that the engine binds as parameters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from k2.errors import BadInput
from k2.query.sessions import Sessions

OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=")
"""The operators of a condition."""

COUNT_LIMIT: Final = 2_000_000_000
"""The most rows that may be asked for by number."""

LONGEST: Final = timedelta(days=36_500)
"""The longest time that may be asked for by length."""


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a literal; `value` is text, parsed by the column's type."""

    column: str
    operator: str
    value: str

    def __post_init__(self) -> None:
        for text in (self.column, self.operator, self.value):
            check_text("a condition", text)

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """The condition that `text` spells, such as `price>=36.1` or `side = BUY`.

        Quote marks around the literal are taken off. Raises `BadInput` for anything else.
        """
        match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(<=|>=|!=|<>|==|=|<|>)\s*(.*?)\s*", text, re.S)
        if match is None or not match[3]:
            raise BadInput(
                f"{text!r} is no condition",
                expected=f"column, operator ({' '.join(OPERATORS)}) and literal",
                hint="for example: price>=36.1",
            )
        column, operator, value = match.groups()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        return cls(column, {"<>": "!=", "==": "="}.get(operator, operator), value)


@dataclass(frozen=True)
class Selection:
    """Which records are wanted. Everything left empty does not narrow.

    `start` is inclusive, `end` exclusive: instants (with a zone), or dates, which mean midnight
    in each exchange's own zone. With `sessions`, records outside those of their exchange are left
    out.
    """

    symbols: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    start: datetime | date | None = None
    end: datetime | date | None = None
    where: tuple[Condition, ...] = ()
    sessions: Sessions | None = None

    def __post_init__(self) -> None:
        for symbol in self.symbols:
            check_text("a symbol", symbol)
        for exchange in self.exchanges:
            check_text("an exchange", exchange)
        for edge in (self.start, self.end):
            if isinstance(edge, datetime) and edge.tzinfo is None:
                raise BadInput("a time must say its zone", found=edge.isoformat())


@dataclass(frozen=True)
class Past:
    """Which past is asked for, each as its user typed it.

    `as_of`: what K2 held then (a time, a tag or a snapshot id). `as_known_at`: what was known then,
    whenever K2 got it (a time). `history`: trades as they were first reported, with what became of
    them; without it, what stands.
    """

    as_of: str | None = None
    as_known_at: str | None = None
    history: bool = False


NOW: Final = Past()
"""The newest state, and what stands."""


def check_text(what: str, text: str) -> None:
    """Raises `BadInput` for text that no encoding can hold (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{what} is no Unicode text", found=ascii(text)) from error


def check_count(what: str, count: int) -> None:
    """Raises `BadInput` for a number of rows below 1, or past all reason."""
    if not 1 <= count <= COUNT_LIMIT:
        raise BadInput(f"{what} must be 1 to {COUNT_LIMIT:,}", found=str(count))


def check_length(what: str, length: timedelta) -> None:
    """Raises `BadInput` for a length of time below zero, or past all reason."""
    if not timedelta(0) <= length <= LONGEST:
        raise BadInput(f"{what} must be 0s to {LONGEST.days}d", found=str(length))


def parse_conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Each text as a condition. Raises `BadInput` for the first that is none."""
    return tuple(Condition.parse(text) for text in texts)
