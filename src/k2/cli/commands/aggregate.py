"""Measures of intervals: VWAP, TWAP, volume by price and more."""

from datetime import date, datetime
from typing import Final

import click

from k2.cli.options import (
    as_of_option,
    known_at_option,
    output_options,
    range_options,
    reader_of,
    session_option,
    settings_option,
    tell_unknown,
)
from k2.cli.show import Output
from k2.settings import Settings

METRICS: Final = ("ohlcv", "trade_count", "vwap", "twap", "volume_profile")


@click.command("aggregate")
@click.argument("symbol", nargs=-1, required=True)
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(METRICS),
    multiple=True,
    help="What to measure; one at least, may be repeated.",
)
@click.option("--interval", required=True, metavar="LENGTH", help="1s, 5m, 1h, 1d …")
@range_options
@click.option(
    "--bin-size",
    metavar="PRICE",
    help="Width of a level of volume_profile; without it, each price is one.",
)
@click.option("--all-trades", is_flag=True, help="Trades that form no price as well.")
@session_option
@as_of_option
@known_at_option
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    session: str,
    as_of: str | None,
    as_known_at: str | None,
    symbol: tuple[str, ...],
    metrics: tuple[str, ...],
    interval: str,
    exchange: tuple[str, ...],
    start: datetime | date | None,
    end: datetime | date | None,
    bin_size: str | None,
    all_trades: bool,
) -> None:
    """Measures of each interval in which these symbols traded, from trades that form prices.

    In a twap each price counts for as long as it held: until the next trade, or the end of the
    interval or the range; the last price before the interval, of the same exchange date, from its
    beginning on.
    """
    with reader_of(settings) as reader:
        from k2.query import Selection

        answer = reader.aggregate(
            Selection(symbol, exchange, start, end),
            metrics,
            interval,
            all_trades=all_trades,
            bin_size=bin_size,
            session=session,
            as_of=as_of,
            as_known_at=as_known_at,
            timeout=settings.query.timeout.total_seconds(),
        )
        if not answer.table.num_rows:
            tell_unknown(reader, symbol, as_of)
    output.write(answer)
