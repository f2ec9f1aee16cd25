"""What a log is, and what a schema registry is: the two contracts of this room.

A log keeps messages (an Avro datum each, without wire header) in topics, divided into partitions,
each message at an offset that is given once. An adapter is one module beside this one; it offers
`open_log(rest, access)` or `open_registry(rest, access)`, `rest` being what follows its name and a
colon in a URL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

NOT_WIRE_FORMAT = -1
"""Schema id of a message that is no Confluent wire format; its value is the whole message."""


@dataclass(frozen=True)
class Access:
    """How a server is signed in to, and how the two trust each other; all PEM files.

    `ca` holds who is trusted (None: whom this machine trusts), `certificate` and `key` are this
    client's own. TLS is used if `tls` says so or if `ca` or `certificate` is given.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    tls: bool = False


@dataclass(frozen=True)
class Append:
    """Messages for one partition, in order: `values` are datums written with one schema.

    `values` is binary or large_binary, without nulls. With the schema id NOT_WIRE_FORMAT each is
    the whole message, and comes back so if it does not look like wire format.
    """

    topic: str
    partition: int
    schema_id: int
    values: pa.BinaryArray
    keys: pa.Array | None = None
    """UTF-8 keys, one a message (may be dictionary-encoded); None where messages have none."""


@dataclass(frozen=True)
class Batch:
    """Messages of one partition as read: columns of equal length, offsets strictly ascending.

    Offsets may jump (control records, aborted transactions, compaction): a jump is *absent*, no
    gap. `next_offset` is where reading goes on; it may lie past the last message's offset + 1, and
    a batch that is nothing but a jump has no messages.
    """

    topic: str
    partition: int
    offsets: npt.NDArray[np.int64]
    schema_ids: npt.NDArray[np.int32]
    values: pa.BinaryArray
    next_offset: int


class Log(Protocol):
    """An append-only, partitioned, replayable log. Every method may be called from any thread.

    Many processes may have the same log open at once. What `append` returned for is durable: it
    survives SIGKILL and power loss. Messages of one append to one partition stand in their order;
    a reader may see some before the rest is there, and others' messages may stand between them.
    Raises `Unavailable` when the log cannot be reached (or its disk is full), `NotFound` for a
    topic or partition that does not exist, `Broken` (with place) for bytes that cannot be what was
    written.
    """

    def create(self, topic: str, partitions: int) -> None:
        """Make the topic if there is none; an existing one keeps its partitions.

        `topic` is the text of a `k2.model.Topic`.
        """

    def topics(self) -> Mapping[str, int]:
        """Names and partition counts of the topics of records; any others are left out.

        What another process made may be missing for a second.
        """

    def identity(self, topic: str) -> str:
        """An id that a topic made anew under the same name does not share."""

    def append(self, appends: Sequence[Append]) -> list[npt.NDArray[np.int64]]:
        """Append each; the offsets given to its messages, ascending, mostly without a jump.

        Returns only once all of it is durable; waits while the log takes no more. Where it raises,
        any part may have been appended all the same: whoever repeats it makes duplicates, which
        are told by the records' identity.
        """

    def read(self, topic: str, partition: int, offset: int, max_bytes: int) -> list[Batch]:
        """Messages at and after `offset`, about `max_bytes` of them; an empty list means "none
        yet".

        Never blocks for more to come. Raises `NotFound` when `offset` lies before the start offset
        or past the end offset: nothing is ever skipped silently.
        """

    def start_offset(self, topic: str, partition: int) -> int:
        """Offset of the oldest message kept (or the end offset, where none is)."""

    def end_offset(self, topic: str, partition: int) -> int:
        """Exclusive end of what can be read: past every message that was appended."""

    def end_offsets(self, topic: str) -> Sequence[int]:
        """The end offset of each partition of the topic, for about the price of one."""

    def offset_at(self, topic: str, partition: int, when: datetime) -> int:
        """First offset appended at or after `when` (to the millisecond, at least); the end offset
        if there is none.
        """

    def size(self, topic: str, partition: int) -> int:
        """Bytes that the partition keeps; an estimate where the log does not tell. 0 if empty."""

    def trim(self, topic: str, partition: int, before: int) -> int:
        """Delete messages before offset `before`; the new start offset.

        Perhaps fewer are deleted (whole batches), never more.
        """

    def put(self, topic: str, key: str, value: str) -> None:
        """Write to a *compacted* topic, which keeps the latest value of each key. Durable on
        return.
        """

    def latest(self, topic: str) -> Mapping[str, str]:
        """The latest value of each key of a compacted topic; empty if there is no such topic."""

    def join(self, group: str) -> "Membership":
        """Take part in a group whose members divide all partitions among them."""

    def rest(self) -> None:
        """Read nothing ahead, and hold nothing that was, until it is read on: for whoever reads a
        log now and then.
        """

    def close(self) -> None:
        """Let go of files and connections. Nothing else may be called afterwards."""


class Membership(Protocol):
    """A place in a group. One thread at a time.

    It only spreads work. For a while two members may both believe that a partition is theirs, so
    whatever they do with it has to be guarded by itself: a writer's commit compares offsets.
    """

    def partitions(self) -> Mapping[str, frozenset[int]]:
        """The partitions of each topic of records that are this member's now.

        Asking is also the sign of life: a member that has not asked for a few seconds loses its
        partitions to the others. Never blocks longer than 100 ms.
        """

    def leave(self) -> None:
        """Give the partitions back at once."""


@dataclass(frozen=True)
class Registered:
    """One schema as the registry keeps it."""

    id: int
    subject: str
    version: int
    schema: Mapping[str, Any]


class Registry(Protocol):
    """Avro schemas by id and by subject, each new version BACKWARD-compatible with the one before.

    Ids are never reused; the same schema under the same subject gets the same id. Any thread.
    Raises `Unavailable` when it cannot be reached, `NotFound` for an unknown id or subject.
    """

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """The schema's id, made if new.

        Raises `Refused`, naming the field, if it is incompatible, `BadInput` if it is no schema.
        """

    def check(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Why the schema could not be the subject's next version, a sentence each.

        Empty if it could, or if it is one of the subject's versions already.
        """

    def schema(self, schema_id: int) -> Mapping[str, Any]:
        """The schema (parsed JSON) with this id."""

    def versions(self, subject: str) -> list[Registered]:
        """All versions of the subject, oldest first."""

    def subjects(self) -> list[str]:
        """All subjects, sorted."""

    def close(self) -> None:
        """Let go of files and connections."""
