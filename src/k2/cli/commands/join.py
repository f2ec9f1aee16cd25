"""As-of join: each trade with the quote that stood when it printed."""

from datetime import date, datetime, timedelta
from typing import Final

import click

from k2.cli.options import (
    as_of_option,
    beside_options,
    explain_option,
    known_at_option,
    output_options,
    range_options,
    reader_of,
    settings_option,
    tell_unknown,
)
from k2.cli.records import TABLE_ROWS
from k2.cli.show import Output, say
from k2.errors import BadInput
from k2.settings import Settings

KINDS: Final = ("trades", "quotes")
SHOWN: Final = {
    "trades": ("timestamp", "price", "quantity", "side"),
    "quotes": ("timestamp", "bid_price", "bid_quantity", "ask_price", "ask_quantity"),
}
"""Columns of either side that a table shows."""


@click.command("join")
@click.argument("left", type=click.Choice(KINDS))
@click.argument("right", type=click.Choice(KINDS))
@click.argument("symbol", nargs=-1)
@range_options
@click.option("--last", type=click.IntRange(1), metavar="N", help="The newest N of LEFT.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N of LEFT: a page.")
@click.option("--after", metavar="TOKEN", help="Go on after a page: its `next`.")
@beside_options
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help='Of LEFT: column, operator, literal: "price>=36.1"; may be repeated.',
)
@click.option("--fields", metavar="A,B", help="Only these columns.")
@as_of_option
@known_at_option
@explain_option
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    as_of: str | None,
    as_known_at: str | None,
    left: str,
    right: str,
    symbol: tuple[str, ...],
    exchange: tuple[str, ...],
    start: datetime | date | None,
    end: datetime | date | None,
    last: int | None,
    limit: int | None,
    after: str | None,
    max_age: timedelta | None,
    strict: bool,
    look_ahead: bool,
    where: tuple[str, ...],
    fields: str | None,
    explain: bool,
) -> None:
    """Each record of LEFT with the last of RIGHT, of its symbol and exchange, at or before it.

    LEFT and RIGHT are trades or quotes. Where nothing stood, the columns of RIGHT are empty. Their
    names have `quote_` or `trade_` before them where LEFT has the same. What was not known yet when
    the record of LEFT was (by source_received_timestamp, or by when a live feed saw it) is not
    taken: the one before it is.
    """
    if last is not None and (limit is not None or after is not None):
        raise BadInput(
            "--last goes with neither --limit nor --after",
            hint="--last gives the newest records, --limit and --after pages from the oldest",
        )
    chosen = tuple(f.strip() for f in (fields or "").split(",") if f.strip())
    page = TABLE_ROWS if output.is_table and last is None and limit is None else limit
    with reader_of(settings) as reader:
        from k2.query import JoinWanted, Rule, Selection, parse_conditions

        selection = Selection(symbol, exchange, start, end, parse_conditions(where))
        if explain:
            kinds = tuple(dict.fromkeys((left, right)))
            output.write(reader.explain(kinds, selection, as_of=as_of))
            return
        answer = reader.join(
            JoinWanted(left, right, Rule(strict, look_ahead), max_age, last, page, chosen),
            selection,
            after=after,
            as_of=as_of,
            as_known_at=as_known_at,
            timeout=settings.query.timeout.total_seconds(),
        )
        if not answer.table.num_rows:
            tell_unknown(reader, symbol, as_of)
    output.write(answer, columns=chosen or _shown(left, right), limit=page)
    if output.is_table and answer.next and limit is None:
        say(f"there are more: --limit N, --last N, --csv or --after {answer.next}")
    elif output.format not in ("json", "table") and answer.next:
        say(f"there are more: --after {answer.next}")


def _shown(left: str, right: str) -> tuple[str, ...]:
    before = f"{right.removesuffix('s')}_"
    mine = ("symbol", "exchange", *SHOWN[left])
    return (*mine, *(before + name if name in SHOWN[left] else name for name in SHOWN[right]))
