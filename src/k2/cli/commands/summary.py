"""One exchange day of a symbol: open, high, low, close, volume, trade count, VWAP."""

from datetime import date

import click

from k2.cli.options import (
    Day,
    as_of_option,
    known_at_option,
    output_options,
    reader_of,
    settings_option,
)
from k2.cli.show import Output
from k2.settings import Settings


@click.command("summary")
@click.argument("symbol")
@click.argument("day", type=Day(), metavar="DATE")
@click.option("--exchange", metavar="NAME", help="Of this exchange alone.")
@as_of_option
@known_at_option
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    as_of: str | None,
    as_known_at: str | None,
    symbol: str,
    day: date,
    exchange: str | None,
) -> None:
    """One exchange day of SYMBOL, DATE such as 2014-03-11 in the exchange's own zone."""
    with reader_of(settings) as reader:
        answer = reader.summary(
            symbol, day, exchange=exchange, as_of=as_of, as_known_at=as_known_at
        )
    output.write(answer)
