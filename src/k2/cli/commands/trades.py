"""Trades, in the order in which they happened."""

from k2.cli.records import records_command

command = records_command(
    "trades",
    "Trades of these symbols (all, if none is named), in the order in which they happened.",
    [
        "symbol",
        "exchange",
        "timestamp",
        "price",
        "quantity",
        "side",
        "conditions",
        "price_forming",
        "trade_id",
    ],
)
