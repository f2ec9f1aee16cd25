"""Records that could not be taken: why, and where they stand."""

from typing import TYPE_CHECKING

from k2.cli.ledgers import ledger_command

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


command = ledger_command(
    "rejected",
    "The newest records that were rejected: why, where they came from and stand in the log.",
    ["kind", "exchange", "place", "column", "reason", "expected", "raw"],
    _placed,
)
