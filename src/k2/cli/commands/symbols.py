"""What is traded: symbols, their exchanges, how many trades and quotes, since when."""

import click

from k2.cli.options import as_of_option, output_options, reader_of, settings_option
from k2.cli.show import Output
from k2.settings import Settings


@click.command("symbols")
@click.option("--exchange", metavar="NAME", help="Of this exchange alone.")
@as_of_option
@output_options
@settings_option
def command(settings: Settings, output: Output, as_of: str | None, exchange: str | None) -> None:
    """Which symbols there are, with how many trades and quotes, and from when to when."""
    with reader_of(settings) as reader:
        answer = reader.symbols(exchange=exchange, as_of=as_of)
    output.write(answer)
