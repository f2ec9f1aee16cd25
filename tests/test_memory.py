"""What is free goes back to the system."""

import ctypes
import os
import sys

import pytest

from k2.memory import release_memory


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="only glibc gives memory back",
)
def test_holes_between_what_is_used_are_given_back() -> None:
    blocks = [ctypes.create_string_buffer(b"x" * 20_000, 20_000) for _ in range(5_000)]
    kept = blocks[::50]
    del blocks
    before = resident()
    release_memory()
    assert before - resident() > 50_000_000
    assert all(block.raw[0] == ord("x") for block in kept)
