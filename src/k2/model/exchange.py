"""Where things are traded: the facts of an exchange that shape stored data, and the names of
topics.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from k2.errors import BadInput
from k2.model.schema import kinds

ASSET_CLASSES: Final = ("equities", "crypto", "futures", "options")


@dataclass(frozen=True)
class Exchange:
    """An exchange as it is declared: these facts are stored with the tables and do not change.

    `exchange_date` of a record is the local date, in `zone`, of its timestamp + `day_roll`.
    `numbered` are kinds of records whose ids count up by one (trade_id, or source_sequence of
    quotes) for each symbol and id space, so that a number left out is a record that is missing;
    it shapes nothing that is stored, and more kinds may be named later. Raises `BadInput` for a
    name, class or zone that cannot be.
    """

    name: str
    asset_class: str
    zone: str
    day_roll: timedelta = timedelta(0)
    numbered: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.name):
            raise BadInput(
                f"{self.name!r} cannot name an exchange",
                expected="1 to 64 letters, digits, _ and -",
            )
        if self.asset_class not in ASSET_CLASSES:
            raise BadInput(
                f"{self.asset_class!r} is no asset class", expected=", ".join(ASSET_CLASSES)
            )
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise BadInput(
                f"{self.zone!r} is no time zone", expected="an IANA name, such as Australia/Sydney"
            ) from error

    def to_json(self) -> str:
        """As it is stored: JSON with keys name, asset_class, zone, day_roll_seconds and, where
        there are any, numbered.
        """
        facts = {
            "name": self.name,
            "asset_class": self.asset_class,
            "zone": self.zone,
            "day_roll_seconds": int(self.day_roll.total_seconds()),
        }
        numbered = {"numbered": list(self.numbered)} if self.numbered else {}
        return json.dumps({**facts, **numbered}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Exchange":
        """What `to_json` wrote."""
        found = json.loads(text)
        return cls(
            found["name"],
            found["asset_class"],
            found["zone"],
            timedelta(seconds=found["day_roll_seconds"]),
            tuple(found.get("numbered", ())),
        )


LOADED_PARTITION: Final = -1
"""The one partition of topics of loaded files. No log has such a one: in the total order it stands
before each of theirs, as its topics do."""


@dataclass(frozen=True)
class Topic:
    """The name of a topic of records: `market.{asset class}.{kind}.{exchange}`.

    `loaded`: of records that came from files straight into a table and stand in no log; it is then
    `loaded.{asset class}.{kind}.{exchange}`, with LOADED_PARTITION alone.
    """

    asset_class: str
    kind: str
    exchange: str
    loaded: bool = False

    def __str__(self) -> str:
        return f"{_PREFIXES[self.loaded]}.{self.asset_class}.{self.kind}.{self.exchange}"

    @property
    def subject(self) -> str:
        """The registry's subject for its values, and for those of the log's topic of the same."""
        return f"{_PREFIXES[False]}.{self.asset_class}.{self.kind}.{self.exchange}-value"

    @classmethod
    def parse(cls, name: str) -> "Topic | None":
        """The parts of the name of a topic of the log; None for one that is none of K2's."""
        topic = cls.of_row(name)
        return None if topic is None or topic.loaded else topic

    @classmethod
    def of_row(cls, name: str) -> "Topic | None":
        """The same for a topic that a row may name: also one of loaded files."""
        parts = name.split(".")
        if len(parts) != 4 or parts[0] not in _PREFIXES:
            return None
        prefix, asset_class, kind, exchange = parts
        topic = cls(asset_class, kind, exchange, loaded=prefix == _PREFIXES[True])
        known = topic.asset_class in ASSET_CLASSES and topic.kind in kinds() and topic.exchange
        return topic if known else None


_PREFIXES: Final = ("market", "loaded")
"""How the names of topics begin: of those in a log, and of those of loaded files."""
