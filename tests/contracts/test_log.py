"""What every log must keep: one suite over all adapters, written against the port alone."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.errors import NotFound
from k2.log import Append, Log, Membership, open_log
from tests.log.adapters import adapters, fresh

T = "market.crypto.trades.t"
U = "market.crypto.trades.u"


@pytest.fixture(params=adapters("open_log"))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh(request, request.param, tmp_path)


@pytest.fixture
def log(url: str) -> Iterator[Log]:
    opened = open_log(url)
    yield opened
    opened.close()


def binary(values: Sequence[bytes]) -> pa.BinaryArray:
    return pa.array(values, pa.binary())


def numbered(start: int, stop: int) -> list[bytes]:
    return [f"message {number}".encode() for number in range(start, stop)]


def append(log: Log, values: Sequence[bytes], partition: int = 0, schema_id: int = 1) -> list[int]:
    (offsets,) = log.append([Append(T, partition, schema_id, binary(values))])
    assert offsets.dtype == np.int64
    found: list[int] = offsets.tolist()
    return found


def read_all(
    log: Log, offset: int = 0, partition: int = 0, max_bytes: int = 1 << 20, topic: str = T
) -> tuple[list[bytes], list[int]]:
    """Values and schema ids from `offset` to the end, checking the form of every batch."""
    values: list[bytes] = []
    ids: list[int] = []
    while batches := log.read(topic, partition, offset, max_bytes):
        for batch in batches:
            assert (batch.topic, batch.partition) == (topic, partition)
            assert batch.values.type == pa.binary()
            assert batch.values.null_count == 0
            assert batch.offsets.dtype == np.int64
            assert batch.schema_ids.dtype == np.int32
            assert len(batch.offsets) == len(batch.schema_ids) == len(batch.values)
            assert batch.next_offset > offset
            assert (np.diff(batch.offsets, prepend=offset - 1, append=batch.next_offset) > 0).all()
            values += batch.values.to_pylist()
            ids += batch.schema_ids.tolist()
            offset = batch.next_offset
    assert offset == log.end_offset(topic, partition)
    return values, ids


def test_a_new_log_is_empty(log: Log) -> None:
    assert log.topics() == {}
    assert log.latest("settings") == {}


def test_a_topic_is_made_once(log: Log) -> None:
    log.create(T, 3)
    log.create(T, 5)
    log.create(U, 1)
    assert log.topics() == {T: 3, U: 1}
    assert [log.end_offset(T, partition) for partition in range(3)] == [0, 0, 0]
    assert list(log.end_offsets(T)) == [0, 0, 0]
    assert log.read(T, 2, 0, 1000) == []


def test_a_topic_has_an_identity(log: Log, url: str) -> None:
    log.create(T, 1)
    log.create(U, 1)
    identity = log.identity(T)
    assert identity
    assert identity != log.identity(U)
    again = open_log(url)
    again.create(T, 1)
    assert again.identity(T) == identity
    again.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda log, topic, partition: log.append([Append(topic, partition, 1, binary([b"x"]))]),
        lambda log, topic, partition: log.read(topic, partition, 0, 1),
        lambda log, topic, partition: log.start_offset(topic, partition),
        lambda log, topic, partition: log.end_offset(topic, partition),
        lambda log, topic, partition: log.offset_at(topic, partition, datetime.now(UTC)),
        lambda log, topic, partition: log.size(topic, partition),
        lambda log, topic, partition: log.trim(topic, partition, 0),
    ],
)
def test_what_does_not_exist_is_not_found(log: Log, ask: Callable[[Log, str, int], object]) -> None:
    log.create(T, 2)
    for topic, partition in ((U, 0), (T, 2), (T, -1)):
        with pytest.raises(NotFound):
            ask(log, topic, partition)
    with pytest.raises(NotFound):
        log.identity(U)
    with pytest.raises(NotFound):
        log.end_offsets(U)


def test_messages_come_back_in_order(log: Log) -> None:
    log.create(T, 1)
    assert append(log, numbered(0, 10)) == list(range(10))
    assert append(log, numbered(10, 11)) == [10]
    assert append(log, numbered(11, 500)) == list(range(11, 500))
    assert log.end_offset(T, 0) == 500
    assert log.start_offset(T, 0) == 0
    assert read_all(log)[0] == numbered(0, 500)


def test_reading_begins_at_any_offset(log: Log) -> None:
    log.create(T, 1)
    for start in range(0, 60, 6):
        append(log, numbered(start, start + 6))
    for offset in range(61):
        assert read_all(log, offset)[0] == numbered(offset, 60)


def test_reading_goes_on_after_a_rest(log: Log) -> None:
    log.create(T, 1)
    log.rest()
    append(log, numbered(0, 50))
    seen: list[tuple[int, bytes | None]] = []
    for _ in range(4):
        for batch in log.read(T, 0, len(seen), 200):
            seen += zip(batch.offsets.tolist(), batch.values.to_pylist(), strict=True)
        log.rest()
        append(log, numbered(log.end_offset(T, 0), log.end_offset(T, 0) + 10))
    assert seen
    assert seen == list(enumerate(numbered(0, len(seen))))
    assert read_all(log, len(seen))[0] == numbered(len(seen), 90)


def test_reading_outside_of_the_log_is_not_found(log: Log) -> None:
    log.create(T, 1)
    append(log, numbered(0, 10))
    assert log.read(T, 0, 10, 1000) == []
    for offset in (-1, 11, 1 << 40):
        with pytest.raises(NotFound):
            log.read(T, 0, offset, 1000)


def test_a_read_is_bounded_and_still_moves_on(log: Log) -> None:
    log.create(T, 1)
    for _ in range(3):
        append(log, [bytes(1000)] * 100)
    batches = log.read(T, 0, 0, 50_000)
    assert 1 <= sum(len(batch.values) for batch in batches) < 300
    assert read_all(log, max_bytes=1)[0] == [bytes(1000)] * 300


def test_a_large_append_comes_back_whole(log: Log) -> None:
    log.create(T, 1)
    values = [number.to_bytes(4, "little") * (number % 300) for number in range(20_000)]
    append(log, [b"before"])
    append(log, values)
    assert read_all(log, max_bytes=1 << 30)[0] == [b"before", *values]
    assert read_all(log, 9_999)[0] == values[9_998:]


def test_empty_messages_and_empty_appends(log: Log) -> None:
    log.create(T, 1)
    assert append(log, []) == []
    assert append(log, [b"", b"", b"a", b""]) == [0, 1, 2, 3]
    assert append(log, []) == []
    assert append(log, [b""]) == [4]
    assert log.append([]) == []
    assert read_all(log)[0] == [b"", b"", b"a", b"", b""]


def test_any_form_of_array_is_taken(log: Log) -> None:
    log.create(T, 1)
    values = binary(numbered(0, 100)).slice(20, 30)
    keys = pa.array(["BHP", "CBA", "BHP"] * 10).dictionary_encode()
    large = binary(numbered(50, 60)).cast(pa.large_binary()).slice(3)
    log.append([Append(T, 0, 1, values, keys), Append(T, 0, 1, large, keys.slice(0, 7))])
    assert read_all(log)[0] == numbered(20, 50) + numbered(53, 60)


def test_each_message_keeps_its_schema(log: Log) -> None:
    log.create(T, 1)
    for schema_id in (7, 7, 9, 7, -1, 2**31 - 1):
        append(log, [b"a", b"b"], schema_id=schema_id)
    assert read_all(log)[1] == [7, 7, 7, 7, 9, 9, 7, 7, -1, -1, 2**31 - 1, 2**31 - 1]
    assert read_all(log, 3)[1] == [7, 9, 9, 7, 7, -1, -1, 2**31 - 1, 2**31 - 1]


def test_one_append_serves_many_partitions(log: Log) -> None:
    log.create(T, 3)
    log.create(U, 1)
    append(log, numbered(0, 5), 1)
    offsets = log.append(
        [
            Append(T, 2, 1, binary(numbered(0, 2))),
            Append(T, 1, 1, binary(numbered(5, 6))),
            Append(U, 0, 2, binary(numbered(0, 3))),
            Append(T, 1, 1, binary(numbered(6, 8))),
        ]
    )
    assert [each.tolist() for each in offsets] == [[0, 1], [5], [0, 1, 2], [6, 7]]
    assert read_all(log, partition=0)[0] == []
    assert read_all(log, partition=1)[0] == numbered(0, 8)
    assert read_all(log, partition=2)[0] == numbered(0, 2)
    assert read_all(log, topic=U) == (numbered(0, 3), [2, 2, 2])


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 3), st.lists(st.binary(max_size=40))),
        max_size=12,
    ),
    st.sampled_from([1, 100, 1 << 20]),
)
def test_any_split_into_appends_reads_the_same(
    log: Log, appends: list[tuple[int, int, list[bytes]]], max_bytes: int
) -> None:
    topic = f"{T}{len(log.topics())}"
    log.create(topic, 2)
    for partition, schema_id, values in appends:
        log.append([Append(topic, partition, schema_id, binary(values))])
    for wanted in (0, 1):
        values = [v for partition, _, some in appends if partition == wanted for v in some]
        ids = [i for partition, i, some in appends if partition == wanted for _ in some]
        assert read_all(log, 0, wanted, max_bytes, topic) == (values, ids)
        middle = len(values) // 2
        assert read_all(log, middle, wanted, max_bytes, topic) == (values[middle:], ids[middle:])


def test_another_handle_sees_what_was_appended(log: Log, url: str) -> None:
    other = open_log(url)
    log.create(T, 1)
    append(log, numbered(0, 3))
    assert read_all(other)[0] == numbered(0, 3)
    assert append(other, numbered(3, 5)) == [3, 4]
    assert log.end_offset(T, 0) == 5
    other.put("k", "a", "1")
    assert log.latest("k") == {"a": "1"}
    other.close()
    assert read_all(log)[0] == numbered(0, 5)


def test_all_of_it_is_there_after_closing(log: Log, url: str) -> None:
    log.create(T, 2)
    append(log, numbered(0, 100), 1)
    log.put("k", "a", "1")
    log.close()
    again = open_log(url)
    assert again.topics() == {T: 2}
    assert read_all(again, partition=1)[0] == numbered(0, 100)
    assert again.latest("k") == {"a": "1"}
    again.close()


def later(moment: datetime) -> datetime:
    """A time that is certainly later, also for a log that keeps milliseconds."""
    while (now := datetime.now(UTC)) < moment + timedelta(milliseconds=5):
        pass
    return now


def test_an_offset_is_found_by_time(log: Log) -> None:
    log.create(T, 1)
    before = datetime.now(UTC)
    assert log.offset_at(T, 0, before) == 0
    append(log, numbered(0, 10))
    between = later(datetime.now(UTC))
    append(log, numbered(10, 15))
    append(log, numbered(15, 20))
    after = later(datetime.now(UTC))
    assert log.offset_at(T, 0, before - timedelta(days=1)) == 0
    assert log.offset_at(T, 0, between) == 10
    assert log.offset_at(T, 0, after) == 20
    log.trim(T, 0, 20)
    assert log.offset_at(T, 0, before) == log.start_offset(T, 0)


def test_trimming_takes_from_the_front_only(log: Log) -> None:
    log.create(T, 2)
    for start in range(0, 100, 10):
        append(log, numbered(start, start + 10))
        append(log, numbered(start, start + 10), 1)
    whole = log.size(T, 0)
    start = log.trim(T, 0, 35)
    assert 0 <= start <= 35
    assert log.start_offset(T, 0) == start
    assert log.end_offset(T, 0) == 100
    assert log.size(T, 0) <= whole
    assert read_all(log, start)[0] == numbered(start, 100)
    assert read_all(log, partition=1)[0] == numbered(0, 100)
    if start:
        with pytest.raises(NotFound):
            log.read(T, 0, start - 1, 1000)
    assert log.trim(T, 0, 5) == start


def test_a_log_trimmed_to_its_end_goes_on_counting(log: Log) -> None:
    log.create(T, 1)
    append(log, numbered(0, 10))
    assert log.size(T, 0) > 0
    assert log.trim(T, 0, 10) == 10
    assert log.start_offset(T, 0) == log.end_offset(T, 0) == 10
    assert log.size(T, 0) == 0
    assert log.read(T, 0, 10, 1000) == []
    assert append(log, numbered(10, 12)) == [10, 11]
    assert read_all(log, 10)[0] == numbered(10, 12)


def test_a_compacted_topic_keeps_the_latest_of_each_key(log: Log) -> None:
    log.put("k2.positions", "feed:1", "a")
    log.put("k2.positions", "feed:2", "b")
    log.put("k2.exchanges", "feed:1", "other")
    log.put("k2.positions", "feed:1", "ä\n{}")
    log.put("k2.positions", "", "")
    assert log.latest("k2.positions") == {"feed:1": "ä\n{}", "feed:2": "b", "": ""}
    assert log.latest("k2.exchanges") == {"feed:1": "other"}
    assert log.topics() == {}


def test_threads_append_and_read_at_once(log: Log) -> None:
    """What a reader sees was appended, in its order, and all that lies before the end is there."""
    log.create(T, 1)
    done = threading.Event()
    failures: list[object] = []
    placed: dict[str, list[int]] = {name: [] for name in "abc"}

    def write(name: str) -> None:
        try:
            for number in range(8):
                # Over 1 MB: a log may well store so much in several pieces.
                texts = [f"{name} {number} {index}".ljust(1500) for index in range(1000)]
                placed[name] += append(log, [text.encode() for text in texts])
        except Exception as error:  # noqa: BLE001  # told below
            failures.append(error)

    def watch() -> None:
        try:
            offset = 0
            while not done.is_set():
                end = log.end_offset(T, 0)
                while offset < end:
                    (batch,) = log.read(T, 0, offset, 1 << 30)
                    if batch.offsets[0] != offset or batch.next_offset <= offset:
                        failures.append((end, offset, batch.offsets[0], batch.next_offset))
                    offset = batch.next_offset
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    reader = threading.Thread(target=watch)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failures == []
    values = [value.decode().split() for value in read_all(log, max_bytes=1 << 30)[0]]
    assert len(values) == 24_000
    for name in "abc":
        own = [(int(values[at][1]), int(values[at][2])) for at in placed[name]]
        assert own == [(n, i) for n in range(8) for i in range(1000)]
        assert {values[at][0] for at in placed[name]} == {name}


WRITER = """
import sys
import pyarrow as pa
from k2.log import Append, open_log
url, name, topic = sys.argv[1:]
log = open_log(url)
log.create(topic, 2)
for number in range(50):
    values = pa.array([f"{name} {number} {part}".encode() for part in range(20)], pa.binary())
    offsets, = log.append([Append(topic, number % 2, 1, values)])
    print(number, *offsets.tolist())
log.close()
"""


def test_processes_append_at_once(url: str) -> None:
    """A new log opened by three processes at the same moment; each gets offsets of its own."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, name, T], stdout=subprocess.PIPE, text=True
        )
        for name in "abc"
    ]
    log = open_log(url)
    told = [writer.communicate()[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    found = [read_all(log, partition=partition)[0] for partition in (0, 1)]
    assert [len(values) for values in found] == [1500, 1500]
    for name, lines in zip("abc", told, strict=True):
        for line in lines.splitlines():
            number, *offsets = map(int, line.split())
            wanted = [f"{name} {number} {part}".encode() for part in range(20)]
            assert [found[number % 2][offset] for offset in offsets] == wanted
    log.close()


Place = tuple[str, int]


def places(member: Membership) -> set[Place]:
    return {(topic, p) for topic, numbers in member.partitions().items() for p in numbers}


def divided(members: Sequence[Membership], wanted: set[Place]) -> list[set[Place]]:
    """Each member's partitions, once every wanted one has one owner and nobody has much more."""
    end = time.monotonic() + 20
    while True:
        found = [places(member) for member in members]
        sizes = [len(share) for share in found]
        even = max(sizes) - min(sizes) <= 1
        if even and sum(sizes) == len(wanted) and set().union(*found) == wanted:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.02)


def test_a_lone_member_has_all_and_what_comes_new(log: Log) -> None:
    member = log.join("writers")
    assert places(member) == set()
    log.create(T, 3)
    (found,) = divided([member], {(T, 0), (T, 1), (T, 2)})
    log.create(U, 1)
    divided([member], {*found, (U, 0)})
    log.put("compacted", "key", "value")
    began = time.monotonic()
    assert places(member) == {*found, (U, 0)}
    assert time.monotonic() - began < 0.2
    member.leave()


def test_members_divide_the_partitions_and_take_over_from_one_that_leaves(
    log: Log, url: str
) -> None:
    log.create(T, 4)
    other = open_log(url)
    wanted = {(T, number) for number in range(4)}
    first = log.join("writers")
    divided([first], wanted)
    second = other.join("writers")
    alone = log.join("another group")
    shares = divided([first, second], wanted)
    assert all(len(share) == 2 for share in shares)
    divided([alone], wanted)
    log.create(U, 2)
    wanted |= {(U, 0), (U, 1)}
    divided([first, second], wanted)
    first.leave()
    divided([second], wanted)
    third = log.join("writers")
    divided([second, third], wanted)
    for member in (second, third, alone):
        member.leave()
    other.close()


@pytest.mark.slow
def test_a_member_that_gives_no_sign_of_life_loses_its_partitions_and_may_come_back(
    log: Log, url: str
) -> None:
    log.create(T, 4)
    other = open_log(url)
    wanted = {(T, number) for number in range(4)}
    first, second = log.join("writers"), other.join("writers")
    divided([first, second], wanted)
    divided([first], wanted)
    assert all(len(share) == 2 for share in divided([first, second], wanted))
    first.leave()
    second.leave()
    other.close()
