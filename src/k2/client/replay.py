"""A replay over HTTP: pages of the server, given at their time on this side.

Comes in: a function that asks for a page. Goes out: batches, each with the position behind it.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from k2.errors import BadInput
from k2.pace import Schedule

Ask = Callable[[Mapping[str, Any]], tuple[pa.Table, str | None]]
"""The page that this question gives, and the token of the next one."""


@dataclass(frozen=True)
class Batch:
    """Records that are due together, in total order: `kind`, then the columns of all kinds.

    `position`, given back as `after`, is where a replay goes on that has given these.
    """

    records: pa.Table
    position: str


def replayed(
    ask: Ask,
    question: Mapping[str, Any],
    *,
    speed: float | None,
    after: str | None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[Batch]:
    """Batches, each when it is due; the next page is fetched meanwhile.

    A position is the server's, before a page, and how many of its records were given.
    """
    token, skip = _parse(after)
    schedule = Schedule(speed)
    with ThreadPoolExecutor(1, thread_name_prefix="k2-client") as thread:
        page = thread.submit(ask, {**question, **({"after": token} if token else {})})
        while True:
            table, following = page.result()
            ahead: Future[tuple[pa.Table, str | None]] | None = None
            if following is not None:
                ahead = thread.submit(ask, {**question, "after": following})
            begin = json.loads(table.schema.metadata[b"k2.meta"])["replay"]["position"]
            table = table.replace_schema_metadata(None)
            times = table["timestamp"].cast(pa.int64()).to_numpy()
            at = min(skip, len(times))
            skip -= at
            while at < len(times):
                end, seconds = schedule.due(times, at, clock())
                if end == at:
                    wait(seconds)
                    continue
                yield Batch(table.slice(at, end - at), f"{begin}.{end}")
                at = end
            if ahead is None:
                return
            page = ahead


def _parse(after: str | None) -> tuple[str | None, int]:
    if after is None:
        return None, 0
    token, _, given = after.rpartition(".")
    if not token or not given.isdecimal():
        raise BadInput(
            "this is no position of a replay", found=after[:40], expected="what a batch gave"
        )
    return token, int(given)
