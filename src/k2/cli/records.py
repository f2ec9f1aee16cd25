"""The one command behind `k2 trades`, `k2 quotes` and the other kinds of record."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

import click

from k2.cli.options import (
    Command,
    as_of_option,
    explain_option,
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

if TYPE_CHECKING:
    from k2.query import Bulk, Selection

TABLE_ROWS: Final = 50
"""Records that a table shows if nothing says how many; other formats give all."""

_WITHOUT_META: Final = ("table", "csv", "ndjson")

BECAME: Final = ("correction", "corrected_at", "corrected_price", "corrected_quantity")
"""Columns that trades have with --history."""


def records_command(kind: str, what: str, columns: Sequence[str]) -> click.Command:
    """The command for one kind; `what` describes it, `columns` are those that a table shows."""
    # Of corrections there are few, and whether each has its trade is looked up for all at once.
    of_all = kind != "corrections"

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
    @click.option("--pin", metavar="NAME", help="The rows of a pin, and nothing besides.")
    @click.option(
        "--certificate", is_flag=True, help="With a certificate of these rows in the answer's meta."
    )
    @as_of_option
    @known_at_option
    @_history_option(kind)
    @explain_option
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
        pin: str | None,
        certificate: bool,
        explain: bool,
        history: bool = False,
    ) -> None:
        if last is not None and (limit is not None or after is not None):
            raise BadInput(
                "--last goes with neither --limit nor --after",
                hint="--last gives the newest records, --limit and --after pages from the oldest",
            )
        chosen = tuple(f.strip() for f in (fields or "").split(",") if f.strip())
        page = TABLE_ROWS if output.is_table and last is None and limit is None else limit
        timeout = settings.query.timeout.total_seconds()
        with reader_of(settings) as reader:
            from k2.query import Selection, parse_conditions

            selection = Selection(symbol, exchange, start, end, parse_conditions(where))
            if explain:
                output.write(reader.explain((kind,), selection, as_of=as_of))
                return
            if page is None and last is None and pin is None and not certificate and of_all:
                bulk = reader.bulk(
                    kind,
                    selection,
                    fields=chosen,
                    after=after,
                    as_of=as_of,
                    as_known_at=as_known_at,
                    history=history,
                )
                _write_all(bulk, output, timeout)
                if not bulk.rows:
                    tell_unknown(reader, symbol, as_of)
                return
            if pin is not None:
                _check_alone(selection, chosen, as_of, as_known_at, history or certificate)
                answer = reader.pins.records(
                    pin, kind, last=last, limit=page, after=after, timeout=timeout
                )
            else:
                answer = reader.records(
                    kind,
                    selection,
                    last=last,
                    limit=page,
                    after=after,
                    fields=chosen,
                    as_of=as_of,
                    as_known_at=as_known_at,
                    history=history,
                    certificate=certificate,
                    timeout=timeout,
                )
                if not answer.table.num_rows:
                    tell_unknown(reader, symbol, as_of)
        there = answer.table.column_names
        shown = chosen or [*columns, *(n for n in BECAME if n in there)]
        shown = [name for name in shown if name in there] if pin is not None else shown
        output.write(answer, columns=shown, limit=page)
        if output.is_table and answer.next and limit is None:
            say(f"there are more: --limit N, --last N, --csv or --after {answer.next}")
        elif output.format not in ("json", "table") and answer.next:
            say(f"there are more: --after {answer.next}")
        if certificate and output.format in _WITHOUT_META:
            told = answer.meta["certificate"]
            assert isinstance(told, dict)
            hash_ = f"SHA-256 {told['hash']} of {told['rows']:,} rows"
            say(f"certificate: {hash_}; --json keeps it whole")

    return command


def _write_all(bulk: "Bulk", output: Output, timeout: float) -> None:
    """Write all records, each as soon as it is read; `timeout` (seconds) is for some of them."""
    from k2.flow import flow_of

    flow = flow_of(output.format, bulk.columns, bulk.meta())
    meta: dict[str, object] = {}

    def parts() -> Iterator[bytes]:
        nonlocal meta
        while (table := bulk.read(timeout)) is not None:
            yield flow.add(table, bulk.next)
        meta = bulk.meta()
        yield flow.end(None, meta)

    output.stream(parts())
    notes = meta["notes"]
    for note in notes if isinstance(notes, list) else ():
        say(str(note))


def _check_alone(selection: "Selection", *others: object) -> None:
    """Raises `BadInput` where more than a pin was asked for."""
    from k2.query import Selection

    if selection != Selection() or any(others):
        raise BadInput(
            "a pin says by itself which rows, columns and state it is of",
            place="--pin",
            expected="no symbol, no range or condition, no --fields and no other state besides",
        )


def _history_option(kind: str) -> Callable[[Command[None]], Command[None]]:
    """Adds `--history` to the command of trades: nothing else is corrected."""
    if kind != "trades":
        return lambda command: command
    about = "As first reported, and what corrections made of each."
    return click.option("--history", is_flag=True, help=about)
