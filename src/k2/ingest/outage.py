"""Servers that are away: said once, however many lines of a writer meet it."""

import logging

logger = logging.getLogger(__name__)


class Outage:
    """Log, registry or lake are away for all lines of a writer at once: told once, and its end."""

    def __init__(self) -> None:
        self._is_told = False

    def goes_on(self, table: str, error: Exception) -> None:
        """It was met by the line of this table."""
        if not self._is_told:
            logger.warning(
                "%s: %s; tried again until it works", table, error, extra={"table": table}
            )
        self._is_told = True

    def ended(self) -> None:
        """A line goes on."""
        if self._is_told:
            logger.warning("it works again")
        self._is_told = False
