"""How much there is: rows, files, bytes and lag of each table."""

import click

from k2.cli.options import as_of_option, output_options, reader_of, settings_option
from k2.cli.show import Output
from k2.settings import Settings


@click.command("stats")
@as_of_option
@output_options
@settings_option
def command(settings: Settings, output: Output, as_of: str | None) -> None:
    """Rows, files, bytes, snapshot and times of each table, and what its tail holds."""
    with reader_of(settings) as reader:
        answer = reader.stats(as_of=as_of)
    output.write(answer)
