"""What is free goes back to the system."""

import ctypes
import os
import subprocess
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


@pytest.mark.parametrize("said", ["", "jemalloc"])
def test_the_command_line_has_arrow_allocate_as_all_the_rest(said: str) -> None:
    program = """
import sys
from k2.cli.main import main
try:
    main(["version"])
except SystemExit:
    pass
import pyarrow
sys.stdout.write(pyarrow.default_memory_pool().backend_name)
"""
    rest = {k: v for k, v in os.environ.items() if k != "ARROW_DEFAULT_MEMORY_POOL"}
    given = {"ARROW_DEFAULT_MEMORY_POOL": said} if said else {}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**rest, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(said or "system")
