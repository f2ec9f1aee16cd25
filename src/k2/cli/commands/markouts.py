"""Markouts: how the market moved after trades, by side."""

from datetime import date, datetime, timedelta

import click

from k2.cli.options import (
    as_of_option,
    beside_options,
    known_at_option,
    output_options,
    range_options,
    reader_of,
    settings_option,
    tell_unknown,
)
from k2.cli.show import Output
from k2.settings import Settings


@click.command("markouts")
@click.argument("symbol", nargs=-1, required=True)
@click.option(
    "--horizons",
    default="1s,10s,1m",
    metavar="A,B",
    help="How long after a trade the market is looked at; 1s,10s,1m if not given.",
)
@range_options
@click.option("--all-trades", is_flag=True, help="Trades that form no price as well.")
@beside_options
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
    horizons: str,
    exchange: tuple[str, ...],
    start: datetime | date | None,
    end: datetime | date | None,
    all_trades: bool,
    max_age: timedelta | None,
    strict: bool,
    look_ahead: bool,
) -> None:
    """The mean move of the middle after trades, by quantity, for each side and horizon.

    markout: (the middle a horizon later - the middle when the trade printed) for buys, the negative
    for sells. Above zero the market went the way of whoever crossed the spread.
    """
    with reader_of(settings) as reader:
        from k2.query import MarkoutsWanted, Measuring, Rule, Selection, parse_spans

        how = Measuring(Rule(strict, look_ahead), max_age, all_trades)
        answer = reader.markouts(
            MarkoutsWanted(parse_spans(horizons), how),
            Selection(symbol, exchange, start, end),
            as_of=as_of,
            as_known_at=as_known_at,
            timeout=settings.query.timeout.total_seconds(),
        )
        if not answer.table.num_rows:
            tell_unknown(reader, symbol, as_of)
    output.write(answer)
