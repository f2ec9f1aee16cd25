"""The log into the tables, each record exactly once."""

import click

from k2.cli.options import settings_option
from k2.cli.show import say
from k2.cli.stores import opened_stores, stop_on_signals, writer_options
from k2.settings import Settings


@click.command("ingest")
@click.option("--until-caught-up", is_flag=True, help="End once all that the log holds is in.")
@settings_option
def command(settings: Settings, until_caught_up: bool) -> None:
    """Bring the log's records into the tables until Ctrl-C; what is gathered is committed first.

    Killed at any moment, it goes on from the tables' own offsets and repeats nothing.
    """
    from k2.ingest import Writer, writing

    with (
        opened_stores(settings) as stores,
        stop_on_signals() as stop,
        writing(settings.lake.folder) as free,
    ):
        if not free:
            # It may hang or be stopped; if it is not, the tables let only one of us commit.
            say("another writer holds the sign of this lake; taking over from it")
        writer = Writer(stores.log, stores.registry, stores.lake, writer_options(settings))
        writer.run(stop, until_caught_up=until_caught_up)
