"""What was added between two states, by symbol and exchange."""

import click

from k2.cli.options import absolute, output_options, reader_of, settings_option
from k2.cli.show import Output
from k2.settings import Settings


@click.command("diff")
@click.argument("symbol", nargs=-1)
@click.option(
    "--from", "since", required=True, metavar="WHEN", help="First state: a time, tag or snapshot."
)
@click.option("--to", "until", metavar="WHEN", help="Second state; the newest commit, if left out.")
@click.option(
    "--kind",
    type=click.Choice(("trades", "quotes", "corrections")),
    default="trades",
    help="Kind of record (trades).",
)
@click.option(
    "--exchange", multiple=True, metavar="NAME", help="Of this exchange; may be repeated."
)
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    symbol: tuple[str, ...],
    since: str,
    until: str | None,
    kind: str,
    exchange: tuple[str, ...],
) -> None:
    """Count the rows of these symbols (all, if none is named) that came between two states.

    `late` of them are of a trading date before the one on which the first state was.
    """
    with reader_of(settings) as reader:
        from k2.query import Selection

        answer = reader.diff.between(
            absolute(since) or since,
            absolute(until),
            kind=kind,
            selection=Selection(symbol, exchange),
            timeout=settings.query.timeout.total_seconds(),
        )
    output.write(answer)
