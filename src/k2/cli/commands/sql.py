"""Read-only SQL over trades, quotes and everything else that is kept."""

import sys
from typing import Final

import click

from k2.cli.options import (
    as_of_option,
    explain_option,
    known_at_option,
    output_options,
    reader_of,
    settings_option,
)
from k2.cli.show import Output, say
from k2.settings import Settings

TABLE_ROWS: Final = 1000
"""Rows that a table shows if --limit does not say; other formats give all."""


@click.command("sql")
@click.argument("text", metavar="SELECT")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N rows.")
@as_of_option
@known_at_option
@explain_option
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    as_of: str | None,
    as_known_at: str | None,
    text: str,
    limit: int | None,
    explain: bool,
) -> None:
    """The answer of one SELECT over trades, quotes, instruments and the ledgers.

    Read-only, and it reaches no files, network or settings. A dash reads it from stdin.
    """
    if text == "-":
        text = sys.stdin.read()
    most = TABLE_ROWS if output.is_table and limit is None else limit
    with reader_of(settings) as reader:
        if explain:
            output.write(reader.explain_sql(text, as_of=as_of))
            return
        answer = reader.sql(
            text,
            limit=most,
            as_of=as_of,
            as_known_at=as_known_at,
            timeout=settings.query.timeout.total_seconds(),
        )
    output.write(answer, limit=most)
    if limit is None and answer.table.num_rows == most:
        say(f"the first {most:,} rows; --limit N or --csv gives more")
