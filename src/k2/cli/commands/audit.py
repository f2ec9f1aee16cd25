"""Every record of the log and its fate: the proof that none is lost and none counted twice."""

from typing import Final

import click

from k2.cli.options import need_home, output_options, settings_option
from k2.cli.show import Output, say
from k2.cli.stores import opened_stores
from k2.settings import Settings

_FATES: Final = ("duplicate", "rejected", "shed", "absent", "lost", "in_flight")


@click.command("audit")
@output_options
@settings_option
def command(settings: Settings, output: Output) -> int:
    """Count each record's fate, for every partition of the log; the system may be running.

    Ends with 1 and names the first offset that differs, if one does.
    """
    import pyarrow as pa

    from k2.ingest import audit
    from k2.query import Answer

    need_home(settings)
    with opened_stores(settings) as stores:
        found = audit(stores.log, stores.lake)
    document = found.to_dict()
    rows = [dict(vars(partition)) for partition in found.partitions]
    if output.is_table:
        # Fates that no record had would leave no room for those that some had.
        none = {fate for fate in _FATES if not any(row[fate] for row in rows)}
        rows = [{k: v for k, v in row.items() if k not in none} for row in rows]
    table = pa.Table.from_pylist(rows) if rows else pa.table({"topic": pa.array([], pa.string())})
    output.write(Answer(table, {"rows": len(rows)}), document=document)
    for partition in found.partitions:
        if partition.problem is not None:
            place = f"{partition.topic} partition {partition.partition}"
            at = partition.first_wrong_offset
            say(f"k2: {place}{'' if at is None else f', offset {at:,}'}: {partition.problem}")
    if found.ok and output.is_table:
        say("every record has exactly one fate")
    return 0 if found.ok else 1
