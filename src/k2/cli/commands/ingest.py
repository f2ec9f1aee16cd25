"""The log into the tables, each record exactly once."""

from dataclasses import replace
from datetime import UTC, datetime

import click

from k2.cli.options import metrics_option, settings_option
from k2.cli.show import say
from k2.cli.stores import opened_stores, stop_on_signals, told_metrics, writer_options
from k2.settings import Settings


@click.command("ingest")
@click.option("--until-caught-up", is_flag=True, help="End once all that the log holds is in.")
@click.option(
    "--accept-loss",
    "accepted",
    multiple=True,
    metavar="TOPIC[PARTITION]",
    help="Go on behind what the log deleted before it was committed; the gap ledger keeps it.",
)
@metrics_option("K2_INGEST_METRICS_PORT")
@settings_option
def command(
    settings: Settings,
    until_caught_up: bool,
    accepted: tuple[str, ...],
    metrics_port: int | None,
) -> None:
    """Bring the log's records into the tables until Ctrl-C; what is gathered is committed first.

    Killed at any moment, it goes on from the tables' own offsets and repeats nothing. Run it more
    than once and the writers divide the partitions among them; --until-caught-up reads all of them,
    beside whoever runs. A partition of which the log lost records stops, and the others go on.
    """
    from k2.ingest import Writer, accept_loss, following, group_of
    from k2.metrics import WriterMetrics

    metrics = WriterMetrics(folders={"home": settings.home, "lake": settings.lake.folder})
    options = replace(writer_options(settings), watch=metrics)
    port = settings.metrics.ingest_port if metrics_port is None else metrics_port
    with (
        opened_stores(settings) as stores,
        stop_on_signals() as stop,
        following(settings.lake.folder) as is_held,
        told_metrics(metrics.registry, settings.metrics.host, port),
    ):
        for place in accepted:
            lost = accept_loss(stores.log, stores.lake, place, datetime.now(UTC))
            count = lost.end_offset - lost.first_offset
            say(f"{place}: {count:,} records are lost, from offset {lost.first_offset:,} on")
        if until_caught_up:
            Writer(stores.log, stores.registry, stores.lake, options).run(
                stop, until_caught_up=True
            )
            return

        def ended() -> bool:
            # A load that commits by itself holds the sign until it is done.
            is_held()
            return stop()

        membership = stores.log.join(group_of(stores.lake))
        try:
            writer = Writer(
                stores.log, stores.registry, stores.lake, options, membership=membership
            )
            writer.run(ended)
        finally:
            membership.leave()
