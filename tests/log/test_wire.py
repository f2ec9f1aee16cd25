"""Against the vectors of Kafka's own tests, and in both directions."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.log import NOT_WIRE_FORMAT
from k2.log.wire import from_wire, murmur2, partition_of, to_wire


# org.apache.kafka.common.utils.UtilsTest, testMurmur2
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_the_partition_is_of_the_hash_without_its_sign() -> None:
    assert partition_of("foobar", 7) == (-790332482 & 0x7FFFFFFF) % 7
    assert partition_of("foobar", 7) != 790332482 % 7
    assert partition_of("abc", 5) == 479470107 % 5
    assert {partition_of(str(number), 4) for number in range(100)} == {0, 1, 2, 3}


def test_the_wire_format_is_confluents() -> None:
    framed = to_wire(pa.array([b"datum", b""], pa.binary()), 0x01020304)
    assert framed.to_pylist() == [b"\0\1\2\3\4datum", b"\0\1\2\3\4"]


def test_what_is_no_wire_format_stays_whole() -> None:
    messages = [b"", b"\0", b"\0\0\0\1", b"\0\0\0\0\7", b"\0\0\0\0\7x", b"\1\0\0\0\7x"]
    messages.append(b"\0\x80\0\0\0x")  # a negative id, for a reader that takes it so
    ids, datums = from_wire(pa.array(messages, pa.binary()))
    none = NOT_WIRE_FORMAT
    assert ids.tolist() == [none, none, none, 7, 7, none, none]
    assert datums.to_pylist() == [*messages[:3], b"", b"x", *messages[5:]]


@given(
    st.lists(st.tuples(st.integers(0, 2**31 - 1), st.binary(max_size=20))),
    st.integers(0, 5),
)
def test_both_ways(messages: list[tuple[int, bytes]], skip: int) -> None:
    parts = [to_wire(pa.array([datum], pa.binary()), schema_id) for schema_id, datum in messages]
    framed = pa.concat_arrays([pa.array([], pa.binary()), *parts]).slice(skip)
    ids, datums = from_wire(framed)
    assert datums.type == pa.binary()
    assert list(zip(ids.tolist(), datums.to_pylist(), strict=True)) == messages[skip:]
