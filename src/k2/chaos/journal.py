"""What the log was ever given: every message, what it says, and what has to become of it.

Comes in: appends, as the log took them. Goes out: for each place its record, read one by one by
another decoder than K2's own, and judged by a few plain rules.
"""

import io
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import fastavro
import numpy as np
import numpy.typing as npt

from k2.chaos.market import EXCHANGE
from k2.errors import NotFound
from k2.log import NOT_WIRE_FORMAT, Append, Registry
from k2.model import CLOCK_SKEW, Topic

Place: TypeAlias = tuple[str, int, int]
"""Topic, partition, offset."""
Identity: TypeAlias = tuple[object, ...]

ID_COLUMN: Final[Mapping[str, str]] = {"trades": "trade_id", "quotes": "source_sequence"}
PRICED: Final[Mapping[str, tuple[str, str]]] = {
    "trades": ("price", "quantity"),
    "quotes": ("bid_price", "ask_price"),
}


@dataclass(frozen=True)
class Message:
    """One message. `record` is None if it cannot be read or cannot be; `identity` is None if it
    has none.
    """

    kind: str
    value: bytes
    record: Mapping[str, Any] | None
    identity: Identity | None


class Journal:
    """All that was appended. `lost` are places that an operator has given up."""

    def __init__(self, registry: Registry) -> None:
        self.messages: dict[Place, Message] = {}
        self.by_identity: dict[Identity, list[Place]] = defaultdict(list)
        self.lost: set[Place] = set()
        self.came: Counter[Identity] = Counter()
        """How often each record came, however wrong it is; see `name_of`."""
        self._registry = registry
        self._schemas: dict[int, Any] = {}

    def appended(self, each: Append, offsets: npt.NDArray[np.int64]) -> None:
        """Take what the log has now."""
        topic = Topic.parse(each.topic)
        assert topic is not None, "chaos appends to topics of records only"
        for offset, value in zip(offsets.tolist(), each.values.to_pylist(), strict=True):
            decoded = self._read(each.schema_id, value)
            if decoded is not None:
                self.came[name_of(topic.kind, decoded)] += 1
            record = decoded if decoded is not None and _can_be(topic.kind, decoded) else None
            identity = None if record is None else _identity(topic.kind, record)
            place = (each.topic, each.partition, offset)
            self.messages[place] = Message(topic.kind, value, record, identity)
            if identity is not None:
                self.by_identity[identity].append(place)

    def _read(self, schema_id: int, value: bytes) -> Mapping[str, Any] | None:
        if schema_id == NOT_WIRE_FORMAT:
            return None
        try:
            schema = self._schema(schema_id)
        except NotFound:
            return None
        body = io.BytesIO(value)
        try:
            record = cast(dict[str, Any], fastavro.schemaless_reader(body, schema, None))
        except (EOFError, ValueError, IndexError, OverflowError, KeyError):
            return None
        return record if body.read(1) == b"" else None

    def _schema(self, schema_id: int) -> Any:
        if schema_id not in self._schemas:
            self._schemas[schema_id] = fastavro.parse_schema(dict(self._registry.schema(schema_id)))
        return self._schemas[schema_id]


def _can_be(kind: str, record: Mapping[str, Any]) -> bool:
    if kind not in PRICED:
        return True
    return (
        record["exchange"] == EXCHANGE.name
        and record["timestamp"] <= record["ingestion_timestamp"] + CLOCK_SKEW
        and all(record[name] > 0 for name in PRICED[kind])
    )


def name_of(kind: str, record: Mapping[str, Any]) -> Identity:
    """What the feed would call the record: enough to see whether it reached the log."""
    return (kind, *(record.get(name) for name in _NAMED_BY[kind]))


_NAMED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "trades": ("symbol", "trade_id", "occurrence", "price"),
    "quotes": ("symbol", "source_sequence"),
    "gaps": ("symbol", "first_missing"),
    "rejects": ("line",),
}


def _identity(kind: str, record: Mapping[str, Any]) -> Identity | None:
    """The id, or else the content; neither in records of version 1."""
    if kind in ID_COLUMN and record.get("occurrence") is None:
        number = record.get(ID_COLUMN[kind])
        return (
            None if number is None else (kind, "id", record["id_space"], record["symbol"], number)
        )
    content = sorted((n, v) for n, v in record.items() if n != "ingestion_timestamp")
    return (kind, "content", *content)
