"""The one command behind the ledgers: rejected, duplicates, gaps, commits."""

from collections.abc import Sequence

import click

from k2.cli.options import output_options, reader_of, settings_option
from k2.cli.show import Output
from k2.settings import Settings


def ledger_command(name: str, what: str, columns: Sequence[str]) -> click.Command:
    """The command that lists one ledger's newest entries.

    `what` describes it, `columns` are those that a table shows.
    """

    @click.command(name, help=what)
    @click.option(
        "--limit", type=click.IntRange(1), default=1000, metavar="N", help="At most N (1000)."
    )
    @output_options
    @settings_option
    def command(settings: Settings, output: Output, limit: int) -> None:
        with reader_of(settings) as reader:
            answer = reader.ledger(name, limit=limit)
        output.write(answer, columns=columns, limit=limit)

    return command
