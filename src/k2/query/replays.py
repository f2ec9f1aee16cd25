"""The part of the facade that gives records one after the other: in bulk, or as a replay."""

from collections.abc import Callable, Generator

import pyarrow as pa

from k2.pace import Schedule
from k2.query.answer import Answer
from k2.query.bulk import BULK_ROWS, Bulk
from k2.query.gaps import Gap, told_gaps
from k2.query.play import Played, Wait, page_of, play, sleep
from k2.query.port import Engine
from k2.query.replay import PACED_ROWS, PART_ROWS, Replay, Replayed
from k2.query.selection import NOW, Past, Selection
from k2.query.state import State
from k2.query.stopping import limited
from k2.query.view import View


class Replays:
    """Methods of `k2.query.Reader`, which says what their parameters mean and what they raise."""

    _state: State
    _engine: Engine
    _gaps_of: Callable[[View, Selection, pa.Table], list[Gap]]

    def replay(
        self,
        asked: Replayed,
        *,
        speed: float | None = None,
        batch: int = 10_000,
        after: str | None = None,
        timeout: float | None = None,
        wait: Wait = sleep,
    ) -> Generator[Played, None, None]:
        """Records in total order over all kinds and exchanges, `speed` times as fast as they were
        made; None: as fast as it goes. In batches of at most `batch`, each with the position behind
        it, which is given back as `after`.

        Holds what it fetches at once and no more. A reader that is away for more than a second
        pauses it. `wait` is called between batches, with seconds; once it returns True, the replay
        ends. `timeout` is what fetching some records may take.
        """
        replay = self.open_replay(
            asked, batch=batch, rows=PART_ROWS if speed is None else PACED_ROWS, after=after
        )
        return play(replay, Schedule(speed), rows=batch, timeout=timeout, wait=wait)

    def replay_page(
        self,
        asked: Replayed,
        rows: int,
        *,
        speed: float | None = None,
        after: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The next `rows` records of a replay, and `next`: the position behind them.

        `meta.replay` says how long after the replay's first record (at `origin`) the first of these
        is due at that speed, and the `position` before them.
        """
        with limited(timeout):
            replay = self.open_replay(asked, rows=rows + 1, after=after)
            page = page_of(replay, rows, speed)
            notes = page.meta["notes"]
            if asked.past == NOW and isinstance(notes, list):
                for view in replay.views.values():
                    gaps = self._gaps_of(view, replay.selection, page.table)
                    notes.extend(told_gaps(view.table, gaps))
            return page

    def bulk(
        self,
        kind: str,
        selection: Selection,
        *,
        fields: tuple[str, ...] = (),
        after: str | None = None,
        as_of: str | None = None,
        as_known_at: str | None = None,
        history: bool = False,
        rows: int = BULK_ROWS,
    ) -> Bulk:
        """All matching records in total order, at most `rows` at a time, so that it takes the same
        memory however many there are: what `records` gives, which says what the others mean.
        """
        past = Past(as_of, as_known_at, history)
        return Bulk(
            self._state,
            self._engine,
            kind,
            selection,
            past,
            fields=fields,
            after=after,
            rows=rows,
            gaps=self._gaps_of,
        )

    def open_replay(
        self,
        asked: Replayed,
        *,
        batch: int = 10_000,
        rows: int = PART_ROWS,
        after: str | None = None,
    ) -> Replay:
        """The same for a reader that keeps the pace itself: see `Replay`."""
        return Replay(self._state, self._engine, asked, batch=batch, rows=rows, after=after)
