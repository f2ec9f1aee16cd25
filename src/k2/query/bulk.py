"""All records that match, however many: some at a time, in total order, in bounded memory.

Comes in: a selection. Goes out: tables, all of the one state that was the newest at the beginning.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

import pyarrow as pa

from k2.errors import BadInput
from k2.model import plain_schema
from k2.query.answer import told
from k2.query.gaps import Gap, told_gaps
from k2.query.page import Page, from_token, to_token
from k2.query.pinned import look, newest_page, rest_of
from k2.query.port import Engine
from k2.query.position import Key
from k2.query.records import Wanted, own_columns, question
from k2.query.selection import NOW, Past, Selection
from k2.query.state import State
from k2.query.stopping import limited
from k2.query.stretch import key_of, stretches
from k2.query.view import View

BULK_ROWS: Final = 131_072
"""Records that are fetched at once: enough to be quick, few enough to hold in several formats."""

Touched = Callable[[View, Selection, pa.Table], list[Gap]]
"""The gaps that an answer from a view touches."""


class Bulk:
    """Reads all records of a kind that match. One thread at a time; see `Reader.bulk`."""

    def __init__(
        self,
        state: State,
        engine: Engine,
        kind: str,
        selection: Selection,
        past: Past,
        *,
        fields: tuple[str, ...],
        after: str | None,
        rows: int,
        gaps: Touched,
    ) -> None:
        if past.history and kind != "trades":
            raise BadInput("only trades have a history of corrections", found=kind)
        self._began = time.perf_counter()
        self._state, self._engine, self._gaps = state, engine, gaps
        self._kind, self._selection, self._past, self._most = kind, selection, past, rows
        self._question = question(kind, selection, Wanted(fields=fields), past)
        self._key: Key | None = None
        if after is None:
            self._page = newest_page(state, kind, past)
        else:
            self._page = from_token(after, self._question)
            self._key = self._page.key
        # Whatever is asked in vain shows now, before anything is given.
        self._view = self._look(None)
        self._fields = own_columns(self._view, fields)
        shown = self._view.shown
        self.columns: pa.Schema = plain_schema(shown.field(n) for n in self._fields)
        """Of every table."""
        self.rows = 0
        """Records that were given so far."""
        self._open()

    @property
    def next(self) -> str:
        """Where another one goes on that has the records given so far; pages do, too."""
        page = Page(self._page.pin, self._key or (), self._page.corrections, self._page.known_at)
        return to_token(page, self._question)

    def read(self, timeout: float | None = None) -> pa.Table | None:
        """The next records; None: there are no more. `timeout` is in seconds.

        Raises what `Reader.records` raises: the next call goes on where this one was.
        """
        with limited(timeout):
            try:
                table = next(self._tables, None)
            except BaseException:
                # A generator that raised is at its end, and would look as if it had no more.
                self._open()
                raise
        if table is None:
            return None
        self._key = key_of(table, self._view.order, table.num_rows - 1)
        self.rows += table.num_rows
        return table.select(self._fields)

    def meta(self) -> dict[str, object]:
        """What is told of the answer (see `Answer.meta`), `rows` being those given so far."""
        notes: list[str] = []
        if self._past == NOW:
            gaps = self._gaps(self._view, self._selection, self.columns.empty_table())
            notes = told_gaps(self._kind, gaps)
        # With all corrections that are heeded, which reading looks up piece by piece.
        view = self._look(self._selection)
        made = told([view], self.columns.empty_table(), self._began, past=self._past)
        noted = made["notes"]
        assert isinstance(noted, list)
        return {**made, "rows": self.rows, "notes": [*notes, *noted]}

    def _look(self, selection: Selection | None) -> View:
        history = self._past.history
        return look(
            self._state,
            self._engine,
            self._kind,
            self._page,
            selection,
            asked=rest_of(self._selection, self._key),
            history=history,
        )

    def _open(self) -> None:
        order = [name for name in self._view.order if name not in self._fields]
        self._tables: Iterator[pa.Table] = stretches(
            self._engine,
            self._look,
            self._selection,
            rows=self._most,
            after=self._key,
            columns=(*self._fields, *order),
        )
