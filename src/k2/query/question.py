"""A question that can be asked again: which rows, of which state, as JSON that outlives this code.

Page tokens belong to one version of K2 and to one answer; what pins and certificates keep does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from k2.errors import BadInput
from k2.query.page import NO_COMMIT, Page
from k2.query.port import LogRange, Pin
from k2.query.selection import Condition, Past, Selection
from k2.query.zones import from_us, to_us


@dataclass(frozen=True)
class Question:
    """Records of a `kind` in total order: all that are selected, the newest `last`, or the first
    `limit`, behind the row whose order columns are `key`.

    Raises `BadInput` for a condition whose meaning may change.
    """

    kind: str
    selection: Selection
    last: int | None = None
    limit: int | None = None
    key: tuple[int | str, ...] | None = None
    history: bool = False

    def __post_init__(self) -> None:
        if any(each.column == "commit_sequence" for each in self.selection.where):
            raise BadInput(
                "a condition on commit_sequence cannot be asked again: compaction writes it out",
                place="commit_sequence",
                hint="--as-of chooses by commit",
            )

    @property
    def past(self) -> Past:
        """What it asks of corrections; the state itself is pinned."""
        return Past(history=self.history)


@dataclass(frozen=True)
class Moment:
    """The state that is asked: rows of `pin`, and of trades those of `corrections`; with `known_at`
    only what was known by then.
    """

    pin: Pin
    corrections: Pin = NO_COMMIT
    known_at: datetime | None = None

    def page(self, key: tuple[int | str, ...] = ()) -> Page:
        """The state as a page's, which begins behind that row."""
        known_at = None if self.known_at is None else to_us(self.known_at)
        return Page(self.pin, key, self.corrections, known_at)


_QUESTION: Final = ("symbols", "exchanges", "start", "end", "where", "last", "limit", "after")


def question_to_json(asked: Question) -> dict[str, Any]:
    """The question without its kind, JSON-ready; what does not narrow is left out."""
    of = asked.selection
    found = {
        "symbols": list(of.symbols),
        "exchanges": list(of.exchanges),
        "start": None if of.start is None else of.start.isoformat(),
        "end": None if of.end is None else of.end.isoformat(),
        "where": [[each.column, each.operator, each.value] for each in of.where],
        "last": asked.last,
        "limit": asked.limit,
        "after": None if asked.key is None else list(asked.key),
        "history": asked.history,
    }
    return {name: value for name, value in found.items() if value not in (None, [], False)}


def question_from_json(kind: str, found: Mapping[str, Any]) -> Question:
    """What `question_to_json` made. Raises `BadInput` for anything else."""
    try:
        unknown = found.keys() - {*_QUESTION, "history"}
        if unknown:
            raise ValueError(f"unknown: {min(unknown)}")
        after = found.get("after")
        return Question(
            kind,
            Selection(
                tuple(map(_text, found.get("symbols", ()))),
                tuple(map(_text, found.get("exchanges", ()))),
                _edge(found.get("start")),
                _edge(found.get("end")),
                tuple(Condition(*map(_text, each)) for each in found.get("where", ())),
            ),
            last=_count(found.get("last")),
            limit=_count(found.get("limit")),
            key=None if after is None else _key(after),
            history=bool(found.get("history", False)),
        )
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise BadInput(
            f"this is no question that K2 wrote: {error}", place="question", found=str(found)[:200]
        ) from error


def moment_to_json(moment: Moment) -> dict[str, Any]:
    """The state, JSON-ready."""
    known = {} if moment.known_at is None else {"known_at": moment.known_at.isoformat()}
    return {
        **_pin_to_json(moment.pin),
        "corrections": _pin_to_json(moment.corrections),
        **known,
    }


def moment_from_json(found: Mapping[str, Any]) -> Moment:
    """What `moment_to_json` made. Raises `BadInput` for anything else."""
    try:
        known_at = found.get("known_at")
        return Moment(
            _pin_from_json(found),
            _pin_from_json(found.get("corrections", {"commit": 0})),
            None if known_at is None else _instant(known_at),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise BadInput(
            f"this is no state that K2 wrote: {error}", place="state", found=str(found)[:200]
        ) from error


def _pin_to_json(pin: Pin) -> dict[str, Any]:
    ranges = [[r.topic, r.log_id, r.partition, r.first, r.end] for r in pin.ranges]
    return {"commit": pin.sequence, **({"tail": ranges} if ranges else {})}


def _pin_from_json(found: Mapping[str, Any]) -> Pin:
    ranges = tuple(
        LogRange(_text(topic), _text(log_id), int(partition), int(first), int(end))
        for topic, log_id, partition, first, end in found.get("tail", ())
    )
    return Pin(int(found["commit"]), ranges)


def _key(after: Sequence[Any]) -> tuple[int | str, ...]:
    first, *rest = after
    if not all(isinstance(each, int | str) for each in rest):
        raise ValueError("a row's place is made of numbers and texts")
    from_us(int(first))
    return (int(first), *rest)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _count(value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ValueError(f"{value!r} is no number of rows")
    return value


def _edge(text: str | None) -> datetime | date | None:
    if text is None:
        return None
    return date.fromisoformat(text) if len(text) == 10 else _instant(text)


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} says no zone")
    return found
