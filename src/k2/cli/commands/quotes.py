"""Quotes: best bid and ask, in the order in which they stood."""

from k2.cli.records import records_command

command = records_command(
    "quotes",
    "Quotes of these symbols (all, if none is named): best bid and ask as they stood, in order.",
    ["symbol", "exchange", "timestamp", "bid_price", "bid_quantity", "ask_price", "ask_quantity"],
)
