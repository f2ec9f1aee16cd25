"""Corrections: what venues said of trades that they had reported before."""

from k2.cli.records import records_command

command = records_command(
    "corrections",
    "Corrections of trades of these symbols (all, if none is named): busts, cancels and changes.",
    [
        "symbol",
        "exchange",
        "timestamp",
        "action",
        "trade_id",
        "target_timestamp",
        "price",
        "quantity",
        "reason",
        "has_target",
    ],
)
