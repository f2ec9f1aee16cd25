"""As-of joins: each record of one kind with the one of another that stood when it printed.

Comes in: views of both kinds and a selection. Goes out: the left's records in total order, the
right's columns beside them. What was not known yet is not taken, unless it is asked for.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import pyarrow as pa

from k2.errors import BadInput
from k2.lake import definition
from k2.query.answer import counted
from k2.query.asof import KNOWN_BY_THEN, Rule
from k2.query.beside import KEY_COLUMNS, PAIR, askers, find_beside
from k2.query.page import Page
from k2.query.port import Engine
from k2.query.records import Wanted, fetch_records
from k2.query.selection import Selection, check_length
from k2.query.times import to_span
from k2.query.view import View

JOINED_KINDS: Final = ("trades", "quotes")
"""The kinds that can be joined: those that stand for a symbol at an exchange at a moment."""


@dataclass(frozen=True)
class JoinWanted:
    """Each of `left` with the one of `right` that stood, of the same symbol at the same exchange.

    `rule` says which may stand; none does that is older than `max_age`. Of the left all records,
    the newest `last`, or a page of `limit`; `fields` are columns of `joined_columns` (none: all
    that are the kinds' own).
    """

    left: str = "trades"
    right: str = "quotes"
    rule: Rule = KNOWN_BY_THEN
    max_age: timedelta | None = None
    last: int | None = None
    limit: int | None = None
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for place, kind in (("left", self.left), ("right", self.right)):
            if kind not in JOINED_KINDS:
                raise BadInput(
                    f"{kind!r} cannot be joined",
                    place=place,
                    expected=" or ".join(JOINED_KINDS),
                )
        if self.max_age is not None:
            check_length("max_age", self.max_age)


@dataclass(frozen=True)
class Joined:
    """The rows of a join and where its next page begins (None: there is none).

    `missing` rows have nothing beside them; for `passed` rows a later record was not taken, since
    it was not known yet.
    """

    table: pa.Table
    following: Page | None
    missing: int
    passed: int


@dataclass(frozen=True)
class Column:
    """A column of a join: of which side, and what it is called there; `own` are those of the kind,
    the rest is lineage.
    """

    is_right: bool
    name: str
    field: pa.Field
    own: bool


def joined_columns(left: str, right: str) -> dict[str, Column]:
    """The columns of a join by their names.

    The left's keep theirs. The right's have `quote_` or `trade_` before a name that the left has as
    well; its symbol and exchange are the left's, and left out.
    """
    found = {field.name: Column(False, field.name, field, own) for field, own in _fields(left)}
    prefix = f"{right.removesuffix('s')}_"
    for field, own in _fields(right):
        if field.name not in PAIR:
            name = f"{prefix}{field.name}" if field.name in found else field.name
            # Where nothing stood, each of them is null.
            found[name] = Column(True, field.name, field.with_nullable(True), own)
    return found


def _fields(kind: str) -> list[tuple[pa.Field, bool]]:
    schema = definition(kind).arrow
    own = schema.names.index("exchange_date")
    return [(field, at < own) for at, field in enumerate(schema)]


def fetch_join(
    engine: Engine,
    left: View,
    right: View,
    selection: Selection,
    wanted: JoinWanted,
    *,
    after: Page | None = None,
) -> Joined:
    """The join of two views; the selection is of the left.

    Raises `BadInput` for unknown fields and conditions, a `last` or `limit` below 1, or both.
    """
    chosen = _chosen(wanted)
    mine = tuple(of.name for of in chosen.values() if not of.is_right)
    theirs = tuple(of.name for of in chosen.values() if of.is_right)
    names = tuple(dict.fromkeys((*mine, *PAIR, *KEY_COLUMNS)))
    records, following = fetch_records(
        engine, left, selection, Wanted(wanted.last, wanted.limit, names), after=after
    )
    beside = find_beside(
        engine, right, askers(records), theirs or ("timestamp",), wanted.rule, wanted.max_age
    )
    columns = [(beside.rows if of.is_right else records).column(of.name) for of in chosen.values()]
    if following is not None:
        following = replace(following, beside=right.pinned)
        if right.corrections is not None:
            following = replace(following, corrections=right.corrections.pinned)
    return Joined(
        pa.table(columns, names=list(chosen)),
        following,
        int(beside.missing.sum()),
        int(beside.passed.sum()),
    )


def _chosen(wanted: JoinWanted) -> dict[str, Column]:
    columns = joined_columns(wanted.left, wanted.right)
    unknown = [name for name in wanted.fields if name not in columns]
    if unknown:
        raise BadInput(f"there is no column {unknown[0]!r}", expected=", ".join(columns))
    if wanted.fields:
        return {name: columns[name] for name in wanted.fields}
    return {name: column for name, column in columns.items() if column.own}


def before(selection: Selection) -> Selection:
    """What may stand beside the records of a selection: of its symbols, however far back."""
    return Selection(selection.symbols, selection.exchanges, None, selection.end)


def notes_of(wanted: JoinWanted, joined: Joined) -> list[str]:
    """What a reader of the answer should know."""
    notes = []
    if wanted.rule.look_ahead:
        notes.append(
            f"looks ahead: {wanted.right} are taken whenever they were known, "
            f"even after the {wanted.left} beside them"
        )
    elif joined.passed:
        notes.append(
            f"for {counted(joined.passed, wanted.left)} the newest of {wanted.right} was not known "
            "yet: one before it is taken, or none; --look-ahead (look_ahead) takes it"
        )
    if joined.missing:
        age = "" if wanted.max_age is None else f" at most {to_span(wanted.max_age)} old"
        notes.append(
            f"none of {wanted.right}{age} stood beside {counted(joined.missing, wanted.left)}"
        )
    return notes
