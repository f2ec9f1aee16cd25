"""The HTTP interface and the page."""

import click

from k2.cli.options import open_reader_of, settings_option
from k2.cli.show import say
from k2.cli.stores import opened_stores
from k2.settings import Settings


@click.command("serve")
@click.option("--host", metavar="ADDRESS", help="Where to listen (K2_SERVE_HOST; 127.0.0.1).")
@click.option(
    "--port", type=click.IntRange(0, 65_535), metavar="N", help="K2_SERVE_PORT; 0 for a free one."
)
@settings_option
def command(settings: Settings, host: str | None, port: int | None) -> None:
    """Serve the HTTP interface and the page until Ctrl-C."""
    from k2.api import Entry, Limits, Server, check_host, create_app
    from k2.ingest import Auditing, audit
    from k2.log import Producer

    host = host or settings.serve.host
    check_host(host)
    with opened_stores(settings) as stores, open_reader_of(settings, follow=True) as reader:
        auditing = Auditing(stores.log, stores.lake)
        app = create_app(
            reader,
            lambda: audit(stores.log, stores.lake).to_dict(),
            going_on=lambda: auditing.run().to_dict(),
            limits=Limits(query_seconds=settings.query.timeout.total_seconds()),
            entry=Entry(
                Producer(stores.log, stores.registry, settings.log.partitions), settings.clock_skew
            ),
        )
        server = Server(app, host, settings.serve.port if port is None else port)
        say(f"K2 listens at {server.url}")
        server.run()
