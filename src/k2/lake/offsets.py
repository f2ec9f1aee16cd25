"""What a table remembers besides its rows: offsets of the log, the outbox, what is absorbed.

Each is one JSON document in a property of the table, compared as a whole when it changes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Final, TypeAlias

from k2.errors import Conflict
from k2.model import Exchange

OFFSETS: Final = "k2.offsets"
LOSSES: Final = "k2.losses"
SHED: Final = "k2.shed"
FILLED: Final = "k2.filled"
OUTBOX: Final = "k2.outbox"
ABSORBED: Final = "k2.absorbed"
EXCHANGE: Final = "k2.exchange."
COMMIT_ID: Final = "k2.commit-id"
FOREIGN: Final = "k2.foreign"
RETIRED: Final = "k2.retired"


@dataclass(frozen=True)
class TopicOffsets:
    """Of one topic: the log's identity, and for each partition the first offset not committed."""

    log_id: str
    next_offset: Mapping[int, int]


Offsets: TypeAlias = dict[str, TopicOffsets]


def offsets_to_json(offsets: Mapping[str, TopicOffsets]) -> str:
    """The document as it is stored: equal offsets give equal text."""
    found = {
        topic: {
            "log_id": of.log_id,
            "next_offset": {str(p): of.next_offset[p] for p in sorted(of.next_offset)},
        }
        for topic, of in sorted(offsets.items())
    }
    return json.dumps(found, separators=(",", ":"))


def offsets_from_json(text: str) -> Offsets:
    """What `offsets_to_json` wrote."""
    return {
        topic: TopicOffsets(of["log_id"], {int(p): o for p, o in of["next_offset"].items()})
        for topic, of in json.loads(text).items()
    }


def moved(start: Mapping[str, TopicOffsets], end: Mapping[str, TopicOffsets]) -> set[str]:
    """The topics and partitions, as `topic[partition]`, in which the two documents differ."""
    first, second = _flat(start), _flat(end)
    return {
        place for place in first.keys() | second.keys() if first.get(place) != second.get(place)
    }


def merge(
    start: Mapping[str, TopicOffsets],
    end: Mapping[str, TopicOffsets],
    head: Mapping[str, TopicOffsets],
) -> Offsets:
    """The head's document with the partitions set that differ between start and end.

    Of a topic that was made anew (another `log_id`), only the new log's offsets stay.
    """
    found = dict(head)
    for topic, of in end.items():
        before, now = start.get(topic), head.get(topic)
        if before is not None and before.log_id != of.log_id:
            found[topic] = of
            continue
        had = before.next_offset if before else {}
        set_here = {p: o for p, o in of.next_offset.items() if had.get(p) != o}
        if set_here:
            found[topic] = TopicOffsets(of.log_id, {**(now.next_offset if now else {}), **set_here})
    return found


def _flat(offsets: Mapping[str, TopicOffsets]) -> dict[str, tuple[str, int]]:
    return {
        f"{topic}[{partition}]": (of.log_id, offset)
        for topic, of in offsets.items()
        for partition, offset in of.next_offset.items()
    }


@dataclass(frozen=True)
class Loss:
    """Offsets `[first_offset, end_offset)` that the log deleted before they were committed.

    `accepted`: an operator has said that the table may go on behind them.
    """

    topic: str
    log_id: str
    partition: int
    first_offset: int
    end_offset: int
    accepted: bool = False

    @property
    def place(self) -> str:
        """`topic[partition]`."""
        return f"{self.topic}[{self.partition}]"


def losses_to_json(losses: Iterable[Loss]) -> str:
    """Losses as they are stored."""
    return json.dumps([asdict(loss) for loss in losses], separators=(",", ":"))


def losses_from_json(text: str) -> tuple[Loss, ...]:
    """What `losses_to_json` wrote."""
    return tuple(Loss(**loss) for loss in json.loads(text))


@dataclass(frozen=True)
class ShedRange:
    """Offsets `[first_offset, end_offset)` of which `records` were shed and are not brought in yet.

    `id` names the time of overload that shed them: the shed ledger's entries with it say which
    records these are.
    """

    id: str
    topic: str
    log_id: str
    partition: int
    first_offset: int
    end_offset: int
    records: int

    @property
    def place(self) -> str:
        """`topic[partition]`."""
        return f"{self.topic}[{self.partition}]"


def shed_to_json(ranges: Iterable[ShedRange]) -> str:
    """Open shed ranges as they are stored."""
    return json.dumps([asdict(each) for each in ranges], separators=(",", ":"))


def shed_from_json(text: str) -> tuple[ShedRange, ...]:
    """What `shed_to_json` wrote."""
    return tuple(ShedRange(**each) for each in json.loads(text))


def shed_after(
    open_: Sequence[ShedRange], more: Sequence[ShedRange], filled: Sequence[ShedRange]
) -> tuple[ShedRange, ...]:
    """The open ranges after `more` was shed, and the front of some was `filled`.

    What is shed under an id and in a partition that has an open range makes that one longer. A
    filled range gives the records that were brought in from its first offset up to its end. Raises
    `Conflict` where the open range does not begin where the filled one does.
    """
    found = {(each.id, each.topic, each.log_id, each.partition): each for each in open_}
    for each in filled:
        key = (each.id, each.topic, each.log_id, each.partition)
        have = found.get(key)
        if have is None or have.first_offset != each.first_offset:
            raise Conflict("somebody else has brought in these shed records", place=each.place)
        if each.end_offset < have.end_offset:
            records = have.records - each.records
            found[key] = replace(have, first_offset=each.end_offset, records=records)
        else:
            del found[key]
    for each in more:
        key = (each.id, each.topic, each.log_id, each.partition)
        if (have := found.get(key)) is None:
            found[key] = each
        else:
            records = have.records + each.records
            found[key] = replace(have, end_offset=each.end_offset, records=records)
    return tuple(found.values())


@dataclass(frozen=True)
class OutboxEntry:
    """A ledger's file that a commit of a main table named: it counts since `sequence`, the
    commit's number. `path` is a local path.
    """

    ledger: str
    path: str
    rows: int
    sequence: int


def outbox_to_json(outbox: Iterable[OutboxEntry]) -> str:
    """The outbox as it is stored."""
    return json.dumps([asdict(entry) for entry in outbox], separators=(",", ":"))


def outbox_from_json(text: str) -> tuple[OutboxEntry, ...]:
    """What `outbox_to_json` wrote."""
    return tuple(OutboxEntry(**entry) for entry in json.loads(text))


@dataclass(frozen=True)
class RetiredUpTo:
    """Which commit was the last that retired rows (0: none did), and of each exchange the latest
    trading date of which it, or one before it, did.
    """

    commit: int = 0
    days: Mapping[str, date] = field(default_factory=dict)


NOTHING_RETIRED: Final = RetiredUpTo()


def retired_to_json(retired: RetiredUpTo) -> str:
    """As it is stored."""
    days = {name: day.isoformat() for name, day in sorted(retired.days.items())}
    return json.dumps({"commit": retired.commit, "days": days}, separators=(",", ":"))


def retired_from_json(text: str) -> RetiredUpTo:
    """What `retired_to_json` wrote; of an empty document, nothing."""
    found = json.loads(text)
    days = {name: date.fromisoformat(day) for name, day in found.get("days", {}).items()}
    return RetiredUpTo(found.get("commit", 0), days)


def exchanges_in(properties: Mapping[str, str]) -> dict[str, Exchange]:
    """The exchanges declared in a table's properties, by name."""
    return {
        name.removeprefix(EXCHANGE): Exchange.from_json(text)
        for name, text in properties.items()
        if name.startswith(EXCHANGE)
    }


def absorbed_in(properties: Mapping[str, str]) -> dict[str, int]:
    """Of a ledger: for each main table, the commit up to which (inclusive) it took the outbox."""
    return {table: int(n) for table, n in json.loads(properties.get(ABSORBED, "{}")).items()}
