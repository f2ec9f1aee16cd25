"""Positions: where a replay goes on and which states it reads, as opaque text.

A position belongs to the records that were asked for (kinds, symbols, exchanges, conditions). It
keeps the range of times and the states itself, so that `-15m` means the same when it goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from k2.errors import BadInput
from k2.query.page import Page, pack, pin_from_json, pin_to_json, unpack
from k2.query.port import LogRange, Pin

Key = tuple[int | str, ...]
Edge = datetime | date | None

NOTHING: Final = Pin(0)
"""The state in which there was no record yet."""


@dataclass(frozen=True)
class Position:
    """Just after the last record that was given.

    `upto` is the state of each kind that is read now, in total order, `key` the order columns of
    the last record given of it (None: none yet). Without `upto` what comes is live. `told` is the
    state of each kind that was given before. `start` and `end` bound the times, half-open. `origin`
    is the time (microseconds UTC) of the first record of all.
    """

    upto: Mapping[str, Page] | None
    key: Key | None = None
    told: Mapping[str, Pin] = field(default_factory=dict)
    start: Edge = None
    end: Edge = None
    origin: int | None = None

    def to_text(self, question: str) -> str:
        """As text, which belongs to this question (any text that tells questions apart)."""
        upto = None if self.upto is None else {k: _page(p) for k, p in self.upto.items()}
        told = {kind: pin_to_json(pin) for kind, pin in self.told.items()}
        edges = [None if edge is None else edge.isoformat() for edge in (self.start, self.end)]
        key = None if self.key is None else list(self.key)
        return pack([upto, key, told, edges, self.origin], question)

    @classmethod
    def from_text(cls, text: str, question: str) -> "Position":
        """What `to_text` wrote. Raises `BadInput` for anything else, or of another question."""
        try:
            upto, key, told, (start, end), origin = unpack(text, question)
            return cls(
                None if upto is None else {kind: _to_page(found) for kind, found in upto.items()},
                None if key is None else tuple(key),
                {kind: pin_from_json(pin) for kind, pin in told.items()},
                _edge(start),
                _edge(end),
                origin,
            )
        except (BadInput, ValueError, TypeError, AttributeError) as error:
            raise BadInput(
                "this position belongs to another replay, or was changed",
                expected="a position that a replay of the same kinds, symbols, exchanges and "
                "conditions gave",
            ) from error


def moved(told: Pin, upto: Pin, shed: Iterable[LogRange]) -> Pin:
    """The state `upto`, and what was given in the state `told` and has left since then.

    A writer under overload leaves records in the log that a reader has seen in the tail; once they
    are brought in, they must not be given again. `shed` says where such may be.
    """
    kept = [one for left in shed for mine in told.ranges if (one := _shared(mine, left))]
    return Pin(upto.sequence, tuple(_united([*upto.ranges, *kept])))


def _shared(mine: LogRange, left: LogRange) -> LogRange | None:
    first, end = max(mine.first, left.first), min(mine.end, left.end)
    if _place(mine) != _place(left) or first >= end:
        return None
    return LogRange(*_place(mine), first, end)


def _united(ranges: Iterable[LogRange]) -> list[LogRange]:
    """The same offsets in ranges that neither overlap nor touch."""
    found: list[LogRange] = []
    for one in sorted(ranges, key=lambda r: (*_place(r), r.first)):
        if found and _place(found[-1]) == _place(one) and one.first <= found[-1].end:
            found[-1] = LogRange(*_place(one), found[-1].first, max(found[-1].end, one.end))
        else:
            found.append(one)
    return found


def _place(one: LogRange) -> tuple[str, str, int]:
    return one.topic, one.log_id, one.partition


def _page(page: Page) -> list[Any]:
    return [pin_to_json(page.pin), pin_to_json(page.corrections), page.known_at]


def _to_page(found: list[Any]) -> Page:
    pin, corrections, known_at = found
    return Page(pin_from_json(pin), (), pin_from_json(corrections), known_at)


def _edge(text: str | None) -> Edge:
    if text is None:
        return None
    return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
