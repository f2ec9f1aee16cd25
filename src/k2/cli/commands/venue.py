"""A venue to test against: Binance, Coinbase or Kraken as a server of this machine."""

import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k2.cli.show import say
from k2.cli.stores import stop_on_signals
from k2.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.venues import Fault


@click.command("venue")
@click.argument("name")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, metavar="N", help="0: any.")
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Where to listen.")
@click.option(
    "--script",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Faults to commit, in TOML.",
)
@click.option("--faults", type=click.IntRange(1), metavar="N", help="Draw N faults from the seed.")
@click.option("--symbols", metavar="A,B", help="What it trades, as the venue names it.")
@click.option(
    "--rate", type=click.IntRange(1, 1_000_000), default=500, metavar="N", help="Records/s (500)."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=7, metavar="N", help="(7)")
@click.option(
    "--seconds", type=click.FloatRange(0), metavar="N", help="The market stands still after these."
)
@click.option("--start", metavar="TIME", help="When the market began, so that it has a past.")
@click.option(
    "--history",
    type=click.IntRange(1),
    default=1_000_000,
    metavar="N",
    help="Past trades kept of each symbol (1000000).",
)
@click.option(
    "--connection-seconds",
    type=click.FloatRange(0),
    metavar="N",
    help="How long a connection lasts (86400 at binance).",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what it does there: .parquet, or JSON Lines.",
)
def command(
    name: str,
    port: int,
    host: str,
    script: Path | None,
    faults: int | None,
    symbols: str | None,
    rate: int,
    seed: int,
    seconds: float | None,
    start: str | None,
    history: int,
    connection_seconds: float | None,
    truth: Path | None,
) -> None:
    """Speak NAME's published protocol (binance, coinbase, kraken) until Ctrl-C.

    Sockets and REST share the port. The prices are a simulated market's; the trades go on while
    nobody is connected. A script of drawn faults is printed, so that it can be used again.
    """
    from k2.venues import Trading, open_venue, symbols_of

    trading = Trading(
        symbols=tuple(symbols.split(",")) if symbols else symbols_of(name),
        rate=rate,
        seed=seed,
        history=history,
        start=None if start is None else _micros(start),
        seconds=seconds,
    )
    committed = _script(script, faults, seed, seconds)
    venue = open_venue(
        name,
        trading,
        committed,
        truth=truth,
        address=(host, port),
        connection_seconds=connection_seconds,
    )
    with venue, stop_on_signals() as stop:
        say(f"{name} listens at {venue.ws} and {venue.rest}")
        say(f"{', '.join(trading.symbols)}; the last {history:,} trades of each can be asked for")
        while not stop():
            time.sleep(0.05)


def _script(
    script: Path | None, count: int | None, seed: int, seconds: float | None
) -> "Sequence[Fault]":
    from k2.venues import random_script, read_script, write_script

    if script is not None:
        if count is not None:
            raise BadInput("--script and --faults exclude each other")
        return read_script(script.read_text("utf-8"), str(script))
    if count is None:
        return ()
    drawn = random_script(seed, count, seconds or 600)
    click.echo(write_script(drawn))
    sys.stdout.flush()
    return drawn


def _micros(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise BadInput(
            "this is no time",
            place="--start",
            found=text,
            expected="ISO 8601 with a zone, such as 2026-01-05T00:00:00Z",
        )
    return (when - datetime.fromtimestamp(0, when.tzinfo)) // timedelta(microseconds=1)
