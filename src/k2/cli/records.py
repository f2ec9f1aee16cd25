"""The one command behind `k2 trades`, `k2 quotes` and the other kinds of record."""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Final

import click

from k2.cli.options import (
    Command,
    as_of_option,
    known_at_option,
    output_options,
    range_options,
    reader_of,
    settings_option,
    tell_unknown,
)
from k2.cli.show import Output, say
from k2.errors import BadInput
from k2.settings import Settings

TABLE_ROWS: Final = 50
"""Records that a table shows if nothing says how many; other formats give all."""

BECAME: Final = ("correction", "corrected_at", "corrected_price", "corrected_quantity")
"""Columns that trades have with --history."""


def records_command(kind: str, what: str, columns: Sequence[str]) -> click.Command:
    """The command for one kind; `what` describes it, `columns` are those that a table shows."""

    @click.command(kind, help=what)
    @click.argument("symbol", nargs=-1)
    @range_options
    @click.option("--last", type=click.IntRange(1), metavar="N", help="The newest N.")
    @click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N: a page.")
    @click.option("--after", metavar="TOKEN", help="Go on after a page: its `next`.")
    @click.option(
        "--where",
        multiple=True,
        metavar="CONDITION",
        help='Column, operator, literal: "price>=36.1"; may be repeated.',
    )
    @click.option("--fields", metavar="A,B", help="Only these columns.")
    @as_of_option
    @known_at_option
    @_history_option(kind)
    @output_options
    @settings_option
    def command(
        settings: Settings,
        output: Output,
        as_of: str | None,
        as_known_at: str | None,
        symbol: tuple[str, ...],
        exchange: tuple[str, ...],
        start: datetime | date | None,
        end: datetime | date | None,
        last: int | None,
        limit: int | None,
        after: str | None,
        where: tuple[str, ...],
        fields: str | None,
        history: bool = False,
    ) -> None:
        if last is not None and (limit is not None or after is not None):
            raise BadInput(
                "--last goes with neither --limit nor --after",
                hint="--last gives the newest records, --limit and --after pages from the oldest",
            )
        chosen = tuple(f.strip() for f in (fields or "").split(",") if f.strip())
        page = TABLE_ROWS if output.is_table and last is None and limit is None else limit
        with reader_of(settings) as reader:
            from k2.query import Selection, parse_conditions

            answer = reader.records(
                kind,
                Selection(symbol, exchange, start, end, parse_conditions(where)),
                last=last,
                limit=page,
                after=after,
                fields=chosen,
                as_of=as_of,
                as_known_at=as_known_at,
                history=history,
                timeout=settings.query.timeout.total_seconds(),
            )
            if not answer.table.num_rows:
                tell_unknown(reader, symbol, as_of)
        shown = chosen or [*columns, *(n for n in BECAME if n in answer.table.column_names)]
        output.write(answer, columns=shown, limit=page)
        if output.is_table and answer.next and limit is None:
            say(f"there are more: --limit N, --last N, --csv or --after {answer.next}")
        elif output.format not in ("json", "table") and answer.next:
            say(f"there are more: --after {answer.next}")

    return command


def _history_option(kind: str) -> Callable[[Command[None]], Command[None]]:
    """Adds `--history` to the command of trades: nothing else is corrected."""
    if kind != "trades":
        return lambda command: command
    about = "As first reported, and what corrections made of each."
    return click.option("--history", is_flag=True, help=about)
