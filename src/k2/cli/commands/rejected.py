"""Records that could not be taken: why, and where they stand."""

from k2.cli.ledgers import ledger_command

command = ledger_command(
    "rejected",
    "The newest records that were rejected: why, where they came from and stand in the log.",
    ["kind", "exchange", "file", "line", "reason", "expected", "raw"],
)
