"""Where K2 stands: every figure of the query side and its aim, in one table."""

from bench import commit, planning, queries, serving, unsettled
from bench.home import folder, settled
from bench.lines import show_lines


def run(*, quick: bool = False, rows: int | None = None) -> None:
    """Print one table of what the parts measure, each as its own command would."""
    count = rows or (queries.QUICK_ROWS if quick else queries.ROWS)
    with folder("table") as home:
        settled(home, count)
        lines, notes = queries.measure(home, 0.3 if quick else 4.0)
        served = serving.measure(home, 0.3 if quick else 5.0)
    lines += unsettled.measure(quick=quick, rows=rows)
    lines += planning.measure(quick=quick)
    lines += commit.measure(quick=quick)
    lines += served
    show_lines(f"Where K2 stands, over {count:,} trades and as many quotes", lines, notes)
