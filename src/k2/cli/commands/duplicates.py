"""Records that were there before, and which row each of them repeats."""

from k2.cli.ledgers import ledger_command

command = ledger_command(
    "duplicates",
    "The newest records that were duplicates, each with the row that it repeats.",
    [
        "kind",
        "exchange",
        "symbol",
        "identity",
        "log_offset",
        "of_topic",
        "of_partition",
        "of_offset",
    ],
)
