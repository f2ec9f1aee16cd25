"""Numbers that are missing: holes that feeds noticed, and writers."""

from dataclasses import asdict
from datetime import UTC, datetime

import click

from k2.cli.ledgers import ledger_group
from k2.cli.main import INTERRUPTED
from k2.cli.options import need_home, output_options, settings_option
from k2.cli.show import Output, say
from k2.cli.stores import opened_stores, stop_on_signals, writer_options
from k2.settings import Settings

command = ledger_group(
    "gaps",
    "The newest holes in a venue's numbering that feeds or writers noticed.",
    [
        "exchange",
        "symbol",
        "kind",
        "first_missing",
        "last_missing",
        "missing",
        "from_timestamp",
        "to_timestamp",
        "cause",
        "state",
        "refill_from",
    ],
    filters=("exchange", "symbol", "kind", "cause", "state"),
)


@command.command("backfill")
@click.option(
    "--exchange", "exchanges", multiple=True, metavar="NAME", help="Of these alone; repeatable."
)
@click.option(
    "--symbol", "symbols", multiple=True, metavar="NAME", help="Of these alone; repeatable."
)
@click.option("--rest", metavar="URL", help="Where the venue's REST interface is, if elsewhere.")
@output_options
@settings_option
def backfill(
    settings: Settings,
    output: Output,
    exchanges: tuple[str, ...],
    symbols: tuple[str, ...],
    rest: str | None,
) -> int:
    """Ask the venues again for trades that are missing in gaps, and bring in what they give.

    What is in the tables by now is not asked for; nothing is doubled, however often this runs. What
    the venue does not have either stays a gap. Gaps of quotes cannot be filled: no venue has them.
    """
    import pyarrow as pa

    from k2.cli.progress import bar
    from k2.ingest import PacedProducer, Writer, pace_of, settle
    from k2.ingest.backfill import Backfill, Backfilled, find_gaps
    from k2.query import Answer

    need_home(settings)
    with opened_stores(settings) as stores, stop_on_signals() as stop:
        gaps = find_gaps(stores.lake, exchanges, symbols)
        options = writer_options(settings)
        pace = pace_of(stores.lake, options, stop)
        producer = PacedProducer(stores.log, stores.registry, settings.log.partitions, pace)
        run = Backfill(producer, gaps, rest, lambda: datetime.now(UTC))
        with bar("asking the venues") as shown:
            done = run.run(stop, shown.tell)

        def open_writer() -> Writer:
            return Writer(stores.log, stores.registry, stores.lake, options)

        settle(stores.lake, settings.lake.folder, run.sent, open_writer, stop)
        stopped = stop()
    rows = [asdict(line) for line in done]
    empty = {name: pa.array([], pa.string()) for name in Backfilled.__dataclass_fields__}
    table = pa.Table.from_pylist(rows) if rows else pa.table(empty)
    output.write(Answer(table, {"rows": len(rows)}), document={"symbols": rows})
    for exchange in sorted({line.exchange for line in done if not line.has_history}):
        say(f"{exchange}: there is no venue of that name whose past can be asked for")
    if not rows:
        say("no trade is missing in any gap whose range is known")
    if stopped:
        say("stopped: run it again to go on, nothing is doubled")
        return INTERRUPTED
    return 0
