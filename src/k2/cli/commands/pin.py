"""Datasets kept by name: pinned, listed, shown, verified, let go of."""

import getpass
from contextlib import suppress
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

import click

from k2.cli.options import (
    as_of_option,
    known_at_option,
    output_options,
    range_options,
    reader_of,
    settings_option,
)
from k2.cli.show import Output, say
from k2.errors import BadInput
from k2.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.lake import Dataset
    from k2.query import Answer

_KINDS: Final = ("trades", "quotes", "corrections", "instruments", "dividends", "splits")
_LISTED: Final = ("name", "kind", "rows", "commit", "pinned_at", "author", "note", "hash")


@click.group("pin")
def command() -> None:
    """A pin is a dataset that comes back the same, value for value, and that says so if it cannot.

    It is of rows that are committed, at one commit, with the hash of their content. It stands
    until `k2 pin remove`, and what it is of may not be deleted meanwhile.
    """


@command.command("create")
@click.argument("name")
@click.argument("symbol", nargs=-1)
@click.option(
    "--kind", type=click.Choice(_KINDS), default="trades", help="Kind of record (trades)."
)
@range_options
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help='Column, operator, literal: "price>=36.1"; may be repeated.',
)
@click.option("--fields", metavar="A,B", help="Only these columns; else all of the kind's own.")
@as_of_option
@known_at_option
@click.option("--note", metavar="TEXT", help="Why it is pinned.")
@click.option("--author", metavar="NAME", help="Who pins it; else whoever is signed in.")
@output_options
@settings_option
def create(
    settings: Settings,
    output: Output,
    as_of: str | None,
    as_known_at: str | None,
    name: str,
    symbol: tuple[str, ...],
    kind: str,
    exchange: tuple[str, ...],
    start: datetime | date | None,
    end: datetime | date | None,
    where: tuple[str, ...],
    fields: str | None,
    note: str | None,
    author: str | None,
) -> None:
    """Pin the records of these symbols (all, if none is named) as they are committed now, or were.

    To pin the same rows by the same name once more changes nothing.
    """
    with reader_of(settings) as reader:
        from k2.query import Past, Selection, Wish, parse_conditions

        wish = Wish(
            name,
            kind,
            Selection(symbol, exchange, start, end, parse_conditions(where)),
            tuple(f.strip() for f in (fields or "").split(",") if f.strip()),
            Past(as_of, as_known_at),
            author or _user(),
            note,
        )
        pin, notes = reader.pins.create(wish)
    for each in notes:
        say(each)
    _write(output, [pin])


@command.command("list")
@output_options
@settings_option
def list_(settings: Settings, output: Output) -> None:
    """All pins that stand, by name; `k2 sql "SELECT * FROM pins"` has those let go of too."""
    with reader_of(settings) as reader:
        pins = reader.pins.standing()
    _write(output, pins)


@command.command("show")
@click.argument("name")
@output_options
@settings_option
def show(settings: Settings, output: Output, name: str) -> None:
    """All that is kept of one pin: its question, columns, commit, offsets, and its hash."""
    with reader_of(settings) as reader:
        pin = reader.pins.get(name)
    if not output.is_table:
        _write(output, [pin])
        return
    import pyarrow as pa

    answer = _answer([pin])
    row = answer.table.cast(
        pa.schema([field.with_type(pa.string()) for field in answer.table.schema])
    ).to_pylist()[0]
    held = {key: value for key, value in row.items() if value is not None}
    table = pa.table({"field": list(held), "value": list(held.values())})
    output.write(_told(table))


@command.command("verify")
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every pin that stands.")
@output_options
@settings_option
def verify(settings: Settings, output: Output, name: tuple[str, ...], every: bool) -> int:
    """Read the rows of pins again, and compare; ends with 1 where not the same rows come back."""
    if every == bool(name):
        raise BadInput("which pins are to be verified?", expected="names of pins, or --all")
    with reader_of(settings) as reader:
        names = [pin.name for pin in reader.pins.standing()] if every else list(name)
        table = reader.pins.verify(names)
    output.write(_told(table), columns=("name", "ok", "rows", "found_rows", "problem"))
    wrong = [row for row in table.to_pylist() if not row["ok"]]
    for row in wrong:
        say(f"k2: the pin {row['name']} does not come back: {row['problem']}")
    if not names:
        say("no pin stands")
    elif not wrong and output.is_table:
        say(f"{len(names):,} of {len(names):,} pins come back, value for value")
    return 1 if wrong else 0


@command.command("remove")
@click.argument("name")
@click.option("--note", metavar="TEXT", help="Why it is let go of.")
@click.option("--author", metavar="NAME", help="Who lets go of it; else whoever is signed in.")
@output_options
@settings_option
def remove(
    settings: Settings, output: Output, name: str, note: str | None, author: str | None
) -> None:
    """Let go of a pin: its rows may be deleted from now on. The ledger keeps that it stood."""
    with reader_of(settings) as reader:
        pin = reader.pins.remove(name, author=author or _user(), note=note)
    _write(output, [pin])
    say(f"the pin {name} is let go of")


def _write(output: Output, pins: "list[Dataset]") -> None:
    output.write(_answer(pins), columns=_LISTED)


def _answer(pins: "list[Dataset]") -> "Answer":
    from k2.query.pins import to_table

    return _told(to_table(pins))


def _told(table: "pa.Table") -> "Answer":
    from k2.query import Answer

    return Answer(table, {"rows": table.num_rows})


def _user() -> str | None:
    """Who is signed in, where the system knows it."""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return None
