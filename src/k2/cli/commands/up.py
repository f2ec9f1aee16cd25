"""Feeds, writers and server as the settings name them, supervised, until Ctrl-C."""

import os
import threading

import click

from k2.cli.machine import check_port, parts_of, url_of, wait_until_ready
from k2.cli.options import settings_option
from k2.cli.show import say, say_of
from k2.cli.stores import stop_on_signals
from k2.cli.supervise import Supervisor
from k2.settings import Settings


@click.command("up")
@click.option("--feed", "feeds", multiple=True, metavar="URL", help="In place of K2_FEEDS.")
@settings_option
def command(settings: Settings, feeds: tuple[str, ...]) -> int:
    """Run every part as a process of its own and start again what dies, until Ctrl-C.

    The feeds are those of K2_FEEDS or --feed; without any, writers and server run alone.
    K2_WRITERS says how many writers share the work.
    """
    feeds = feeds or settings.feeds
    if not feeds:
        say("no feed is set (K2_FEEDS): writers and server run alone")
    host, port = settings.serve.host, settings.serve.port
    writers = "the writer" if settings.writers == 1 else f"{settings.writers} writers"
    say(f"starting {len(feeds)} feeds, {writers} and the server")
    # Else somebody else's server would be taken for this one.
    check_port(host, port)
    ended = threading.Event()

    def tell() -> None:
        if wait_until_ready(url_of(host, port), ended.wait):
            say(f"K2 is ready: {url_of(host, port)}")

    teller = threading.Thread(target=tell)
    with stop_on_signals() as stop:
        teller.start()
        try:
            parts = parts_of(settings, feeds, port)
            return Supervisor(parts, say_of, os.environ).run(stop)
        finally:
            ended.set()
            teller.join()
