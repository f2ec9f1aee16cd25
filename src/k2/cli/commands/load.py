"""A file of records into the log, and through to the tables."""

import time
from pathlib import Path

import click

from k2.cli.main import INTERRUPTED
from k2.cli.options import output_options, settings_option
from k2.cli.show import Output, say
from k2.cli.stores import opened_stores, stop_on_signals, writer_options
from k2.settings import Settings

KINDS = ("trades", "quotes", "corrections", "instruments", "dividends", "splits")


@click.command("load")
@click.argument("file", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="What the records are; of a .dbn or ITCH file all that it holds, if left out.",
)
@click.option(
    "--mapping",
    metavar="NAME|FILE.toml",
    help="What the columns mean: a built-in mapping such as asx, or a file; .dbn, ITCH need none.",
)
@click.option("--symbol", metavar="NAME", help="Of every record, where the file does not say.")
@click.option("--exchange", metavar="NAME", help="In place of the mapping's.")
@click.option(
    "--instruments",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Tells symbols by company id.",
)
@click.option(
    "--direct",
    is_flag=True,
    help="Straight into the tables, not through the log: for history in bulk.",
)
@click.option("--strict", is_flag=True, help="End with 1 if any record was rejected.")
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    file: tuple[Path, ...],
    kind: str | None,
    mapping: str | None,
    symbol: str | None,
    exchange: str | None,
    instruments: Path | None,
    direct: bool,
    strict: bool,
) -> int:
    """Load FILE… (text, .dbn or ITCH; plain, .gz, .zip, .zst) and tell its records' fates.

    A record that cannot be read is rejected and kept whole; the rest goes on. Loading a file again,
    or a mended copy of it, doubles nothing. If FILE.CHECKSUM lies beside FILE, its SHA-256 is
    verified first.

    With --direct the files themselves stand in for the log, in which nothing of them is: keep them,
    if `k2 rebuild` is to make their rows again one day. Fates, ledgers and `k2 audit` are the same.
    """
    import pyarrow as pa

    from k2.cli.loading import load, load_direct
    from k2.ingest.sources import Asked
    from k2.query import Answer

    began = time.monotonic()
    asked = Asked(kind, mapping, symbol, exchange, instruments, settings.clock_skew)
    with opened_stores(settings) as stores, stop_on_signals() as stop:
        options = writer_options(settings)
        if direct:
            done = load_direct(file, asked, stores, options, stop)
        else:
            done = load(file, asked, stores, settings.log.partitions, options, stop)
        stopped = stop()
    counts: dict[str, object] = {
        "read": done.read,
        "committed": done.fates.committed,
        "duplicate": done.fates.duplicate,
        "rejected": done.fates.rejected,
        "seconds": round(time.monotonic() - began, 3),
    }
    table = pa.table({name: [value] for name, value in counts.items()})
    if done.fates.shed:
        counts["shed"] = done.fates.shed
    if done.fates.retired:
        counts["retired"] = done.fates.retired
    if done.verified:
        counts["verified"] = done.verified
    output.write(Answer(table, {"rows": 1}), document=counts)
    for name in done.verified:
        say(f"{name}: SHA-256 verified")
    for line in done.refused:
        say(line)
    if done.fates.rejected:
        say("they are kept whole: `k2 rejected` shows them; mend the file and load it again")
    if done.fates.shed:
        say(f"{done.fates.shed:,} are shed, as writers are overloaded: they come in by themselves")
    if done.fates.retired:
        late = done.fates.retired
        say(f"{late:,} are of days that are not kept any more: `k2 retired` lists them")
    if stopped:
        say("stopped: load the same again to go on, nothing is doubled")
        return INTERRUPTED
    return 1 if strict and done.fates.rejected else 0
