"""Records that could not be taken: why, and where they stand."""

from typing import TYPE_CHECKING

from k2.cli.ledgers import ledger_group
from k2.cli.options import need_home, output_options, settings_option
from k2.cli.show import Output
from k2.cli.stores import opened_stores
from k2.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa


def _placed(table: "pa.Table") -> "pa.Table":
    """The table with `place`: FILE:LINE where a file is known, TOPIC/PARTITION/OFFSET elsewhere."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def joined(by: str, *names: str) -> "pa.ChunkedArray":
        texts = (table[name].cast(pa.string()) for name in names)
        return pc.binary_join_element_wise(*texts, by)

    in_log = joined("/", "log_topic", "log_partition", "log_offset")
    return table.append_column("place", pc.coalesce(joined(":", "file", "line"), in_log))


command = ledger_group(
    "rejected",
    "The newest records that were rejected: why, where they came from and stand in the log.",
    ["kind", "exchange", "place", "column", "reason", "expected", "raw"],
    _placed,
    filters=("exchange", "symbol", "kind"),
)


@command.command("redrive")
@output_options
@settings_option
def redrive(settings: Settings, output: Output) -> None:
    """Put rejected records that can be read now back at the log's end, each once.

    They are decided anew there; their old place stays rejected. What a feed could not read from a
    file is not among them: mend the file and load it again.
    """
    import pyarrow as pa

    from k2.ingest import redrive
    from k2.query import Answer

    need_home(settings)
    with opened_stores(settings) as stores:
        done = redrive(stores.log, stores.registry, stores.lake, settings.clock_skew)
    counts = dict(vars(done))
    table = pa.table({name: [value] for name, value in counts.items()})
    output.write(Answer(table, {"rows": 1}), document=counts)
