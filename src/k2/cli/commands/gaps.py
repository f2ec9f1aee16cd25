"""Holes that feeds noticed in a venue's numbering."""

from k2.cli.ledgers import ledger_command

command = ledger_command("gaps", "The newest holes that feeds noticed in a venue's numbering.")
