"""Holes that feeds noticed in a venue's numbering."""

from k2.cli.ledgers import ledger_command

command = ledger_command(
    "gaps",
    "The newest holes that feeds noticed in a venue's numbering.",
    [
        "exchange",
        "symbol",
        "kind",
        "first_missing",
        "last_missing",
        "from_timestamp",
        "to_timestamp",
        "cause",
    ],
)
