"""Rows of tables made again from the log, in the place of damaged or missing files."""

from dataclasses import asdict
from datetime import date
from pathlib import Path

import click

from k2.cli.options import Day, need_home, output_options, settings_option
from k2.cli.show import Output, say
from k2.cli.stores import opened_stores
from k2.settings import Settings

TABLES = ("trades", "quotes", "corrections", "instruments", "dividends", "splits")


@click.command("rebuild")
@click.argument("table", nargs=-1, type=click.Choice(TABLES))
@click.option("--from", "first", type=Day(), metavar="DAY", help="From this exchange date on.")
@click.option("--to", "last", type=Day(), metavar="DAY", help="Up to this day, inclusive.")
@click.option(
    "--sources",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Where files that were loaded with --direct lie now, if not where they were.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    table: tuple[str, ...],
    first: date | None,
    last: date | None,
    sources: Path | None,
    dry_run: bool,
) -> None:
    """Make the rows of TABLE… (all that there are) again from the log: the same rows, one commit.

    For a data file that is damaged or gone, which `k2 audit` names. What was in the tables at any
    time stays as it was. Writers may run meanwhile, and it may be stopped at any moment. Where the
    log no longer holds what the days need, nothing is changed, and it ends with 1. Rows that were
    loaded with --direct are made from the same files again, which must be as they were.
    """
    import pyarrow as pa

    from k2.cli.progress import bar
    from k2.ingest import Wanted, rebuild
    from k2.query import Answer

    need_home(settings)
    found = []
    with opened_stores(settings) as stores:
        tables = table or tuple(name for name in TABLES if stores.lake.has(name))
        for wanted in [Wanted(name, first, last) for name in dict.fromkeys(tables)]:
            with bar(f"rebuilding {wanted.table}") as shown:
                found.append(
                    rebuild(
                        stores.log,
                        stores.registry,
                        stores.lake,
                        wanted,
                        dry_run=dry_run,
                        sources=sources,
                        tell=shown.tell,
                    )
                )
            for path in found[-1].unreadable:
                say(f"{wanted.table}: {path} cannot be read")
    rows = [asdict(each) for each in found]
    for row in rows:
        row["unreadable"] = len(row["unreadable"])
    shown = pa.Table.from_pylist(rows) if rows else pa.table({"table": pa.array([], pa.string())})
    document = {"dry_run": dry_run, "tables": [asdict(each) for each in found]}
    output.write(Answer(shown, {"rows": len(rows)}), document=document)
