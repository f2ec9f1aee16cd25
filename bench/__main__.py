"""`python -m bench [NAME…] [--quick]`: run all benchmarks, or those named."""

import argparse
import importlib
import inspect
import pkgutil

import bench
from bench.report import console, machine

_TOOLS = {
    *("__main__", "market", "report", "home", "sink", "plot", "torrent", "witness"),
    *("agree", "clients", "lines", "questions"),
}
_IN_TABLE = {"commit", "planning", "queries", "serving", "unsettled"}
"""What `table` measures as well: left out where nothing is named."""


def main() -> None:
    """Run what is asked for."""
    found = pkgutil.iter_modules(bench.__path__)
    names = [m.name for m in found if not m.ispkg and m.name not in _TOOLS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*names, []], default=[])
    parser.add_argument("--quick", action="store_true", help="small data, to see that it runs")
    parser.add_argument(
        "--rows", type=int, help="export, queries, serving, table, unsettled: of a kind"
    )
    parser.add_argument("--seeds", type=int, default=1, help="overload: so many runs of each")
    parser.add_argument("--kill", action="store_true", help="overload: kill the writer meanwhile")
    parser.add_argument("--kafka", action="store_true", help="backlog: on Kafka, not SQLite")
    parser.add_argument("--rate", type=int, default=20_000, help="backlog: records a second")
    parser.add_argument("--minutes", type=int, default=10, help="week: how long it runs")
    asked = vars(parser.parse_args())
    console.print(f"[dim]{machine()}[/dim]")
    for name in asked["name"] or [name for name in names if name not in _IN_TABLE]:
        run = importlib.import_module(f"bench.{name}").run
        run(**{option: asked[option] for option in inspect.signature(run).parameters})


if __name__ == "__main__":
    main()
