"""A question asked again, of the state that it was asked of, and what comes back compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import Refused
from k2.query.digest import Digest
from k2.query.page import Page
from k2.query.parts import read_parts
from k2.query.port import Engine
from k2.query.question import Moment, Question
from k2.query.records import Wanted, fetch_records
from k2.query.selection import Past, Selection
from k2.query.view import View

ViewOf = Callable[[str, Past, Selection, Page], View]
"""The view of a kind at a page's state, corrected for what is selected."""


@dataclass(frozen=True)
class Content:
    """What rows are, in short: how many, their hash, and how many of each trading date."""

    rows: int
    hash: str
    days: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether the rows that come back are those that were `wanted`; if not, `problem` says how they
    differ.
    """

    wanted: Content
    found: Content

    @property
    def ok(self) -> bool:
        """Whether they are the same, value for value."""
        return (self.wanted.rows, self.wanted.hash) == (self.found.rows, self.found.hash)

    @property
    def problem(self) -> str | None:
        """How they differ, in a sentence; None where they do not."""
        if self.ok:
            return None
        wanted, found = self.wanted.rows, self.found.rows
        if wanted == found:
            return f"{found:,} rows come back, as they should, but not with the same values"
        less = f"{wanted - found:,} are missing" if found < wanted else f"{found - wanted:,} more"
        return f"{found:,} rows come back instead of {wanted:,}: {less}{self._where}"

    @property
    def _where(self) -> str:
        """The first trading date whose rows are not as many, where they were counted."""
        days = self.wanted.days.keys() | self.found.days.keys()
        differ = [
            day
            for day in sorted(days)
            if self.wanted.days and self.wanted.days.get(day, 0) != self.found.days.get(day, 0)
        ]
        if not differ:
            return ""
        day, others = differ[0], len(differ) - 1
        counts = f"{self.found.days.get(day, 0):,} instead of {self.wanted.days.get(day, 0):,}"
        return f"; of {day} there are {counts}" + (
            f", and {others:,} other days differ" if others else ""
        )


def rows_again(
    engine: Engine, view: View, asked: Question, moment: Moment, fields: Sequence[str]
) -> Iterator[pa.Table]:
    """The rows that answer the question over `view`, which is of that moment, in parts."""
    if asked.last is None and asked.limit is None:
        yield from read_parts(engine, view, asked.selection, fields, after=asked.key)
        return
    page = None if asked.key is None else moment.page(asked.key)
    wanted = Wanted(asked.last, asked.limit, tuple(fields))
    yield fetch_records(engine, view, asked.selection, wanted, after=page)[0]


def content_of(
    engine: Engine, view: View, asked: Question, moment: Moment, schema: pa.Schema
) -> Content:
    """What the rows with these columns are. Raises `BadInput` for columns that cannot be hashed."""
    digest = Digest(schema)
    days: dict[str, int] = {}
    names = tuple(dict.fromkeys([*schema.names, "exchange_date"]))
    for part in rows_again(engine, view, asked, moment, names):
        digest.update(part)
        for each in pc.value_counts(part["exchange_date"]).to_pylist():
            day = each["values"].isoformat()
            days[day] = days.get(day, 0) + each["counts"]
    return Content(digest.rows, digest.hexdigest(), dict(sorted(days.items())))


def check_version(found: object, known: int, place: str) -> None:
    """Raises `Refused` for a certificate, or a hash, of another form than K2 knows."""
    if found != known:
        raise Refused(
            "this is of another form than this version of K2 knows",
            place=place,
            found=str(found),
            expected=str(known),
            hint="a newer version of K2 made it: use that one",
        )
