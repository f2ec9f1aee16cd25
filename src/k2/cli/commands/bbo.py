"""The best bid and offer over all exchanges of a symbol."""

from datetime import date, datetime

import click

from k2.cli.options import (
    as_of_option,
    known_at_option,
    output_options,
    range_options,
    reader_of,
    settings_option,
    tell_unknown,
)
from k2.cli.records import TABLE_ROWS
from k2.cli.show import Output, say
from k2.settings import Settings


@click.command("bbo")
@click.argument("symbol", nargs=-1, required=True)
@range_options
@click.option("--last", type=click.IntRange(1), metavar="N", help="The newest N of each symbol.")
@as_of_option
@known_at_option
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    as_of: str | None,
    as_known_at: str | None,
    symbol: tuple[str, ...],
    exchange: tuple[str, ...],
    start: datetime | date | None,
    end: datetime | date | None,
    last: int | None,
) -> None:
    """Best bid and ask of these symbols over their exchanges, after each quote that changes them.

    A quote of an exchange stands until its next one, and no longer than its exchange date. The
    quantity is that of all exchanges which quote the best price.
    """
    shown = TABLE_ROWS if output.is_table and last is None else last
    with reader_of(settings) as reader:
        from k2.query import Selection

        answer = reader.bbo(
            Selection(symbol, exchange, start, end),
            last=shown,
            as_of=as_of,
            as_known_at=as_known_at,
            timeout=settings.query.timeout.total_seconds(),
        )
        if not answer.table.num_rows:
            tell_unknown(reader, symbol, as_of)
    output.write(answer)
    if last is None and shown is not None and answer.table.num_rows >= shown:
        say(f"only the newest {shown} of a symbol: --last N or --csv for more")
