"""The one command behind the ledgers: rejected, duplicates, gaps, commits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from k2.cli.options import output_options, reader_of, settings_option
from k2.cli.show import Output
from k2.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa


def ledger_command(
    name: str,
    what: str,
    columns: Sequence[str],
    to_shown: "Callable[[pa.Table], pa.Table] | None" = None,
    *,
    filters: Sequence[str],
) -> click.Command:
    """The command that lists one ledger's newest entries.

    `what` describes it, `columns` are those that a table for people shows: the ledger's own, or
    those that `to_shown` adds. `filters` are columns of which one value can be asked for.
    """

    @click.command(name, help=what)
    @_filtered(filters)
    @click.option(
        "--limit", type=click.IntRange(1), default=1000, metavar="N", help="At most N (1000)."
    )
    @output_options
    @settings_option
    def command(
        settings: Settings,
        output: Output,
        limit: int,
        state: str | None = None,
        **wanted: str | None,
    ) -> None:
        with reader_of(settings) as reader:
            answer = reader.ledger(name, wanted=wanted, state=state, limit=limit)
        if output.is_table and to_shown is not None:
            answer = replace(answer, table=to_shown(answer.table))
        output.write(answer, columns=columns, limit=limit)

    return command


def ledger_group(
    name: str,
    what: str,
    columns: Sequence[str],
    to_shown: "Callable[[pa.Table], pa.Table] | None" = None,
    *,
    filters: Sequence[str],
) -> click.Group:
    """As `ledger_command`, for a ledger that has commands of its own besides."""
    listing = ledger_command(name, what, columns, to_shown, filters=filters)

    @click.pass_context
    def show(context: click.Context, /, **arguments: Any) -> object:
        if context.invoked_subcommand is not None:
            return None
        return context.invoke(listing, **arguments)

    return click.Group(
        name,
        callback=show,
        params=listing.params,
        help=listing.help,
        invoke_without_command=True,
    )


def _filtered(filters: Sequence[str]) -> "Callable[[Callable[..., None]], Callable[..., None]]":
    """Adds an option for each of these columns."""

    def with_filters(function: "Callable[..., None]") -> "Callable[..., None]":
        for column in reversed(filters):
            function = click.option(
                f"--{column}",
                metavar=_METAVARS.get(column, "NAME"),
                help=f"Of this {column} alone.",
            )(function)
        return function

    return with_filters


_METAVARS = {"state": "STATE", "cause": "CAUSE", "kind": "KIND"}
