"""For how many exchange days rows are kept: a file that users edit, read at each maintenance.

A TOML table for each kind, `[trades]`, and for each exchange that differs, `[trades.ASX]`:
`tier_1`, `tier_2` and `tier_3` are numbers of days, or "forever". What no line names is kept
forever.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from k2.errors import BadInput

KINDS: Final = ("trades", "quotes")
"""Kinds of records that may be retired: those that markets send without end."""

FOREVER: Final = "forever"
MOST_DAYS: Final = 36_500
_TIERS: Final = {"tier_1": 1, "tier_2": 2, "tier_3": 3}
_EXPECTED: Final = f'1 to {MOST_DAYS:,} days, or "{FOREVER}"'


@dataclass(frozen=True)
class Rule:
    """So many whole days are kept behind the one that goes on. `text` is the line that says so."""

    days: int
    text: str


@dataclass(frozen=True)
class Keep:
    """The rules of a file, by kind, exchange ("" for all) and tier; None: forever."""

    rules: Mapping[tuple[str, str, int], Rule | None] = field(default_factory=dict)

    def rule(self, kind: str, exchange: str, tier: int) -> Rule | None:
        """What holds: the line of the exchange, or else of the kind. None: kept forever."""
        mine = (kind, exchange, tier)
        return self.rules[mine] if mine in self.rules else self.rules.get((kind, "", tier))

    def retires(self, kind: str) -> bool:
        """Whether any line says that rows of the kind go some day."""
        return any(rule is not None and of == kind for (of, _, _), rule in self.rules.items())

    @property
    def exchanges(self) -> frozenset[str]:
        """The exchanges that have lines of their own."""
        return frozenset(exchange for _, exchange, _ in self.rules if exchange)


def read_keep(path: Path) -> Keep:
    """The rules of a file; without a file, all is kept. Raises `BadInput`, which names the line and
    the key, for one that cannot be meant.
    """
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        return Keep()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(
            "the file of retention cannot be read", place=str(path), found=str(error)
        ) from error
    return Keep(_Reading(path, text).rules(document))


class _Reading:
    """One file on its way: its lines are known, so that errors can name them."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = _lines(text)

    def rules(self, document: Mapping[str, Any]) -> dict[tuple[str, str, int], Rule | None]:
        """The rules of a document."""
        found: dict[tuple[str, str, int], Rule | None] = {}
        for kind, table in document.items():
            if kind not in KINDS:
                raise BadInput(
                    f"retention has no {kind!r}",
                    place=self._place("", kind),
                    expected=f"a table of {' or '.join(KINDS)}",
                    hint="records of other kinds are kept forever",
                )
            self._check_table(table, kind)
            for key, value in table.items():
                if isinstance(value, dict):
                    for inner, days in value.items():
                        tier = self._tier(f"{kind}.{key}", inner)
                        found[kind, key, tier] = self._rule(f"{kind}.{key}", inner, days)
                else:
                    found[kind, "", self._tier(kind, key)] = self._rule(kind, key, value)
        return found

    def _check_table(self, table: object, kind: str) -> None:
        if not isinstance(table, dict):
            raise BadInput(
                "this is no table",
                place=self._place("", kind),
                expected=f"[{kind}] and its tiers",
            )

    def _tier(self, table: str, key: str) -> int:
        if key not in _TIERS:
            raise BadInput(
                f"there is no {key!r} here",
                place=self._place(table, key),
                expected=", ".join(_TIERS),
                hint=f"of one exchange: [{table.split('.')[0]}.EXCHANGE] and its tiers",
            )
        return _TIERS[key]

    def _rule(self, table: str, key: str, value: object) -> Rule | None:
        if value == FOREVER:
            return None
        # True is a number to Python.
        if type(value) is not int or not 1 <= value <= MOST_DAYS:
            raise BadInput(
                "so many days cannot be kept",
                place=self._place(table, key),
                found=repr(value),
                expected=_EXPECTED,
            )
        return Rule(value, f"[{table}] {key} = {value}")

    def _place(self, table: str, key: str) -> str:
        line = self._lines.get((table, key)) or self._lines.get((f"{table}.{key}".strip("."), ""))
        where = f"{self._path} line {line}" if line else str(self._path)
        return f"{where}: [{table}] {key}" if table else f"{where}: {key}"


def _lines(text: str) -> dict[tuple[str, str], int]:
    """The line (from 1) of each table's heading, and of each key in it, as far as they are written
    plainly.
    """
    found: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = re.sub(r'\s*\.\s*|"', lambda m: "." if "." in m[0] else "", heading[1])
            found.setdefault((table, ""), number)
        elif key := re.match(r'\s*"?([^"=#\s]+)"?\s*=', line):
            found.setdefault((table, key[1]), number)
    return found
