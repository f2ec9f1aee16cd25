"""Records in time order, exchanges merged, at a multiple of real time."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from k2.cli.options import (
    as_of_option,
    known_at_option,
    output_options,
    range_options,
    reader_of,
    settings_option,
    tell_unknown,
)
from k2.cli.show import Output, say
from k2.cli.stores import stop_on_signals
from k2.pace import FASTEST, parse_speed
from k2.settings import Settings

if TYPE_CHECKING:
    from k2.query import Played

_LOOK_SECONDS: Final = 0.05
_SHOWN: Final = {
    "trades": ("symbol", "exchange", "timestamp", "price", "quantity", "side"),
    "quotes": ("symbol", "exchange", "timestamp", "bid_price", "bid_quantity", "ask_price",
               "ask_quantity"),
    "corrections": ("symbol", "exchange", "timestamp", "action", "trade_id", "price", "quantity"),
}  # fmt: skip


class Speed(click.ParamType[float | None]):
    """A multiple of real time, or `max`."""

    name = "speed"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Raises `BadInput` for text that is no speed."""
        return parse_speed(str(value))


@click.command("replay")
@click.argument("symbol", nargs=-1)
@click.option(
    "--kind",
    multiple=True,
    default=("trades",),
    type=click.Choice(tuple(_SHOWN)),
    help="Of this kind (trades); may be repeated.",
)
@range_options
@click.option(
    "--speed",
    type=Speed(),
    default=FASTEST,
    metavar="N|max",
    help="So many times as fast as they were made (max: as fast as it goes).",
)
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help='Column, operator, literal: "price>=36.1"; may be repeated.',
)
@click.option(
    "--after",
    metavar="POSITION",
    help="Go on at a position, in its range of times and its state of the data.",
)
@click.option(
    "--position-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the position there after each batch, and go on at it if there is one.",
)
@click.option("--follow", is_flag=True, help="Then go on with what arrives, until Ctrl-C.")
@as_of_option
@known_at_option
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    as_of: str | None,
    as_known_at: str | None,
    symbol: tuple[str, ...],
    kind: tuple[str, ...],
    exchange: tuple[str, ...],
    start: datetime | date | None,
    end: datetime | date | None,
    speed: float | None,
    where: tuple[str, ...],
    after: str | None,
    position_file: Path | None,
    follow: bool,
) -> None:
    """Records of these symbols (all, if none is named) in time order, exchanges merged.

    A reader that stops reading (or Ctrl-Z) pauses it. It ends by telling its position, at which
    --after goes on with the next record.
    """
    from k2.cli.flow import flow_to
    from k2.query import Past, Replayed, Selection, parse_conditions

    with reader_of(settings) as reader, stop_on_signals() as stop:
        asked = Replayed(
            tuple(dict.fromkeys(kind)),
            Selection(symbol, exchange, start, end, parse_conditions(where)),
            Past(as_of, as_known_at),
            live=follow,
        )
        if position_file is not None and position_file.exists() and after is None:
            after = position_file.read_text("utf-8").strip() or None
        batches = reader.replay(
            asked,
            speed=speed,
            after=after,
            timeout=settings.query.timeout.total_seconds(),
            wait=lambda seconds: _wait(seconds, stop),
        )
        told = _Told(position_file)
        flow = flow_to(output, asked.columns, _shown(asked.kinds))

        def parts() -> Iterator[bytes]:
            with closing(batches):
                for played in batches:
                    yield flow.add(played.records, played.position)
                    # Only now has it been written.
                    told.keep(played)
                    if stop():
                        break
            yield flow.end(told.position if stop() else None)

        began = time.monotonic()
        output.stream(parts())
        if not told.rows:
            tell_unknown(reader, symbol, as_of)
        say(f"{told.rows:,} records in {time.monotonic() - began:,.1f} s", dim=output.on_terminal)
        if stop() and told.position is not None and position_file is None:
            say(f"to go on: --after {told.position}")


class _Told:
    """What was given so far; the position behind it is kept in a file, if there is one for it."""

    def __init__(self, path: Path | None) -> None:
        self.rows = 0
        self._last: Played | None = None
        self._path = path

    @property
    def position(self) -> str | None:
        """That behind the last record; None before the first."""
        return None if self._last is None else self._last.position

    def keep(self, played: "Played") -> None:
        """These were given."""
        self.rows += played.records.num_rows
        self._last = played
        if self._path is not None:
            # Under its name stands a whole position, whenever this process ends.
            unfinished = self._path.with_name(f".{self._path.name}.part")
            unfinished.write_text(played.position + "\n", "utf-8")
            unfinished.replace(self._path)


def _shown(kinds: tuple[str, ...]) -> list[str]:
    columns = [column for kind in kinds for column in _SHOWN[kind]]
    return [*(["kind"] if len(kinds) > 1 else []), *dict.fromkeys(columns)]


def _wait(seconds: float, stop: Callable[[], bool]) -> bool:
    """Wait so long, or until a signal has come: whether one has."""
    until = time.monotonic() + seconds
    while not stop():
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, _LOOK_SECONDS))
    return True
