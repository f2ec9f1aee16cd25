"""Bars: open, high, low, close, volume, trade count and VWAP of intervals."""

import shutil
from datetime import date, datetime
from typing import Final

import click

from k2.cli.options import (
    as_of_option,
    explain_option,
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

BAR_KINDS: Final = ("time", "tick", "volume", "dollar")


@click.command("bars")
@click.argument("symbol", nargs=-1, required=True)
@click.option(
    "--interval",
    required=True,
    metavar="LENGTH",
    help="1s, 5m, 1h, 1d …; of other kinds what closes a bar: 500, 0.5, 1000000 …",
)
@click.option(
    "--kind",
    type=click.Choice(BAR_KINDS),
    default="time",
    help="What closes a bar: time, a count of trades, a quantity, or price * quantity.",
)
@range_options
@click.option("--last", type=click.IntRange(1), metavar="N", help="The newest N of each symbol.")
@click.option("--all-trades", is_flag=True, help="Trades that form no price as well.")
@click.option("--fill", is_flag=True, help="Intervals without trades too: empty, or unknown.")
@click.option("--consolidated", is_flag=True, help="One bar over all exchanges of a symbol.")
@session_option
@click.option(
    "--adjusted",
    type=click.Choice(("none", "splits", "all")),
    default="none",
    help="Prices of other days as they compare with today's: after splits, or dividends as well.",
)
@as_of_option
@known_at_option
@explain_option
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    session: str,
    adjusted: str,
    as_of: str | None,
    as_known_at: str | None,
    symbol: tuple[str, ...],
    interval: str,
    kind: str,
    exchange: tuple[str, ...],
    start: datetime | date | None,
    end: datetime | date | None,
    last: int | None,
    all_trades: bool,
    fill: bool,
    consolidated: bool,
    explain: bool,
) -> None:
    """Bars of these symbols, from trades that form prices.

    An interval without trades is left out, unless --fill asks for it. Bars of kind tick, volume
    and dollar begin anew with each exchange date; the trade that fills one closes it and is not
    split, and a bar is not complete before it is full.
    """
    from k2.cli.chart import colour_of_bar, sparklines

    with reader_of(settings) as reader:
        from k2.query import Selection

        selection = Selection(symbol, exchange, start, end)
        if explain:
            output.write(reader.explain(("trades",), selection, as_of=as_of))
            return
        answer = reader.bars(
            selection,
            interval,
            kind=kind,
            all_trades=all_trades,
            fill=fill,
            consolidated=consolidated,
            last=last,
            session=session,
            adjusted=adjusted,
            as_of=as_of,
            as_known_at=as_known_at,
            timeout=settings.query.timeout.total_seconds(),
        )
        if not answer.table.num_rows:
            tell_unknown(reader, symbol, as_of)
    output.write(answer, style=colour_of_bar)
    if output.on_terminal:
        for line in sparklines(answer.table, shutil.get_terminal_size().columns):
            click.echo(line)
