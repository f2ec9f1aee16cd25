"""Every record of the log and its fate: the proof that none is lost and none counted twice."""

from contextlib import suppress
from typing import Final

import click

from k2.cli.options import need_home, output_options, settings_option
from k2.cli.show import Output, say
from k2.cli.stores import opened_stores
from k2.errors import NotFound, Unavailable
from k2.settings import Settings

_FATES: Final = ("duplicate", "rejected", "retired", "shed", "absent", "lost", "in_flight")


@click.command("audit")
@click.option(
    "--since",
    type=click.Choice(["last"]),
    help="Go on where the last clean audit of all ended: what it verified is not read again.",
)
@click.option(
    "--partition",
    "places",
    multiple=True,
    metavar="TOPIC[PARTITION]",
    help="Of this one alone; repeatable.",
)
@output_options
@settings_option
def command(settings: Settings, output: Output, since: str | None, places: tuple[str, ...]) -> int:
    """Count each record's fate, for every partition of the log; the system may be running.

    Ends with 1 and names the first offset that differs, if one does.
    """
    import pyarrow as pa

    from k2.ingest import audit, keep_verified, read_verified, to_partition
    from k2.query import Answer

    need_home(settings)
    wanted = [(str(topic), number) for topic, number in map(to_partition, places)]
    with opened_stores(settings) as stores:
        verified = read_verified(stores.lake) if since else {}
        if since and not verified:
            say("no audit was clean yet: all of it is read")
        found = audit(stores.log, stores.lake, verified=verified, partitions=wanted)
        there = {(part.topic, part.partition) for part in found.partitions}
        for named, place in zip(wanted, places, strict=True):
            if named not in there:
                raise NotFound("the log has no such partition", place=place)
        with suppress(Unavailable):  # who may only read the lake may audit it
            keep_verified(stores.lake, found.verified)
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
        say("every record has exactly one fate" + (" since the last audit" if verified else ""))
    return 0 if found.ok else 1
