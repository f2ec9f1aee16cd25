"""How the text of a setting is read, by its kind."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final


def _read_count(text: str) -> int:
    count = int(text) if re.fullmatch(r"[0-9_]{1,18}", text) else 0
    if count < 1:
        raise ValueError(text)
    return count


def _read_percent(text: str) -> float:
    percent = _read_count(text)
    if percent > 100:
        raise ValueError(text)
    return percent / 100


def _read_rising(text: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
    """Four values, for the levels from SOFT to CIRCUIT_BREAK."""
    found = tuple(map(read, text.split()))
    if len(found) != 4 or list(found) != sorted(set(found)):
        raise ValueError(text)
    return found


def _read_days(text: str) -> timedelta:
    days = _read_count(text)
    if days > 36_500:
        raise ValueError(text)
    return timedelta(days=days)


def _read_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65_535:
        raise ValueError(text)
    return int(text)


def _read_size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})\s*(|[KMGT]i?)B?", text, re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    prefix = match[2].upper()
    step = 1024 if prefix.endswith("I") else 1000
    return int(match[1]) * step ** (" KMGT".index(prefix[0]) if prefix else 0)


def _read_seconds(text: str) -> timedelta:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        raise ValueError(text)
    return timedelta(seconds=float(text))


def _read_switch(text: str) -> bool:
    # A TOML file says true or false.
    return {"on": True, "true": True, "off": False, "false": False}[text.lower()]


def _read_lines(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError(text)
    return text


@dataclass(frozen=True)
class Kind:
    """Reads a text (`ValueError` or `KeyError`: it cannot), and what is expected of it."""

    read: Callable[[str], Any]
    expected: str


KINDS: Final[Mapping[str, Kind]] = {
    "folder": Kind(Path, "the path of a folder"),
    "url": Kind(str, "a URL such as sqlite:/data/log.db"),
    "text": Kind(str, "text"),
    "secret": Kind(str, "text"),
    "file": Kind(Path, "the path of a file"),
    "switch": Kind(_read_switch, "on or off"),
    "lines": Kind(_read_lines, "text or json"),
    "list": Kind(lambda text: tuple(text.split()), "values with spaces between them"),
    "count": Kind(_read_count, "a whole number from 1, such as 100"),
    "percent": Kind(_read_percent, "a whole number from 1 to 100"),
    "counts": Kind(
        lambda text: _read_rising(text, _read_count), "four whole numbers, each above the last"
    ),
    "percents": Kind(
        lambda text: _read_rising(text, _read_percent),
        "four whole numbers up to 100, each above the last",
    ),
    "days": Kind(_read_days, "a whole number of days, from 1 to 36500"),
    "port": Kind(_read_port, "a number from 0 (any port that is free) to 65535"),
    "size": Kind(_read_size, "a number of bytes, such as 1000000, 512MB or 2GiB"),
    "seconds": Kind(_read_seconds, "a number of seconds, such as 1 or 0.25"),
}
