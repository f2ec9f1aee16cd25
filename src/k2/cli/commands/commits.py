"""Every commit: when, which rows, up to which offsets."""

from k2.cli.ledgers import ledger_command

command = ledger_command(
    "commits",
    "The newest commits: when, how many rows, and where in the log they end.",
    ["table", "commit", "snapshot_id", "committed_at", "rows", "duplicates", "rejected"],
    filters=(),
)
