"""Records that were there before, and which row each of them repeats."""

from typing import TYPE_CHECKING

from k2.cli.ledgers import ledger_command

if TYPE_CHECKING:
    import pyarrow as pa


def _placed(table: "pa.Table") -> "pa.Table":
    """The table with `place` and `repeats`, both TOPIC/PARTITION/OFFSET."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, prefix in (("place", "log_"), ("repeats", "of_")):
        parts = (
            table[prefix + part].cast(pa.string()) for part in ("topic", "partition", "offset")
        )
        table = table.append_column(name, pc.binary_join_element_wise(*parts, "/"))
    return table


command = ledger_command(
    "duplicates",
    "The newest records that were duplicates, each with the row that it repeats.",
    ["kind", "exchange", "symbol", "identity", "place", "repeats"],
    _placed,
    filters=("exchange", "symbol", "kind"),
)
