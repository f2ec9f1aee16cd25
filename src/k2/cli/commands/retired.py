"""What retention took out of the tables, and what of it came again."""

from k2.cli.ledgers import ledger_command

command = ledger_command(
    "retired",
    "The newest entries of days that are not kept any more: what was taken out of the tables by "
    "K2_RETENTION, and what came later.",
    [
        "event",
        "committed_at",
        "kind",
        "exchange",
        "exchange_date",
        "tier",
        "symbol_count",
        "records",
        "rule",
        "commit",
    ],
    filters=("exchange", "kind"),
)
