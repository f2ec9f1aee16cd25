"""One Kafka cluster: how it is reached, what topics it has, and every question asked of it once.

Knows no messages. Names of topics are K2's everywhere but in `physical`.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # their `__all__` lacks two
    AdminClient,
    NewTopic,
    OffsetSpec,
)

from k2.errors import BadInput, NotFound, Unavailable
from k2.log.kafka.errors import cause, is_final, translate
from k2.log.port import Access
from k2.model import Topic

_Answer = TypeVar("_Answer")

_FRESH_SECONDS: Final = 1.0
"""How long what was learned of topics is believed."""

_ATTEMPT_SECONDS: Final = 2.0
_LARGEST_MESSAGE: Final = 16 << 20

_STALE: Final = frozenset(
    {
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
)
"""What a broker says to whoever takes another for the leader, or it for one."""

_NONE_SO_LATE: Final = -1
"""In the place of an offset: no message is of that time or later."""

_COMPRESSIONS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
_MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")


@dataclass(frozen=True)
class Place:
    """Where a cluster is, from a URL: `HOST:PORT[,HOST:PORT…][?option=value&…]`.

    `replication` None leaves it to the broker, `prefix` stands before the name of every topic and
    group, `timeout` (seconds) bounds every call while the cluster is away.
    """

    servers: str
    replication: int | None = None
    compression: str = "lz4"
    prefix: str = ""
    mechanism: str = "SCRAM-SHA-512"
    timeout: float = 10.0

    def __str__(self) -> str:
        return f"kafka:{self.servers}"


def to_place(rest: str) -> Place:
    """The place that a URL names behind `kafka:`. Raises `BadInput`."""
    servers, _, query = rest.partition("?")
    servers = servers.strip("/")
    place = f"kafka:{rest}"
    if not servers or not all(_is_address(each) for each in servers.split(",")):
        raise BadInput("no address of a broker", place=place, expected="HOST:PORT[,HOST:PORT…]")
    found: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            expected = ", ".join(OPTIONS)
            raise BadInput(f"there is no option {name!r}", place=place, expected=expected)
        read, expected = OPTIONS[name]
        try:
            found[name] = read(text)
        except ValueError as error:
            message = f"{text!r} cannot be {name}"
            raise BadInput(message, place=place, expected=expected) from error
    return Place(servers, **found)


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(host and colon and port.isdecimal() and int(port) < 1 << 16)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return read


def _replication(text: str) -> int:
    if not 1 <= int(text) <= 100:
        raise ValueError(text)
    return int(text)


def _prefix(text: str) -> str:
    if not text.isascii() or not text.replace(".", "").replace("-", "").replace("_", "").isalnum():
        raise ValueError(text)
    return text


def _timeout(text: str) -> float:
    if not 1 <= float(text) <= 600:
        raise ValueError(text)
    return float(text)


OPTIONS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "replication": (_replication, "a number of copies, such as 3"),
    "compression": (_one_of(_COMPRESSIONS), ", ".join(_COMPRESSIONS)),
    "prefix": (_prefix, "letters, digits, '.', '_' and '-'"),
    "mechanism": (_one_of(_MECHANISMS), ", ".join(_MECHANISMS)),
    "timeout": (_timeout, "seconds, from 1 to 600"),
}
"""Each option of a place: how its text is read, and what is expected."""


class Cluster:
    """A cluster, reached when first asked. Any thread.

    Raises `Unavailable` when it cannot be reached within the place's timeout, `Refused` when it
    does not let this user in.
    """

    def __init__(self, place: Place, access: Access | None) -> None:
        self.place = place
        self._access = access or Access()
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._told: tuple[float, KafkaError] | None = None
        self._counts: dict[str, int] = {}
        self._counted = -_FRESH_SECONDS
        self._identities: dict[str, tuple[float, str]] = {}

    def settings(self, **more: Any) -> dict[str, Any]:
        """Settings for a client of this cluster; `more` has '_' for '.' in its names."""
        found: dict[str, Any] = {
            "bootstrap.servers": self.place.servers,
            "client.id": "k2",
            # What goes wrong is told once, by an error; not by lines on stderr.
            "log_level": 0,
            "error_cb": self._note,
            # A broker that was restarted is found again at once, not after ten seconds.
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "retry.backoff.ms": 50,
            "topic.metadata.refresh.fast.interval.ms": 50,
            "socket.connection.setup.timeout.ms": 5000,
            **self._security(),
        }
        return found | {name.replace("_", "."): value for name, value in more.items()}

    def _security(self) -> dict[str, Any]:
        access = self._access
        tls = access.tls or access.ca or access.certificate
        signed = access.username is not None
        found: dict[str, Any] = {
            "security.protocol": f"{'SASL_' if signed else ''}{'SSL' if tls else 'PLAINTEXT'}"
        }
        if signed:
            found["sasl.mechanism"] = self.place.mechanism
            found["sasl.username"] = access.username
            found["sasl.password"] = access.password or ""
        files = {
            "ssl.ca.location": access.ca,
            "ssl.certificate.location": access.certificate,
            "ssl.key.location": access.key,
        }
        for name, path in files.items():
            if path is not None:
                if not path.is_file():
                    raise BadInput("there is no such file", place=str(path), hint=name)
                found[name] = str(path)
        return found

    def physical(self, topic: str) -> str:
        """What the cluster calls this topic."""
        return self.place.prefix + topic

    def reason(self, since: float) -> KafkaError | None:
        """What a client of this cluster last told of its connections, since a monotonic time."""
        told = self._told
        return told[1] if told is not None and told[0] >= since else None

    def _note(self, error: KafkaError) -> None:
        # That all brokers are down is no reason: what was told before it is.
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            return
        told = self._told
        if told is None or not is_final(told[1]) or is_final(error) or _old(told[0]):
            self._told = (time.monotonic(), error)

    @property
    def admin(self) -> AdminClient:
        """The client for questions and orders."""
        with self._lock:
            if self._admin is None:
                try:
                    self._admin = AdminClient(self.settings())
                except KafkaException as error:
                    raise translate(cause(error), str(self.place)) from error
            return self._admin

    def ask(self, question: Callable[[AdminClient, float], _Answer], place: str) -> _Answer:
        """The answer to `question(admin, seconds)`, asked again while the cluster is away."""
        began = time.monotonic()
        while True:
            left = began + self.place.timeout - time.monotonic()
            try:
                return question(self.admin, max(0.1, min(left, _ATTEMPT_SECONDS)))
            except (KafkaException, NotYet) as error:
                self.admin.poll(0)
                found = _what(error)
                told = translate(found, place, self.reason(began))
                if not isinstance(told, Unavailable) or left <= 0:
                    raise told from error
                if found.code() in _STALE:
                    self._learn_anew()
            time.sleep(0.05)

    def _learn_anew(self) -> None:
        """Have the client ask who leads: by itself it goes on for minutes by what it knew before a
        broker was restarted.
        """
        with suppress(KafkaException):
            self.admin.list_topics(timeout=_ATTEMPT_SECONDS)

    def topics(self) -> Mapping[str, int]:
        """Topics of records and their partition counts, at most a second old."""
        return {name: count for name, count in self._known().items() if Topic.parse(name)}

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; 0 if there is no such topic."""
        found = self._known().get(topic)
        return self._known(fresh=True).get(topic, 0) if found is None else found

    def check(self, topic: str, partition: int) -> None:
        """Raise `NotFound` unless there is this topic and partition."""
        count = self._known().get(topic, 0)
        if not 0 <= partition < count:
            count = self._known(fresh=True).get(topic, 0)
        if not count:
            raise NotFound(f"there is no topic called {topic!r}", place=str(self.place))
        if not 0 <= partition < count:
            raise NotFound(
                f"there is no partition {partition}",
                place=f"topic {topic}",
                expected=f"0 to {count - 1}",
            )

    def _known(self, *, fresh: bool = False) -> dict[str, int]:
        if not fresh and not _old(self._counted):
            return self._counts
        asked = time.monotonic()
        found = self.ask(lambda admin, wait: admin.list_topics(timeout=wait), str(self.place))
        prefix = self.place.prefix
        self._counts = {
            name.removeprefix(prefix): len(topic.partitions)
            for name, topic in sorted(found.topics.items())
            if name.startswith(prefix) and topic.error is None
        }
        self._counted = asked
        return self._counts

    def create(self, topic: str, partitions: int, settings: Mapping[str, str]) -> None:
        """Make the topic if there is none, and return once it can be used."""
        if self.partitions(topic):
            return
        wanted = NewTopic(
            self.physical(topic),
            num_partitions=partitions,
            replication_factor=self.place.replication or -1,
            config={"max.message.bytes": str(_LARGEST_MESSAGE), **settings},
        )

        def make(admin: AdminClient, wait: float) -> None:
            made = admin.create_topics([wanted], operation_timeout=wait, request_timeout=wait)
            try:
                _result(made[wanted.topic], wait)
            except KafkaException as error:
                if cause(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

        self.ask(make, f"topic {topic}")
        end = time.monotonic() + self.place.timeout
        # The controller made it; the broker that answers questions may not know of it yet.
        while not self._known(fresh=True).get(topic):
            if time.monotonic() > end:
                raise translate(KafkaError(KafkaError._TIMED_OUT), f"topic {topic}")
            time.sleep(0.02)

    def identity(self, topic: str, *, fresh: bool = False) -> str:
        """Kafka's topic id, at most a second old."""
        asked, found = self._identities.get(topic, (-_FRESH_SECONDS, ""))
        if not fresh and not _old(asked):
            return found
        name = self.physical(topic)

        def describe(admin: AdminClient, wait: float) -> str:
            described = admin.describe_topics(TopicCollection([name]), request_timeout=wait)
            return str(_result(described[name], wait).topic_id)

        asked = time.monotonic()
        found = self.ask(describe, f"topic {topic}")
        self._identities[topic] = (asked, found)
        return found

    def start(self, topic: str, partition: int) -> int:
        """Offset of the oldest message kept, or the end."""
        return self._offset(topic, partition, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def end(self, topic: str, partition: int) -> int:
        """End of what is committed: no open transaction lies before it."""
        return self._offset(topic, partition, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def ends(self, topic: str) -> list[int]:
        """The end of each partition, by one question for all of them."""
        self.check(topic, 0)
        every = range(self.partitions(topic))
        spec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._offsets(topic, every, spec, f"topic {topic}")

    def offset_at(self, topic: str, partition: int, milliseconds: int) -> int | None:
        """First offset with this time of Unix or a later one; None if there is none."""
        found = self._offset(topic, partition, OffsetSpec.for_timestamp(milliseconds))
        return found if found >= 0 else None

    def _offset(self, topic: str, partition: int, spec: OffsetSpec) -> int:
        self.check(topic, partition)
        place = f"topic {topic}, partition {partition}"
        return self._offsets(topic, [partition], spec, place)[0]

    def _offsets(
        self, topic: str, partitions: Sequence[int], spec: OffsetSpec, place: str
    ) -> list[int]:
        places = [TopicPartition(self.physical(topic), partition) for partition in partitions]

        def find(admin: AdminClient, wait: float) -> list[int]:
            found = admin.list_offsets(
                dict.fromkeys(places, spec),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=wait,
            )
            offsets = [int(_result(found[at], wait).offset) for at in places]
            if min(offsets) < _NONE_SO_LATE:
                # Said without an error while a partition gets a leader again.
                raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
            return offsets

        return self.ask(find, place)

    def trim(self, topic: str, partition: int, before: int) -> int:
        """Delete what lies before the offset; the first offset that is left."""
        at = TopicPartition(self.physical(topic), partition, before)

        def delete(admin: AdminClient, wait: float) -> int:
            found = admin.delete_records([at], request_timeout=wait, operation_timeout=wait)
            return int(_result(found[at], wait).low_watermark)

        return self.ask(delete, f"topic {topic}, partition {partition}")


def _old(moment: float) -> bool:
    return time.monotonic() - moment >= _FRESH_SECONDS


def _result(future: "Future[Any]", wait: float) -> Any:
    # The client keeps its own time; a little more, so that it is the client who says why.
    return future.result(wait + 1)


def _what(error: Exception) -> KafkaError:
    if isinstance(error, KafkaException):
        return cause(error)
    return KafkaError(KafkaError._TIMED_OUT)
