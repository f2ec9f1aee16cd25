"""The days on which exchanges trade, and when they open and close."""

from datetime import UTC, date, datetime, timedelta

import click

from k2.cli.options import Day, output_options, reader_of, settings_option
from k2.cli.show import Output
from k2.errors import BadInput
from k2.settings import Settings


@click.command("sessions")
@click.argument("exchange", nargs=-1, required=True)
@click.option("--from", "first", type=Day(), metavar="DATE", help="From this date on (today).")
@click.option("--to", "end", type=Day(), metavar="DATE", help="Before this date (a week later).")
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    exchange: tuple[str, ...],
    first: date | None,
    end: date | None,
) -> None:
    """Trading days of these exchanges, as the file of sessions declares them (K2_SESSIONS).

    `open` and `close` are UTC; trades from `open` on and before `close` are of the session.
    """
    begin = first or datetime.now(UTC).date()
    finish = end or begin + timedelta(days=7)
    if not timedelta(0) < finish - begin <= timedelta(days=36_600):
        raise BadInput(
            "these dates are no range",
            found=f"{begin} to {finish}",
            expected="an end after the start, and within a hundred years of it",
        )
    with reader_of(settings) as reader:
        output.write(reader.trading_days(exchange, begin, finish))
