"""Records from a position on: what is there in total order, then what arrives.

Each state that is given is set against the one before it: whatever the newer one has beyond the
older is told, once, however it came in. So no seam lies between history and live.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput
from k2.query.merge import arrived, common_columns, key_at, merged
from k2.query.page import NO_COMMIT, Page
from k2.query.pinned import look, newest_page, rest_of
from k2.query.port import Engine, Pin
from k2.query.position import NOTHING, Position, moved
from k2.query.selection import NOW, Past, Selection, check_count
from k2.query.state import State
from k2.query.stopping import limited
from k2.query.stretch import LINEAGE, fetch, micros_of, stretches
from k2.query.view import View

KINDS: Final = ("trades", "quotes", "corrections")
"""The kinds of record that can be replayed."""

PART_ROWS: Final = 50_000
"""Records that are fetched at once: enough to be quick, few enough to hold."""

PACED_ROWS: Final = 8_192
"""The same for a replay that keeps a pace: fetching more would hold up what is due meanwhile."""

_LEAST_ROWS: Final = 4_096
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Replayed:
    """What is replayed: records of these kinds, as of a past moment or now; with `live`, what
    arrives after that as well. `history` tells whether what is there comes first.

    A position belongs to kinds and selection, but not to its times: it keeps these itself.
    """

    kinds: tuple[str, ...]
    selection: Selection
    past: Past = NOW
    live: bool = False
    history: bool = True

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise BadInput(
                "there is no such kind of record to replay",
                found=unknown[0] if unknown else "none",
                expected=", ".join(KINDS),
            )
        if self.past.history:
            raise BadInput("a replay gives trades as they stand, not their history")
        if self.live and self.past != NOW:
            raise BadInput("nothing arrives in the past: a replay of a past moment ends with it")

    @property
    def columns(self) -> pa.Schema:
        """The columns of all records: `kind`, then those of every kind."""
        return common_columns(self.kinds)

    @property
    def question(self) -> str:
        """Text that tells what is asked for from anything else: positions belong to it."""
        asked = self.selection
        return repr(("replay", self.kinds, asked.symbols, asked.exchanges, asked.where))


@dataclass(frozen=True)
class Part:
    """Records in order, with their lineage at the end, and where reading goes on after all of
    them. `base` is the position whose key any row of these can be; None where only the end is one.
    """

    table: pa.Table
    end: Position
    base: Position | None

    @property
    def records(self) -> pa.Table:
        """The records without what only the order needs."""
        return self.table.drop_columns([*LINEAGE])

    @property
    def is_live(self) -> bool:
        """Whether these arrived just now: in the order of their arrival."""
        return self.base is None

    @property
    def times(self) -> npt.NDArray[np.int64]:
        """Event times, microseconds UTC; ascending, unless the records are live."""
        return micros_of(self.table["timestamp"])

    def cut(self, first: int, end: int) -> "Part":
        """The rows `[first, end)`. Live ones cannot be parted: no position lies between them."""
        if first == 0 and end >= self.table.num_rows:
            return self
        assert self.base is not None
        last = end >= self.table.num_rows
        place = self.end if last else replace(self.base, key=key_at(self.table, end - 1))
        return Part(self.table.slice(first, end - first), place, self.base)


class Replay:
    """Reads one replay. One thread at a time; whoever reads owns the pace.

    `batch` is how many records a live part may have at most: where more arrived since the last,
    they come in total order instead. Other parts have up to `rows`, which are fetched at once.
    `after` is a position's text.
    """

    def __init__(
        self,
        state: State,
        engine: Engine,
        asked: Replayed,
        *,
        batch: int = PART_ROWS,
        rows: int = PART_ROWS,
        after: str | None = None,
    ) -> None:
        check_count("batch", batch)
        self.asked = asked
        self.views: dict[str, View] = {}
        """The state of each kind that was looked at last."""
        self.is_done = False
        """Whether nothing more will come."""
        self.selection = asked.selection
        """Which records are read: with the range of times that the position has."""
        self._state = state
        self._engine = engine
        self._batch = batch
        self._rows = max(rows, _LEAST_ROWS)
        self._columns = asked.columns
        self._seen: dict[str, Pin] = {}
        self._parts: Iterator[pa.Table] = iter(())
        if after is None:
            self._begin()
        else:
            self.position = Position.from_text(after, asked.question)
        edges = (self.position.start, self.position.end)
        self.selection = replace(asked.selection, start=edges[0], end=edges[1])
        self._open()

    def read(self, timeout: float | None = None) -> Part | None:
        """What comes next; None: nothing now, or ever (`is_done`).

        Raises `Unavailable` while log or lake are away: the next call goes on where this one was.
        """
        with limited(timeout):
            while not self.is_done:
                if self.position.upto is not None:
                    if (part := self._more()) is not None:
                        return part
                    continue
                return self._arrivals()
        return None

    def _begin(self) -> None:
        asked = self.asked
        upto = {kind: newest_page(self._state, kind, asked.past) for kind in asked.kinds}
        start, end = asked.selection.start, asked.selection.end
        if asked.history:
            self.position = Position(upto, start=start, end=end)
        else:
            told = {kind: page.pin for kind, page in upto.items()}
            self.position = Position(None, told=told, start=start, end=end)

    def _open(self) -> None:
        """Begin to read the states that the position names, after its key."""
        if self.position.upto is None:
            self._parts = iter(())
            return
        selection = self.selection
        self._parts = merged(
            {
                kind: stretches(
                    self._engine,
                    partial(self._look, kind, page),
                    selection,
                    rows=self._rows,
                    after=self.position.key,
                )
                for kind, page in self.position.upto.items()
            },
            self._columns,
        )

    def _more(self) -> Part | None:
        """The next part in total order; None at its end, where the position moves on."""
        try:
            table = next(self._parts, None)
        except BaseException:
            # A generator that raised is at its end, and would look as if it had no more.
            self._open()
            raise
        if table is not None:
            origin = self.position.origin
            if origin is None:
                origin = int(key_at(table, 0)[0])
            base = replace(self.position, origin=origin)
            self.position = replace(base, key=key_at(table, table.num_rows - 1))
            return Part(table, self.position, base)
        if not self.asked.live:
            self.is_done = True
            return None
        assert self.position.upto is not None
        told = {kind: page.pin for kind, page in self.position.upto.items()}
        told = {**self.position.told, **told}
        self.position = replace(self.position, upto=None, key=None, told=told)
        return None

    def _arrivals(self) -> Part | None:
        """What came in since: of few records a part, for many a state to read in total order."""
        if not self.asked.live:
            self.is_done = True
            return None
        pages: dict[str, Page] = {}
        tables: dict[str, pa.Table] = {}
        found = 0
        for kind in self.asked.kinds:
            page = newest_page(self._state, kind)
            if page.pin == self._seen.get(kind):
                continue
            pages[kind] = page
            tables[kind] = self._news(kind, page)
            found += tables[kind].num_rows
        if not pages:
            return None
        told = {kind: self._moved(kind, page.pin) for kind, page in pages.items()}
        self._seen |= {kind: page.pin for kind, page in pages.items()}
        if found > self._batch:
            upto = {kind: replace(page, pin=told[kind]) for kind, page in pages.items()}
            self.position = replace(self.position, upto=upto, key=None)
            self._open()
            return self._more()
        self.position = replace(self.position, told={**self.position.told, **told})
        if not found:
            return None
        table = arrived({k: of for k, of in tables.items() if of.num_rows}, self._columns)
        return Part(table, self.position, None)

    def _news(self, kind: str, page: Page) -> pa.Table:
        """What the state has beyond what was told, one record more than a part may have at most."""
        read = partial(fetch, self._engine, selection=self.selection, rows=self._batch + 1)
        table = read(view=self._look(kind, page, None))
        few = 0 < table.num_rows <= self._batch
        if kind != "trades" or page.corrections == NO_COMMIT or not few:
            return table
        # Once more, as corrections left them: only of those few are corrections looked for.
        times = pc.min_max(table["timestamp"]).as_py()
        span = replace(self.selection, start=times["min"], end=times["max"] + _MICROSECOND)
        return read(view=self._look(kind, page, span))

    def _moved(self, kind: str, pin: Pin) -> Pin:
        return moved(self.position.told.get(kind, NOTHING), pin, self.views[kind].left)

    def _look(self, kind: str, page: Page, selection: Selection | None) -> View:
        """The state of a kind, beyond what was told; as corrections left the selection's trades."""
        told = self.position.told.get(kind)
        asked = rest_of(self.selection, self.position.key)
        view = look(self._state, self._engine, kind, page, selection, asked=asked, beyond=told)
        self.views[kind] = view
        return view
