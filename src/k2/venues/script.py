"""Scripts of faults: read from TOML, drawn from a seed, written again.

```toml
[[fault]]
at = 2.5              # seconds since a client first followed anything; or at_message = 500
fault = "disconnect"
seconds = 1
```
"""

import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from k2.errors import BadInput
from k2.feeds.mapped.toml import Section

FAULTS: Final[dict[str, tuple[str, ...]]] = {
    "disconnect": ("seconds", "code"),
    "silence": ("seconds",),
    "slow": ("seconds", "milliseconds"),
    "duplicate": ("count", "kind"),
    "skip": ("count", "kind", "symbol", "lost"),
    "reorder": ("count", "kind"),
    "malformed": ("count", "kind"),
    "maintenance": ("notice", "seconds"),
    "http": ("status", "seconds", "retry_after"),
    "wrong_answer": ("count",),
    "no_answer": ("count",),
    "clock_off": ("milliseconds", "seconds"),
    "stale_snapshot": ("count",),
    "unknown": ("count",),
}
"""All faults and what may be said of each."""

KINDS: Final = ("trades", "quotes", "book")


@dataclass(frozen=True)
class Fault:
    """One fault and when it comes: `at` seconds, or with message number `at_message` (from 1),
    both counted since a client first followed anything.

    `seconds`: how long it lasts. `count`: how many messages, answers or, for `lost`, market
    orders it takes. `kind`: of which messages. `milliseconds`: by how much messages are late or
    the clock is ahead. `notice`: seconds between the notice and the end. `code`: of a closing
    handshake (0: the connection just ends).
    """

    fault: str
    at: float | None = None
    at_message: int | None = None
    seconds: float = 0.0
    count: int = 1
    milliseconds: int = 0
    kind: str = "trades"
    symbol: str | None = None
    lost: bool = False
    notice: float = 0.0
    status: int = 503
    retry_after: int = 0
    code: int = 0


def read_script(text: str, place: str = "the script") -> tuple[Fault, ...]:
    """The faults of a script in TOML. Raises `BadInput`, naming place and key."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"this is no TOML: {error}", place=place) from error
    whole = Section(found, place, "")
    whole.only("fault")
    listed = found.get("fault", [])
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        whole.bad("fault", "faults are tables of a list", expected="[[fault]]")
    return tuple(_read(Section(each, place, f"fault {n}")) for n, each in enumerate(listed, 1))


def write_script(script: Sequence[Fault]) -> str:
    """The script as TOML that `read_script` reads."""
    return "\n".join(_written(fault) for fault in script)


def random_script(
    seed: int, count: int = 40, seconds: float = 600, faults: Sequence[str] = tuple(FAULTS)
) -> tuple[Fault, ...]:
    """`count` faults within `seconds`, the same for the same arguments.

    Each of `faults` comes once before one comes again.
    """
    drawn = random.Random(seed)
    names: list[str] = []
    while len(names) < count:
        names += drawn.sample(list(faults), len(faults))
    times = sorted(round(drawn.uniform(0.05, 0.95) * seconds, 2) for _ in range(count))
    return tuple(
        Fault(name, at=at, **_drawn(drawn, name, seconds))
        for name, at in zip(names[:count], times, strict=True)
    )


def _drawn(drawn: random.Random, name: str, seconds: float) -> dict[str, Any]:
    """What is said of a fault, short against the time that all of them share."""
    short = min(5.0, seconds / 50)
    found: dict[str, Any] = {
        "seconds": round(drawn.uniform(0.2, 1.0) * short, 2),
        "count": drawn.randint(2, 20),
        "milliseconds": drawn.randint(50, 1_500),
        "kind": drawn.choice(KINDS),
        "lost": drawn.random() < 0.5,
        "notice": round(drawn.uniform(0.1, 0.5) * short, 2),
        "status": drawn.choice((418, 429, 500, 502, 503)),
        "retry_after": 1,
        "code": drawn.choice((0, 0, 1001, 1011)),
    }
    if name == "skip" and found["lost"]:
        found["kind"] = "trades"
    if name in ("wrong_answer", "no_answer"):
        found["count"] = 1
    return {key: found[key] for key in FAULTS[name] if key in found}


def _read(section: Section) -> Fault:
    name = section.text("fault")
    if name not in FAULTS:
        section.bad("fault", "there is no such fault", found=name, one_of=tuple(FAULTS))
    section.only("fault", "at", "at_message", *FAULTS[name])
    at, at_message = _seconds(section, "at", None), section.integer("at_message", -1)
    if (at is None) == (at_message < 0):
        section.bad("at", "a fault comes at a time or at a message", expected="at or at_message")
    kind = section.text("kind") or "trades"
    if kind not in KINDS:
        section.bad("kind", "there is no such kind of message", found=kind, one_of=KINDS)
    otherwise: dict[str, Any] = {f.name: f.default for f in fields(Fault)}
    numbers = {
        key: section.integer(key, otherwise[key])
        for key in ("count", "milliseconds", "status", "retry_after", "code")
    }
    return Fault(
        fault=name,
        at=at,
        at_message=at_message if at is None else None,
        seconds=_seconds(section, "seconds", 0.0) or 0.0,
        notice=_seconds(section, "notice", 0.0) or 0.0,
        kind=kind,
        symbol=section.text("symbol"),
        lost=section.boolean("lost"),
        **numbers,
    )


def _seconds(section: Section, key: str, otherwise: float | None) -> float | None:
    found = section.found.get(key, otherwise)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not found >= 0:
        section.bad(key, "this is no number of seconds", found=found)
    return float(found)


def _written(fault: Fault) -> str:
    lines = ["[[fault]]"]
    otherwise = {f.name: f.default for f in fields(Fault)}
    names = ("at", "at_message", "fault", *FAULTS[fault.fault])
    for name in names:
        value = getattr(fault, name)
        if value == otherwise[name] or value is None:
            continue
        text = f'"{value}"' if isinstance(value, str) else str(value).lower()
        lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"
