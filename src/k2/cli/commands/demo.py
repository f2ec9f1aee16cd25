"""All of K2 on this machine with a simulated market, and nothing else needed."""

import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from k2.cli.machine import check_port, free_port, parts_of, url_of, wait_until_ready
from k2.cli.show import say
from k2.cli.stores import stop_on_signals
from k2.cli.supervise import Supervisor
from k2.settings import load_settings


@click.command("demo")
@click.option(
    "--rate", type=click.IntRange(1), default=2000, metavar="N", help="Records a second (2000)."
)
@click.option("--symbols", type=click.IntRange(1), default=20, metavar="N", help="How many (20).")
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
    symbols: int,
    port: int | None,
    no_browser: bool,
    home: Path | None,
) -> int:
    """A simulated market through log, writer and tables to a page with live candles.

    Ctrl-C ends it cleanly. Whatever K2_HOME says, it keeps to a folder of its own.
    """
    kept = home or context.find_root().obj
    with _folder(kept) as folder, stop_on_signals() as stop:
        environment = {k: v for k, v in os.environ.items() if not _is_of_another_home(k)}
        settings = load_settings(folder, environment)
        host = settings.serve.host
        chosen = port or free_port(host, settings.serve.port)
        check_port(host, chosen)
        feed = f"simulator:?symbols={symbols}&rate={rate}"
        ended = threading.Event()

        def show() -> None:
            if wait_until_ready(url_of(host, chosen), ended.wait):
                _tell(url_of(host, chosen), folder, f"{symbols} symbols, {rate:,} records/s")
                if not no_browser:
                    _open_page(url_of(host, chosen))

        shower = threading.Thread(target=show)
        say("starting a simulated market, the writer and the server")
        shower.start()
        try:
            parts = parts_of(folder, [feed], host, chosen)
            return Supervisor(parts, say, environment).run(stop)
        finally:
            ended.set()
            shower.join()
            say("ended" if kept else "ended, and its folder is gone")


def _is_of_another_home(variable: str) -> bool:
    return variable in ("K2_HOME", "K2_LOG", "K2_REGISTRY", "K2_LAKE")


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="k2-demo-") as folder:
        yield Path(folder)


def _tell(url: str, folder: Path, market: str) -> None:
    k2 = _command_name()
    say("")
    say(f"  K2 is running: {url}", colour="green")
    say(f"  {market}, from the feed through log and tables to the page; in another terminal:")
    for what in ("bars BTCUSDT --interval 1m --last 20", "stats", "audit"):
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
