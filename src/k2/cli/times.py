"""Times as people type them: ISO 8601 with a zone, a date, or a distance to now (`-15m`)."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from k2.errors import BadInput

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_when(text: str, now: Callable[[], datetime]) -> datetime | date:
    """The instant or date that `text` spells; a date means midnight in each exchange's zone.

    Raises `BadInput` for a time without a zone (it would be a guess) and for anything else.
    """
    given = text.strip()
    if given.lower() == "now":
        return now()
    if match := re.fullmatch(r"-(\d{1,6})([smhdw])", given):
        try:
            return now() - timedelta(**{_UNITS[match[2]]: int(match[1])})
        except OverflowError as error:
            raise _unreadable(text) from error
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", given):
        return parse_day(given)
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise _unreadable(text) from error
    if moment.tzinfo is None:
        raise BadInput(
            f"{text!r} does not say in which zone it is",
            expected=f"a zone behind it, such as {given}Z or {given}+11:00",
        )
    return moment.astimezone(UTC)


def parse_day(text: str) -> date:
    """The date that `text` spells (`2014-03-11`). Raises `BadInput`."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError as error:
        raise BadInput(f"{text!r} is no date", expected="a date such as 2014-03-11") from error


def _unreadable(text: str) -> BadInput:
    return BadInput(
        f"{text!r} is no time",
        expected="2014-03-10T10:00:00+11:00, a date (2014-03-10), or a distance to now (-15m)",
    )
