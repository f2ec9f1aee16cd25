"""Times as people type them: ISO 8601 with a zone, a date, or a distance to now.

Comes in: text and the clock's reading. Goes out: zoned datetimes in UTC, or dates.
"""

import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from k2.errors import BadInput

EXAMPLES: Final = "2014-03-10T23:00:00Z, 2014-03-11 (midnight where it is traded) or -15m"

_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_SPANS: Final = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    **{unit: _UNITS[unit] for unit in "smhd"},
}


def parse_when(text: str, now: datetime, zone: str | None = None) -> datetime | date:
    """The instant (UTC) or date that `text` means; `now` must have a zone.

    A date stays a date: midnight in the exchange's own zone, which only the query knows. `zone`
    (an IANA name) is what a time without a zone is read in; without it, such a time is refused.
    Raises `BadInput`, with examples.
    """
    trimmed = text.strip()
    if trimmed.lower() == "now":
        return now.astimezone(UTC)
    if match := re.fullmatch(r"-\s*(\d{1,9})\s*([smhdw])", trimmed, re.A):
        return _before(now, int(match[1]), _UNITS[match[2]], text)
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", trimmed, re.A):
            return date.fromisoformat(trimmed)
        return _instant(trimmed, text, ZoneInfo(zone) if zone else None)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{text!r} is no time", expected=EXAMPLES) from error


def parse_instant(text: str) -> datetime:
    """The instant (UTC) of ISO 8601 text with a zone. Raises `BadInput` for anything else."""
    try:
        return _instant(text.strip(), text, None)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{text!r} is no time", expected="2014-03-10T23:00:00Z") from error


def parse_date(text: str) -> date:
    """The date of `YYYY-MM-DD`. Raises `BadInput` for anything else."""
    try:
        if re.fullmatch(r"\s*\d{4}-\d\d-\d\d\s*", text):
            return date.fromisoformat(text.strip())
    except ValueError:
        pass
    raise BadInput(f"{text!r} is no date", expected="a date such as 2014-03-11")


def _before(now: datetime, count: int, unit: timedelta, text: str) -> datetime:
    try:
        return now.astimezone(UTC) - count * unit
    except OverflowError as error:
        raise BadInput(f"{text!r} is too long ago", expected=EXAMPLES) from error


def _instant(trimmed: str, text: str, zone: tzinfo | None) -> datetime:
    when = datetime.fromisoformat(trimmed)
    if when.tzinfo is None:
        if zone is None or not re.search(r"\d[T ]\d", trimmed):
            raise BadInput(
                f"{text!r} does not say which time zone it is in",
                expected=EXAMPLES,
                hint="end it with Z for UTC, or with an offset such as +11:00",
            )
        when = when.replace(tzinfo=zone)
    return when.astimezone(UTC)


def parse_span(text: str) -> timedelta:
    """The length of time of `5s`, `250ms`, `10m` and the like. Raises `BadInput` for others."""
    if match := re.fullmatch(r"\s*(\d{1,15})\s*(us|ms|s|m|h|d)\s*", text, re.A):
        with suppress(OverflowError):
            return int(match[1]) * _SPANS[match[2]]
    raise BadInput(
        f"{text!r} is no length of time",
        expected="a whole number of us, ms, s, m, h or d",
        hint="for example: 5s 250ms 10m",
    )


def parse_spans(text: str) -> tuple[timedelta, ...]:
    """The lengths of time of `1s,10s,1m`, each once. Raises `BadInput` for others."""
    return tuple(dict.fromkeys(parse_span(part) for part in text.split(",")))


def to_span(length: timedelta) -> str:
    """The shortest text that `parse_span` reads as this length of time."""
    units = ("d", "h", "m", "s", "ms", "us") if length else ("s",)
    unit = next(unit for unit in units if not length % _SPANS[unit])
    return f"{length // _SPANS[unit]}{unit}"
