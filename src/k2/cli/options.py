"""Options that many commands share, each as one decorator."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from k2.cli.logs import JSON, set_up_logs
from k2.cli.show import choose_output, say
from k2.cli.stores import access_of
from k2.errors import BadInput
from k2.settings import Settings, load_settings

if TYPE_CHECKING:
    from k2.query import Reader

P = ParamSpec("P")
R = TypeVar("R")
Command = Callable[..., R]


class When(click.ParamType[datetime | date]):
    """A time with a zone, a date, or a distance to now."""

    name = "when"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | date:
        """Raises `BadInput` for text that is no time."""
        if isinstance(value, date):
            return value
        from k2.query.times import parse_when

        return parse_when(str(value), datetime.now(UTC))


class Day(click.ParamType[date]):
    """A date such as 2014-03-11."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Raises `BadInput` for text that is no date."""
        if isinstance(value, date):
            return value
        from k2.query.times import parse_date

        return parse_date(str(value))


class Span(click.ParamType[timedelta]):
    """A length of time such as 5s."""

    name = "length"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Raises `BadInput` for text that is none."""
        if isinstance(value, timedelta):
            return value
        from k2.query.times import parse_span

        return parse_span(str(value))


def settings_option(function: Command[R]) -> Command[R]:
    """Adds `--home` and gives the command its `settings`."""

    @click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of log, tables and settings (K2_HOME; ./k2-home).",
    )
    @functools.wraps(function)
    def with_settings(home: Path | None, **arguments: Any) -> R:
        before_command = click.get_current_context().find_root().obj
        settings = load_settings(home or before_command, os.environ)
        if settings.logging == JSON:
            set_up_logs(JSON)
        if settings.traces is not None:
            from k2.traces import set_up_traces

            set_up_traces(settings.traces, f"k2-{click.get_current_context().info_name}")
        return function(settings=settings, **arguments)

    return with_settings


def metrics_option(setting: str) -> Callable[[Command[R]], Command[R]]:
    """Adds `--metrics-port`, which goes before the setting of that name."""
    return click.option(
        "--metrics-port",
        type=click.IntRange(0, 65_535),
        metavar="N",
        help=f"Serve metrics for Prometheus there; 0: any port. In place of {setting}.",
    )


def output_options(function: Command[R]) -> Command[R]:
    """Adds `--table --json --ndjson --csv --arrow --parquet -o` and gives the `output`."""

    @click.option("--table", "format_name", flag_value="table", help="A table (default).")
    @click.option("--json", "format_name", flag_value="json", help="As HTTP answers: one object.")
    @click.option("--ndjson", "format_name", flag_value="ndjson", help="A JSON object a line.")
    @click.option("--csv", "format_name", flag_value="csv", help="With a header line.")
    @click.option("--arrow", "format_name", flag_value="arrow", help="An Arrow IPC stream.")
    @click.option("--parquet", "format_name", flag_value="parquet", help="A Parquet file.")
    @click.option(
        "-o",
        "output_path",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write to FILE; its suffix says the format if no option does.",
    )
    @functools.wraps(function)
    def with_output(format_name: str | None, output_path: Path | None, **arguments: Any) -> R:
        return function(output=choose_output(format_name, output_path), **arguments)

    return with_output


def as_of_option(function: Command[R]) -> Command[R]:
    """Adds `--as-of`: a time, a tag or a snapshot id; a distance to now becomes a time."""

    @click.option(
        "--as-of",
        metavar="WHEN",
        help="The data as K2 held it then: a time, a tag or a snapshot id.",
    )
    @functools.wraps(function)
    def with_as_of(as_of: str | None, **arguments: Any) -> R:
        return function(as_of=absolute(as_of), **arguments)

    return with_as_of


def known_at_option(function: Command[R]) -> Command[R]:
    """Adds `--as-known-at`: a time, a date, or a distance to now, which becomes a time."""

    @click.option(
        "--as-known-at",
        metavar="WHEN",
        help="Only what was known by then, whenever K2 got it: a time.",
    )
    @functools.wraps(function)
    def with_known_at(as_known_at: str | None, **arguments: Any) -> R:
        return function(as_known_at=absolute(as_known_at), **arguments)

    return with_known_at


def absolute(when: str | None) -> str | None:
    """A distance to now as the time that it means now; anything else as it is."""
    if when is None or not when.strip().startswith("-"):
        return when
    from k2.query.times import parse_when

    return parse_when(when, datetime.now(UTC)).isoformat()


def range_options(function: Command[R]) -> Command[R]:
    """Adds `--exchange` (many), `--from` and `--to`: arguments `exchange`, `start`, `end`."""
    function = click.option(
        "--to", "end", type=When(), metavar="WHEN", help="Before this time (exclusive)."
    )(function)
    function = click.option(
        "--from", "start", type=When(), metavar="WHEN", help="At or after this time."
    )(function)
    return click.option(
        "--exchange", multiple=True, metavar="NAME", help="Of this exchange; may be repeated."
    )(function)


def explain_option(function: Command[R]) -> Command[R]:
    """Adds `--explain`: what the question would read, in place of its answer."""
    return click.option(
        "--explain", is_flag=True, help="What this would read at most, in place of its answer."
    )(function)


def session_option(function: Command[R]) -> Command[R]:
    """Adds `--session`: regular, or all."""
    return click.option(
        "--session",
        type=click.Choice(("all", "regular")),
        default="all",
        help="Trades of all times, or of the sessions that K2_SESSIONS declares.",
    )(function)


def beside_options(function: Command[R]) -> Command[R]:
    """Adds `--max-age`, `--strict` and `--look-ahead`: what may stand beside a record."""
    function = click.option(
        "--look-ahead", is_flag=True, help="Take also what was not known yet by then."
    )(function)
    function = click.option(
        "--strict", is_flag=True, help="What stood before that time, not what came at it."
    )(function)
    return click.option(
        "--max-age", type=Span(), metavar="LENGTH", help="Take none that is older: 5s, 250ms …"
    )(function)


@contextmanager
def reader_of(settings: Settings) -> Iterator["Reader"]:
    """A reader of a home that is there. Raises `BadInput` where there is none."""
    need_home(settings)
    with open_reader_of(settings) as reader:
        yield reader


def tell_unknown(reader: "Reader", symbols: tuple[str, ...], as_of: str | None) -> None:
    """Say which of the symbols there is nothing of, and what may have been meant."""
    if not symbols:
        return
    known = reader.symbols(as_of=as_of).table["symbol"].to_pylist()
    for symbol in sorted(set(symbols) - set(known)):
        near = get_close_matches(symbol.upper(), known, 1)
        meant = f": did you mean {near[0]}?" if near else "; `k2 symbols` lists those there are"
        say(f"there is no symbol {symbol}{meant}")


def open_reader_of(settings: Settings, *, follow: bool = False) -> "Reader":
    """A reader as the settings have it; `follow` keeps the tail up to date in a thread."""
    from k2.query import open_reader

    return open_reader(
        settings.home,
        follow=follow,
        log=settings.log.url,
        registry=settings.log.registry,
        log_access=access_of(settings.log.access),
        registry_access=access_of(settings.log.registry_access),
        lake=settings.lake.folder,
        skew=settings.clock_skew,
        memory=settings.query.memory,
        hot_rows=settings.query.hot_rows,
        answers=settings.query.answers,
        decoded_bytes=settings.query.decoded_bytes,
        sessions=settings.query.sessions,
    )


def need_home(settings: Settings) -> None:
    """Raises `BadInput` unless the home folder is there: a query must not make an empty one."""
    if not settings.home.is_dir():
        raise BadInput(
            "there is no K2 home here",
            place=str(settings.home),
            hint="`k2 load` and `k2 demo` make one; --home or K2_HOME names another",
        )
