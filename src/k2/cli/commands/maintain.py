"""Tables kept quick: small files merged and sorted, those that nothing needs removed."""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from k2.cli.options import need_home, open_reader_of, output_options, settings_option
from k2.cli.retention import Retention, sentences, to_document
from k2.cli.show import Output, say
from k2.cli.stores import opened_stores, stop_on_signals
from k2.errors import BadInput, K2Error, Unavailable
from k2.memory import release_memory
from k2.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.cli.stores import Stores
    from k2.lake import Maintained
    from k2.query import Reader

TABLES: Final = ("trades", "quotes", "corrections", "instruments", "dividends", "splits")
LEDGERS: Final = ("rejected", "duplicates", "shed", "retired", "gaps", "commits", "pins")
_LOOK: Final = 0.2

logger = logging.getLogger(__name__)


@click.command("maintain")
@click.argument("table", nargs=-1, type=click.Choice((*TABLES, *LEDGERS)))
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option(
    "--buckets",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Have days settle into so many buckets of symbols from now on (16); files stay.",
)
@click.option("--follow", is_flag=True, help="Again and again until Ctrl-C, as `k2 up` does.")
@output_options
@settings_option
def command(
    settings: Settings,
    output: Output,
    table: tuple[str, ...],
    dry_run: bool,
    buckets: int | None,
    follow: bool,
) -> None:
    """Merge the small files of TABLE… (all that there are), and remove what nothing needs.

    Files of a day that is over become a few for each bucket of symbols, sorted by symbol and time.
    Every row keeps its commit, so that answers as of any time stay as they are. A file that no kept
    snapshot needs is removed K2_REMOVE_AFTER_SECONDS after it was first found so. Large files of
    trades are rolled up besides, for bars. Ends of exchange days get their names, such as
    ASX-2026-11-20-close. Days that K2_RETENTION does not keep are taken out, but for what pins
    hold; without that file all is kept. Writers and readers may run meanwhile, and it may be
    stopped at any moment.
    """
    from k2.query import Answer

    if follow and (dry_run or buckets):
        raise BadInput("--follow goes with no other option", hint="set the buckets first")
    if buckets and dry_run:
        raise BadInput("--buckets changes tables, --dry-run changes nothing")
    if follow:
        # Beside a writer that is yet to make the home.
        _follow(settings, table)
        return
    need_home(settings)
    with opened_stores(settings) as stores, stop_on_signals() as stop:
        names = [name for name in table or stores.lake.tables() if stores.lake.has(name)]
        if buckets is not None:
            for name in names:
                if name in TABLES:
                    stores.lake.table(name).set_buckets(buckets)
        retention = Retention(settings)
        _check_exchanges(stores, retention)
        # First: the end of a day cannot be named once nothing is left of it.
        if not dry_run:
            _tag_closes(stores)
        retired = [
            retention.run(stores, name, dry_run=dry_run, may_go_on=lambda: not stop())
            for name in names
        ]
        found = [
            _maintain(stores, settings, name, dry_run=dry_run, may_go_on=lambda: not stop())
            for name in names
        ]
        if "trades" in names and not dry_run:
            with open_reader_of(settings) as reader:
                _roll_up(reader, lambda: not stop())
    rows = [_row(each) for each in found]
    tables = [{**row, "retired": to_document(of)} for row, of in zip(rows, retired, strict=True)]
    document = {"dry_run": dry_run, "tables": tables}
    output.write(Answer(_to_table(rows), {"rows": len(rows)}), document=document)
    if output.is_table and (waiting := sum(each.removed.waiting for each in found)):
        say(f"{waiting:,} files that nothing needs stay for now: readers may still be at them")
    for of in filter(None, retired) if output.is_table else ():
        for line in sentences(of, dry_run=dry_run):
            say(line)


def _check_exchanges(stores: "Stores", retention: Retention) -> None:
    """Say where a rule is for an exchange that there is not: it may be misspelt."""
    from k2.ingest.judging import unknown_exchanges

    for name in unknown_exchanges(stores.lake, retention.read()):
        say(f"retention: no table has records of the exchange {name}")


def _maintain(
    stores: "Stores",
    settings: Settings,
    name: str,
    *,
    dry_run: bool = False,
    may_go_on: Callable[[], bool],
) -> "Maintained":
    from k2.cli.progress import bar
    from k2.lake import maintain

    with bar(f"maintaining {name}") as shown:
        return maintain(
            stores.lake,
            name,
            after=settings.lake.remove_after,
            dry_run=dry_run,
            may_go_on=may_go_on,
            tell=shown.tell,
        )


def _tag_closes(stores: "Stores") -> None:
    """Name the states in which exchange days ended, of those that are over."""
    from k2.lake import tag_closes

    for name in tag_closes(stores.lake, datetime.now(UTC)):
        logger.info("%s: tagged", name)


def _roll_up(reader: "Reader", may_go_on: Callable[[], bool]) -> None:
    """Make the partial bars of files of trades that have none."""
    done = reader.roll_up(may_go_on)
    if done.files:
        logger.info("trades: %d files rolled up, %d rows", done.files, done.rows)


def _follow(settings: Settings, tables: tuple[str, ...]) -> None:
    """Maintain the tables now and then, behind whatever else runs on this machine."""
    with suppress(OSError):
        os.nice(10)
    with (
        opened_stores(settings) as stores,
        open_reader_of(settings) as reader,
        stop_on_signals() as stop,
    ):
        retention = Retention(settings)
        while not stop():
            began = time.monotonic()
            try:
                _tag_closes(stores)
            except (K2Error, OSError) as error:
                logger.warning("ends of days have no names yet: %s", error)
            for name in tables or stores.lake.tables():
                _retire(stores, retention, name, stop)
                try:
                    if stop() or not stores.lake.has(name):
                        continue
                    done = _maintain(
                        stores, settings, name, may_go_on=lambda: _when_calm(stores, stop)
                    )
                    if name == "trades":
                        _roll_up(reader, lambda: _when_calm(stores, stop))
                except (K2Error, OSError) as error:
                    # The next round tries again; the table is as it was.
                    logger.warning("%s: not maintained: %s", name, error, extra={"table": name})
                    continue
                if done.commits or done.removed.files:
                    logger.info(
                        "%s: %d files are %d, %d removed",
                        name,
                        done.files_before,
                        done.files,
                        done.removed.files,
                    )
            release_memory()
            while (
                not stop()
                and time.monotonic() - began < settings.lake.maintain_every.total_seconds()
            ):
                time.sleep(_LOOK)


def _retire(stores: "Stores", retention: Retention, name: str, stop: Callable[[], bool]) -> None:
    """Take out what is not kept; what is wrong with the file of it, is told and nothing else."""
    try:
        of = retention.run(stores, name, may_go_on=lambda: _when_calm(stores, stop))
    except (K2Error, OSError) as error:
        logger.warning("%s: nothing is retired: %s", name, error, extra={"table": name})
        return
    if of is not None and of.commits:
        for line in sentences(of, dry_run=False):
            logger.info("%s", line)


def _when_calm(stores: "Stores", stop: Callable[[], bool]) -> bool:
    """Wait until no writer is overloaded; False once it is time to stop."""
    from k2.ingest import Level, levels

    while not stop():
        try:
            now = datetime.now(UTC)
            if all(each.level is Level.NORMAL for each in levels(stores.log, now)):
                return True
        except Unavailable as error:
            logger.info("whether writers are overloaded is not known now: %s", error)
            return True
        time.sleep(_LOOK)
    return False


def _row(of: "Maintained") -> dict[str, str | int]:
    return {
        "table": of.table,
        "files_before": of.files_before,
        "files": of.files,
        "bytes_before": of.bytes_before,
        "bytes": of.bytes,
        "commits": of.commits,
        "rows_rewritten": of.rows_rewritten,
        "removed_files": of.removed.files,
        "removed_bytes": of.removed.bytes,
        "waiting_files": of.removed.waiting,
        "waiting_bytes": of.removed.waiting_bytes,
        "metadata_removed": of.metadata_removed,
    }


def _to_table(rows: list[dict[str, str | int]]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(rows) if rows else pa.table({"table": pa.array([], pa.string())})
