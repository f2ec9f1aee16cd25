"""What moves a writer: its clock, and who runs its commits. Tests and chaos turn them by hand."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass


def _own_thread(kind: str) -> Executor:
    # One thread a table: commits of a table follow each other, and reading goes on meanwhile.
    return ThreadPoolExecutor(1, thread_name_prefix=f"commit-{kind}")


@dataclass(frozen=True)
class Drive:
    """`clock` is monotonic, in seconds; `committer` opens what runs the commits of a kind, one
    after the other.
    """

    clock: Callable[[], float] = time.monotonic
    committer: Callable[[str], Executor] = _own_thread
