"""Spreads of intervals: as quoted, as paid, and as earned a while later."""

from datetime import date, datetime, timedelta

import click

from k2.cli.options import (
    Span,
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


@click.command("spreads")
@click.argument("symbol", nargs=-1, required=True)
@click.option(
    "--interval", default="1m", metavar="LENGTH", help="1s, 5m, 1h, 1d …; 1m if not given."
)
@click.option(
    "--horizon",
    type=Span(),
    default="10s",
    metavar="LENGTH",
    help="How long after a trade its realised spread is measured; 10s if not given.",
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
    interval: str,
    horizon: timedelta,
    exchange: tuple[str, ...],
    start: datetime | date | None,
    end: datetime | date | None,
    all_trades: bool,
    max_age: timedelta | None,
    strict: bool,
    look_ahead: bool,
) -> None:
    """Spreads of each interval in which anything was quoted or traded.

    quoted_spread: ask - bid, by the time for which each quote stood (quoted_seconds in all).
    effective_spread: 2 * |price - middle|, by quantity. realised_spread: 2 * (price - the middle a
    horizon later) for buys, the negative for sells, by quantity: what the other side kept.
    """
    with reader_of(settings) as reader:
        from k2.query import Measuring, Rule, Selection, SpreadsWanted, parse_interval

        how = Measuring(Rule(strict, look_ahead), max_age, all_trades)
        answer = reader.spreads(
            SpreadsWanted(parse_interval(interval), horizon, how),
            Selection(symbol, exchange, start, end),
            as_of=as_of,
            as_known_at=as_known_at,
            timeout=settings.query.timeout.total_seconds(),
        )
        if not answer.table.num_rows:
            tell_unknown(reader, symbol, as_of)
    output.write(answer)
