"""`python -m bench [NAME…] [--quick]`: run all benchmarks, or those named."""

import argparse
import importlib
import pkgutil

import bench
from bench.report import console, machine

_TOOLS = {"__main__", "market", "report", "home"}


def main() -> None:
    """Run what is asked for."""
    names = [m.name for m in pkgutil.iter_modules(bench.__path__) if m.name not in _TOOLS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*names, []], default=[])
    parser.add_argument("--quick", action="store_true", help="small data, to see that it runs")
    asked = parser.parse_args()
    console.print(f"[dim]{machine()}[/dim]")
    for name in asked.name or names:
        importlib.import_module(f"bench.{name}").run(quick=asked.quick)


if __name__ == "__main__":
    main()
