"""Questions to K2 over settled files, beside other engines that hold the same rows.

Each engine is in a process of its own; what each answers is compared before it is timed. Engines
that are not installed are left out, and named.
"""

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from bench.agree import check_same
from bench.engines import engine, engine_names, why_not
from bench.engines.apart import Apart
from bench.home import folder, settled
from bench.lines import Aim, Line, show_lines
from bench.questions import Question, questions
from bench.report import console
from k2.errors import Unavailable

ROWS, QUICK_ROWS = 20_000_000, 500_000
AIMS = (Aim("ratio", most=1.0), Aim("tail", most=3.0))
"""As quick as the best of the others, and nearly as quick each time."""
_ASKED_BEFORE: Final = 3


def run(*, quick: bool = False, rows: int | None = None) -> None:
    """Print p50 and p99 of all engines, and the ratio of K2's p50 to that of the best other."""
    count = rows or (QUICK_ROWS if quick else ROWS)
    with folder("queries") as home:
        settled(home, count)
        lines, notes = measure(home, 0.3 if quick else 4.0)
    show_lines(f"Queries over {count:,} trades and as many quotes, ms", lines, notes)


def measure(home: Path, seconds: float) -> tuple[list[Line], list[str]]:
    """A line a question over the settled tables of a home, each asked for so long of each engine;
    and what a reader of the figures must know. Raises `Broken` where answers differ.
    """
    notes = []
    with ExitStack() as stack:
        engines = []
        for name in engine_names():
            title, reason = engine(name).TITLE, why_not(name)
            try:
                if reason is None:
                    console.print(f"[dim]loading {title}[/dim]")
                    engines.append(stack.enter_context(closing(Apart(name, home))))
                    notes += [engine(name).NOTE] if engine(name).NOTE else []
            except Unavailable as error:
                reason = error.message
            if reason is not None:
                notes.append(f"{title} is left out: {reason}")
        ours, *others = engines
        # As a server is that has run for a while: copies of what is asked again are made behind it.
        for _ in range(_ASKED_BEFORE):
            for question in questions().values():
                ours.answer(question)
        time.sleep(5 * seconds)
        lines = [
            _line(what, question, ours, others, seconds) for what, question in questions().items()
        ]
    return lines, notes


def _line(what: str, question: Question, ours: Apart, others: list[Apart], seconds: float) -> Line:
    able = []
    answer = ours.answer(question)
    assert answer is not None
    for other in others:
        found = other.answer(question)
        if found is not None:
            check_same(what, other.title, question, answer, found)
            able.append(other)
    took = ours.timed(question, seconds)
    peers = {other.title: other.timed(question, seconds) for other in able}
    return Line.of(what, took, *AIMS, peers=peers)
