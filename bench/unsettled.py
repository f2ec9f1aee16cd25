"""The same questions while a writer commits each second and half of their day is unsettled, beside
K2 itself over the same rows, settled and at rest.

Nothing settles meanwhile: the day's second half lies in files as merging leaves them, and those of
the commits of the run are not merged at all.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from bench.agree import check_same
from bench.engines.apart import Apart
from bench.home import folder, settled
from bench.lines import Aim, Line, show_lines
from bench.market import DAYS, EXCHANGE
from bench.questions import questions
from k2.lake import Commit, Lake, TopicOffsets, open_lake, sort_rows
from k2.model import Exchange

ROWS, QUICK_ROWS = 20_000_000, 200_000
AIMS = (Aim("ratio", most=1.5),)
DAY: Final = DAYS[-1]
NOON: Final = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC)
LIVE: Final = NOON + timedelta(hours=11)
"""What is later comes in while it is measured, a slice a second, as if it took the whole hour."""
_LIVE_COMMITS: Final = 600
_MERGE_AT: Final = 16
_KINDS: Final = ("trades", "quotes")


def run(*, quick: bool = False, rows: int | None = None) -> None:
    """Print p50 and p99 of each question, and the ratio to those settled."""
    lines = measure(quick=quick, rows=rows)
    show_lines("While a writer commits each second and half the day is unsettled, ms", lines)


def measure(*, quick: bool, rows: int | None = None) -> list[Line]:
    """A line a question. Raises `Broken` where answers differ before the writer begins."""
    count = rows or (QUICK_ROWS if quick else ROWS)
    seconds, every = (0.3, 0.2) if quick else (4.0, 1.0)
    with folder("unsettled") as home, ExitStack() as stack:
        calm, busy = home / "settled", home / "unsettled"
        settled(calm, count, lambda kind, made: made.filter(pc.invert(_from(made, LIVE))))
        later: dict[str, pa.Table] = {}
        settled(busy, count, _first_half(later))
        with closing(open_lake(busy / "lake")) as lake:
            for kind in _KINDS:
                _commit_merged(lake, kind, later[kind])
        live = {kind: rows.filter(_from(rows, LIVE)) for kind, rows in later.items()}
        ours, base = (stack.enter_context(closing(Apart("k2", each))) for each in (busy, calm))
        asked = questions(DAY)
        for what, question in asked.items():
            answers = base.answer(question), ours.answer(question)
            assert answers[0] is not None
            assert answers[1] is not None
            check_same(what, "the same unsettled", question, *answers)
        lines = []
        with _writing(busy, live, every):
            for what, question in asked.items():
                took = ours.timed(question, seconds)
                beside = ("settled", base.timed(question, seconds))
                lines.append(Line.of(f"{what}, unsettled", took, *AIMS, beside=beside))
    return lines


def _first_half(later: dict[str, pa.Table]) -> Callable[[str, pa.Table], pa.Table]:
    """Keeps the day's second half back, by kind."""

    def alter(kind: str, made: pa.Table) -> pa.Table:
        is_later = _from(made, NOON)
        if made["exchange_date"][0].as_py() == DAY:
            later[kind] = made.filter(is_later).combine_chunks()
            return made.filter(pc.invert(is_later))
        return made

    return alter


def _from(rows: pa.Table, when: datetime) -> pa.ChunkedArray:
    return pc.greater_equal(rows["timestamp"], pa.scalar(when))


def _commit_merged(lake: Lake, kind: str, rows: pa.Table) -> None:
    """Commit what came before the run, in files as merging leaves them of a commit a second."""
    begin = NOON
    for seconds in merged_seconds(int((LIVE - NOON).total_seconds())):
        end = begin + timedelta(seconds=seconds)
        is_mine = pc.and_not(_from(rows, begin), _from(rows, end))
        _commit(lake, kind, rows.filter(is_mine))
        begin = end
    lake.absorb(kind)


def merged_seconds(seconds: int) -> list[int]:
    """How many commits, one a second, each file holds once all that is due is merged: sixteen of a
    size become one of the next. The oldest first.
    """
    found, size = [], 1
    while seconds:
        found += [size] * (seconds % _MERGE_AT)
        seconds, size = seconds // _MERGE_AT, size * _MERGE_AT
    return found[::-1]


def _commit(lake: Lake, kind: str, rows: pa.Table) -> None:
    if not rows.num_rows:
        return
    table = lake.table(kind)
    start = table.snapshot().offsets
    topic = f"market.crypto.{kind}.{EXCHANGE}"
    reached = start[topic].next_offset[0]
    end = {topic: TopicOffsets("bench", {0: reached + rows.num_rows})}
    file = table.write(sort_rows(rows.combine_chunks()), DAY)
    exchange = Exchange(EXCHANGE, "crypto", "UTC")
    table.commit(Commit((file,), start, end, exchanges=(exchange,)))


@contextmanager
def _writing(home: Path, live: dict[str, pa.Table], every: float) -> Iterator[None]:
    """A process that commits a slice of these rows each so many seconds."""
    for kind, rows in live.items():
        feather.write_feather(rows, home / f"{kind}.arrow", compression="uncompressed")
    new = multiprocessing.get_context("spawn")
    stop = new.Event()
    writer = new.Process(target=_write, args=(home, every, stop), daemon=True)
    writer.start()
    try:
        yield
        # One that has died did not write beside what was measured.
        assert writer.is_alive(), "the writer died"
    finally:
        stop.set()
        writer.join(60)


def _write(home: Path, every: float, stop: Event) -> None:
    live = {kind: feather.read_table(home / f"{kind}.arrow") for kind in _KINDS}
    with closing(open_lake(home / "lake")) as lake:
        for number in range(_LIVE_COMMITS):
            begun = time.monotonic()
            for kind, rows in live.items():
                size = max(rows.num_rows // _LIVE_COMMITS, 1)
                _commit(lake, kind, rows.slice(number * size, size))
                if number % 30 == 29:
                    lake.absorb(kind)
            if stop.wait(max(0.0, begun + every - time.monotonic())):
                return
        stop.wait()
