"""All of K2 on this machine with a simulated market, and nothing else needed."""

import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from k2.cli.machine import check_port, free_port, parts_of, url_of, wait_until_ready
from k2.cli.show import say, say_of
from k2.cli.stores import stop_on_signals
from k2.cli.supervise import Supervisor
from k2.cli.surges import SCALED_DOWN, make_surges
from k2.errors import BadInput
from k2.settings import Settings, load_settings

if TYPE_CHECKING:
    from k2.venues import Fault

_TYPED: Final = ("bars BTCUSDT --interval 1m --last 20", "stats", "audit")
_SPELL_SECONDS: Final = 600
_SPELLS: Final = 24 * 6
_HISTORY: Final = 100_000
"""Trades of each symbol that a venue can be asked for: hours of a hole, in bounded memory."""


@click.command("demo")
@click.option(
    "--rate", type=click.IntRange(1), default=2000, metavar="N", help="Records a second (2000)."
)
@click.option(
    "--symbols", type=click.IntRange(1), metavar="N", help="How many (20); venues have their own."
)
@click.option("--venues", is_flag=True, help="Follow fake Binance, Coinbase and Kraken instead.")
@click.option("--overload", is_flag=True, help="Overload the writer again and again.")
@click.option(
    "--faults",
    type=click.IntRange(0, 10_000),
    default=6,
    metavar="N",
    help="How many each venue commits in ten minutes (6).",
)
@click.option(
    "--port", type=click.IntRange(1, 65_535), metavar="N", help="K2_SERVE_PORT, or a free one."
)
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep its log and tables here; otherwise they are gone with it.",
)
@click.pass_context
def command(
    context: click.Context,
    rate: int,
    symbols: int | None,
    venues: bool,
    overload: bool,
    faults: int,
    port: int | None,
    no_browser: bool,
    home: Path | None,
) -> int:
    """A simulated market through log, writer and tables to a page with live candles.

    With --venues it is traded on servers of this machine that speak the protocols of Binance,
    Coinbase and Kraken, with a fault now and then, and the live feeds follow them. With --overload
    surges come that the writer cannot take, by thresholds scaled down: the page shows its level
    rise and fall, and what it sheds come in. Ctrl-C ends it cleanly. Whatever K2_HOME says, it
    keeps to a folder of its own.
    """
    kept = home or context.find_root().obj
    if venues and symbols is not None:
        raise BadInput("--symbols and --venues exclude each other")
    if venues and overload:
        raise BadInput("--overload and --venues exclude each other")
    with _folder(kept) as folder, ExitStack() as stack:
        environment = {k: v for k, v in os.environ.items() if not _is_of_another_home(k)}
        if overload:
            environment = {**SCALED_DOWN, **environment}
        settings = load_settings(folder, environment)
        host = settings.serve.host
        chosen = port or free_port(host, settings.serve.port)
        check_port(host, chosen)
        stop = stack.enter_context(stop_on_signals())
        if venues:
            market = stack.enter_context(_venues(folder, rate, faults))
        else:
            market = _simulator(symbols or 20, rate, ("shed",) if overload else ())
        say(f"starting {market.made_of}, the writer and the server")
        show = partial(_show, url_of(host, chosen), folder, market, not no_browser)
        stack.enter_context(_beside(show))
        if overload:
            stack.enter_context(_beside(partial(_overload, url_of(host, chosen), settings)))
        code = Supervisor(parts_of(settings, market.feeds, chosen), say_of, environment).run(stop)
    say("ended" if kept else "ended, and its folder is gone")
    return code


@dataclass(frozen=True)
class _Market:
    """What the demo shows: what it is made of, in words, the feeds' URLs, what can be typed."""

    made_of: str
    size: str
    feeds: list[str]
    typed: tuple[str, ...]


def _simulator(symbols: int, rate: int, typed: tuple[str, ...]) -> _Market:
    feed = f"simulator:?symbols={symbols}&rate={rate}"
    size = f"{symbols} symbols, {rate:,} records/s"
    return _Market("a simulated market", size, [feed], (*_TYPED, *typed))


@contextmanager
def _venues(folder: Path, rate: int, faults: int) -> Iterator[_Market]:
    """The three venues as servers of this process, and the feeds that follow them."""
    from k2.venues import Trading, names, open_venue, symbols_of

    if any(folder.glob("*.db")):
        raise BadInput(
            "a market of venues begins anew, and its trades would have the ids of those before",
            place=str(folder),
            hint="name a folder that is not there yet",
        )
    folder.mkdir(parents=True, exist_ok=True)
    feeds = []
    with ExitStack() as stack:
        for seed, name in enumerate(names()):
            symbols = symbols_of(name)
            trading = Trading(symbols, max(1, rate // len(names())), seed, history=_HISTORY)
            # What is not written down would be kept in memory.
            truth = folder / f"truth-{name}.parquet"
            venue = open_venue(name, trading, _script(seed, faults), truth=truth)
            stack.enter_context(venue)
            feeds.append(f"{name}:{','.join(symbols)}?ws={venue.ws}&rest={venue.rest}")
        size = f"{len(feeds)} venues, {rate:,} records/s, {faults} faults of each in ten minutes"
        made_of = f"{', '.join(names())} as servers of this machine, their feeds"
        yield _Market(made_of, size, feeds, (*_TYPED, "gaps", "rejected"))


def _script(seed: int, count: int) -> "list[Fault]":
    """Faults of a whole day, `count` every ten minutes."""
    from k2.venues import random_script

    return [
        replace(fault, at=(fault.at or 0.0) + n * _SPELL_SECONDS)
        for n in range(_SPELLS)
        for fault in random_script(1_000 * seed + n, count, _SPELL_SECONDS)
    ]


@contextmanager
def _beside(work: Callable[[Callable[[float], bool]], None]) -> Iterator[None]:
    """Run `work` in a thread meanwhile; what it is given says whether to give up."""
    ended = threading.Event()
    worker = threading.Thread(target=work, args=(ended.wait,))
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join()


def _show(
    url: str, folder: Path, market: _Market, browse: bool, given_up: Callable[[float], bool]
) -> None:
    if wait_until_ready(url, given_up):
        _tell(url, folder, market)
        if browse:
            _open_page(url)


def _overload(url: str, settings: Settings, given_up: Callable[[float], bool]) -> None:
    if wait_until_ready(url, given_up):
        make_surges(settings, say, given_up)


def _is_of_another_home(variable: str) -> bool:
    return variable in ("K2_HOME", "K2_LOG", "K2_REGISTRY", "K2_LAKE")


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="k2-demo-") as folder:
        yield Path(folder)


def _tell(url: str, folder: Path, market: _Market) -> None:
    k2 = _command_name()
    say("")
    say(f"  K2 is running: {url}", colour="green")
    say(f"  {market.size}, from the feed through log and tables to the page; in another terminal:")
    for what in market.typed:
        say(f"    {k2} --home {folder} {what}")
    say("  Ctrl-C ends it")
    say("")


def _command_name() -> str:
    """How this command was called, as short as it can be typed again from here."""
    called = Path(sys.argv[0])
    if called.name != "k2":
        return "k2"
    short = os.path.relpath(called)
    return min(str(called), short, key=len)


def _open_page(url: str, browse: Callable[[str], bool] = webbrowser.open) -> None:
    # Without a display a text browser would take over this terminal.
    on_linux = sys.platform.startswith("linux")
    if not on_linux or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        browse(url)
