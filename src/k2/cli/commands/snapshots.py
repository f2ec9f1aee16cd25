"""The commits of a table that Iceberg still holds a snapshot of."""

import click

from k2.cli.options import output_options, reader_of, settings_option
from k2.cli.show import Output
from k2.settings import Settings


@click.command("snapshots")
@click.argument("table", default="trades")
@click.option("--limit", type=click.IntRange(1), default=100, metavar="N", help="At most N (100).")
@output_options
@settings_option
def command(settings: Settings, output: Output, table: str, limit: int) -> None:
    """The snapshots of TABLE (trades, if none is named), newest first."""
    with reader_of(settings) as reader:
        answer = reader.snapshots(table, limit=limit)
    output.write(answer, limit=limit)
