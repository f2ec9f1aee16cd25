"""Offsets of shed records as the ledger keeps them, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import Broken
from k2.lake.places import from_distances, to_distances


@given(
    st.integers(0, 2**40),
    st.lists(st.one_of(st.integers(1, 300), st.integers(1, 2**35)), max_size=60),
)
def test_offsets_come_back(first: int, steps: list[int]) -> None:
    offsets = np.cumsum(np.array([first, *steps], np.int64))
    raw = to_distances(offsets)
    assert from_distances(first, raw, "here").tolist() == offsets.tolist()
    if all(step < 128 for step in steps):
        assert len(raw) == len(steps)


def test_a_varint_is_as_others_write_it() -> None:
    assert to_distances(np.array([5, 305, 306], np.int64)) == b"\xac\x02\x01"


def test_bytes_that_were_cut_are_told() -> None:
    with pytest.raises(Broken, match="cut off"):
        from_distances(0, b"\x01\x80", "here")
