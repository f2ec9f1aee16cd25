"""A selection as a predicate of SQL: identifiers from the schema alone, every value bound."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

import pyarrow as pa

from k2.errors import BadInput
from k2.model import PRICE_TYPE, Exchange, plain_type
from k2.query.selection import OPERATORS, Condition, Selection
from k2.query.sessions import session_terms
from k2.query.times import parse_date, parse_instant
from k2.query.zones import midnight

_INT_RANGE: Final = {pa.int32(): 2**31, pa.int64(): 2**63}


@dataclass
class Predicate:
    """Conditions joined by AND, and the values that they bind."""

    terms: list[str] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)

    def bind(self, value: object) -> str:
        """A parameter that stands for the value."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"${name}"

    def add(self, term: str) -> None:
        """One more condition."""
        self.terms.append(term)

    def among(self, column: str, values: Iterable[str]) -> None:
        """The column has one of the values."""
        bound = [self.bind(value) for value in values]
        # A single "=" is pushed into the files' pages, a list only into their bounds.
        self.add(
            f"{column} = {bound[0]}" if len(bound) == 1 else f"{column} in ({', '.join(bound)})"
        )

    @property
    def text(self) -> str:
        """The predicate; `true` where nothing narrows."""
        return " and ".join(self.terms) or "true"


@dataclass(frozen=True)
class Bounds:
    """The times that a selection spans over all its exchanges: `[start, end)`, None is open."""

    start: datetime | None
    end: datetime | None


def bounds(selection: Selection, exchanges: Mapping[str, Exchange]) -> Bounds:
    """The widest span of time that any exchange of the selection needs.

    Raises `BadInput` for a start that is not before the end.
    """
    starts = instants(selection.start, selection, exchanges)
    ends = instants(selection.end, selection, exchanges)
    start = min(starts.values()) if starts else None
    end = max(ends.values()) if ends else None
    if start is not None and end is not None and start >= end:
        raise BadInput(
            "the range of times is empty: it begins at or after its end",
            found=f"{selection.start} to {selection.end}",
            expected="an end after the start; the end itself is not in the range",
        )
    return Bounds(start, end)


def edges_of(
    selection: Selection, exchanges: Mapping[str, Exchange]
) -> tuple[tuple[datetime, ...], tuple[datetime, ...]]:
    """All starts and all ends that the exchanges of the selection have; none where it is open."""
    return tuple(instants(selection.start, selection, exchanges).values()), tuple(
        instants(selection.end, selection, exchanges).values()
    )


def predicate(
    selection: Selection, columns: pa.Schema, time: str, exchanges: Mapping[str, Exchange]
) -> Predicate:
    """The selection over a relation with these columns; `time` names its time column.

    Raises `BadInput`, with what there is, for an unknown column, operator or literal.
    """
    made = Predicate()
    if selection.symbols:
        made.among("symbol", dict.fromkeys(selection.symbols))
    if selection.exchanges:
        made.among("exchange", dict.fromkeys(selection.exchanges))
    for edge, operator in ((selection.start, ">="), (selection.end, "<")):
        add_edge(made, time, operator, instants(edge, selection, exchanges))
    for condition in selection.where:
        _add_condition(made, condition, columns)
    if selection.sessions is not None:
        within = session_terms(selection.sessions, exchanges, made.bind)
        if within is not None:
            made.add(within)
    return made


def instants(
    edge: datetime | date | None, selection: Selection, exchanges: Mapping[str, Exchange]
) -> dict[str, datetime]:
    """Each exchange's instant of the edge of a range: of a date, its midnight there. An edge that
    is an instant is given once, under no name; one that is not there, not at all.
    """
    if edge is None:
        return {}
    if isinstance(edge, datetime):
        return {"": edge}
    wanted = selection.exchanges or tuple(exchanges)
    found = {name: midnight(exchanges[name].zone, edge) for name in wanted if name in exchanges}
    # An exchange that nobody declared has no rows: any instant does.
    return found or {"": midnight("UTC", edge)}


def add_edge(made: Predicate, time: str, operator: str, edge: Mapping[str, datetime]) -> None:
    """The time is on its side of the edge, as `instants` gives it."""
    if not edge:
        return
    distinct = sorted(set(edge.values()))
    widest = distinct[0] if operator == ">=" else distinct[-1]
    made.add(f"{time} {operator} {made.bind(widest)}")
    if len(distinct) > 1:
        choices = []
        for instant in distinct:
            names = [made.bind(name) for name, at in edge.items() if at == instant]
            side = f"{time} {operator} {made.bind(instant)}"
            choices.append(f"(exchange in ({', '.join(names)}) and {side})")
        made.add(f"({' or '.join(choices)})")


def _add_condition(made: Predicate, condition: Condition, columns: pa.Schema) -> None:
    if condition.column not in columns.names:
        raise BadInput(
            f"there is no column {condition.column!r}", expected=", ".join(columns.names)
        )
    if condition.operator not in OPERATORS:
        raise BadInput(
            f"{condition.operator!r} is no operator",
            place=condition.column,
            expected=" ".join(OPERATORS),
        )
    value = literal(condition, columns.field(condition.column).type)
    bound = made.bind(value)
    if isinstance(value, Decimal):
        # Bound decimals carry their own scale: without the cast the column would be widened.
        bound = f"{bound}::decimal(18, 8)"
    made.add(f"{quoted(condition.column)} {condition.operator} {bound}")


def literal(condition: Condition, kind: pa.DataType) -> object:
    """The condition's literal as a value of the column's type. Raises `BadInput` if it is none."""
    text, kind = condition.value, plain_type(kind)
    if pa.types.is_string(kind):
        return text
    if pa.types.is_decimal(kind):
        return _decimal(text, condition.column)
    if pa.types.is_timestamp(kind):
        return parse_instant(text)
    if pa.types.is_date(kind):
        return parse_date(text)
    if pa.types.is_boolean(kind):
        return _boolean(text, condition.column)
    if kind in _INT_RANGE:
        return _integer(text, condition.column, _INT_RANGE[kind])
    raise BadInput(f"column {condition.column!r} cannot be compared", found=str(kind))


def _decimal(text: str, column: str) -> Decimal:
    expected = 'digits with "." as the decimal mark, at most 10 before it and 8 behind'
    try:
        if re.fullmatch(r"\s*[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})\s*", text, re.A):
            value = Decimal(text.strip())
            scaled = value.scaleb(PRICE_TYPE.scale)
            if scaled == scaled.to_integral_value() and abs(scaled) < 10**PRICE_TYPE.precision:
                return value.quantize(Decimal(1).scaleb(-PRICE_TYPE.scale))
    except InvalidOperation:
        pass
    raise BadInput(f"{text!r} is no price or quantity", place=column, expected=expected)


def _integer(text: str, column: str, limit: int) -> int:
    if re.fullmatch(r"\s*[+-]?\d{1,20}\s*", text, re.A):
        value = int(text)
        if -limit <= value < limit:
            return value
    raise BadInput(f"{text!r} is no whole number that fits", place=column, expected="digits")


def _boolean(text: str, column: str) -> bool:
    value = {"true": True, "false": False}.get(text.strip().lower())
    if value is None:
        raise BadInput(f"{text!r} is neither true nor false", place=column, expected="true, false")
    return value


def quoted(identifier: str) -> str:
    """The identifier as SQL; only names that a schema has may come here."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", identifier):
        raise BadInput(f"{identifier!r} is no column's name")
    return f'"{identifier}"'
