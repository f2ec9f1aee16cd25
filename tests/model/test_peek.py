"""What a message begins with, against what it decodes to."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.feeds import open_feed
from k2.model import encode, peek, versions


def datum(text: bytes, rest: bytes = b"\x02rest") -> bytes:
    """An Avro string of up to 63 bytes, and what follows."""
    return bytes([len(text) * 2]) + text + rest


@given(st.lists(st.text(max_size=15), max_size=40), st.integers(0, 3))
def test_what_avro_wrote_is_seen(texts: list[str], skipped: int) -> None:
    values = pa.array([datum(text.encode()) for text in texts], pa.binary()).slice(skipped)
    found = peek(values)
    assert [found.symbols[code] for code in found.codes] == texts[skipped:]
    assert -1 not in found.codes


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\x08BTC",  # cut
        b"\x07BTCU",  # a length below zero
        b"\x80\x02" + b"x" * 128,  # more than 63 bytes
        b"\x04\xff\xfe.",  # no UTF-8
    ],
)
def test_what_cannot_be_seen_is_told(broken: bytes) -> None:
    found = peek(pa.array([datum(b"BTCUSDT"), broken, datum(b"ETHUSDT")], pa.binary()))
    assert found.codes[1] == -1
    assert [found.symbols[code] for code in found.codes[[0, 2]]] == ["BTCUSDT", "ETHUSDT"]


def test_texts_that_differ_in_what_is_behind_them_only_are_one() -> None:
    values = [datum(b"BTC", b"123456789"), datum(b"BTC", b"987654321"), datum(b"BTC\0", b"")]
    found = peek(pa.array(values, pa.binary()))
    assert [found.symbols[code] for code in found.codes] == ["BTC", "BTC", "BTC\0"]


@pytest.mark.parametrize("kind", ["trades", "quotes"])
def test_the_symbol_is_what_records_begin_with(kind: str) -> None:
    feed = open_feed(f"simulator:?rate=max&kinds={kind}", None, lambda: datetime.now(UTC))
    table = feed.read()[0].table
    for schema in versions(kind):
        found = peek(encode(table, schema))
        symbols = [found.symbols[code] for code in found.codes]
        assert symbols == table["symbol"].cast(pa.string()).to_pylist()
