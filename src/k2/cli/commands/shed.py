"""Records that were left in the log under overload, and bringing them in."""

from k2.cli.ledgers import ledger_group
from k2.cli.options import need_home, output_options, settings_option
from k2.cli.show import Output, say
from k2.cli.stores import opened_stores, stop_on_signals, writer_options
from k2.settings import Settings

command = ledger_group(
    "shed",
    "The newest entries of what was left in the log under overload, and of what of it came in.",
    [
        "event",
        "ingestion_timestamp",
        "kind",
        "exchange",
        "level",
        "tiers",
        "records",
        "log_partition",
        "log_offset",
        "end_offset",
    ],
    filters=("exchange", "kind"),
)


@command.command("backfill")
@output_options
@settings_option
def backfill(settings: Settings, output: Output) -> int:
    """Bring in now what was shed; a writer does the same by itself once it has nothing else to do.

    Nothing is doubled, however often this runs and whoever does the same beside it.
    """
    import pyarrow as pa

    from k2.cli.main import INTERRUPTED
    from k2.ingest import Writer
    from k2.lake import RECORD_TABLES
    from k2.query import Answer

    need_home(settings)
    with opened_stores(settings) as stores, stop_on_signals() as stop:

        def waiting() -> dict[str, int]:
            return {
                name: sum(each.records for each in stores.lake.table(name).snapshot().shed)
                for name in RECORD_TABLES
                if stores.lake.has(name)
            }

        before = waiting()
        writer = Writer(stores.log, stores.registry, stores.lake, writer_options(settings))
        writer.run(stop, until_caught_up=True)
        left = waiting()
        stopped = stop()
    rows = [
        {"kind": name, "brought_in": count - left[name], "waiting": left[name]}
        for name, count in before.items()
        if count
    ]
    empty = pa.table(
        {name: pa.array([], pa.string()) for name in ("kind", "brought_in", "waiting")}
    )
    table = pa.Table.from_pylist(rows) if rows else empty
    output.write(Answer(table, {"rows": len(rows)}), document={"kinds": rows})
    if not rows:
        say("nothing that was shed waits in the log")
    if stopped:
        say("stopped: run it again to go on, nothing is doubled")
        return INTERRUPTED
    return 0
