"""Maintenance of a table: its files made few, and those that nothing needs any more removed.

Every step is a commit of its own or a note beside the table, so that it may be stopped or killed at
any moment, and run beside writers, readers and itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from k2.lake.compact import Job, Step, compact, plan
from k2.lake.expire import CLEAN_AFTER, clean
from k2.lake.remove import REMOVE_AFTER, Removed, remove_unneeded

if TYPE_CHECKING:
    from k2.lake.lake import Lake

_ROUNDS: Final = 100
"""Plans after which enough is done: only where others keep replacing the same files."""

Tell = Callable[[int, int], None]
"""Told how many rows were rewritten, and of how many that are due."""


@dataclass(frozen=True)
class Maintained:
    """What was done to a table, or would be: its files and their bytes before and after, commits
    that rewrote files and their rows, metadata files removed, and data files (see `Removed`).
    """

    table: str
    files_before: int
    files: int
    bytes_before: int
    bytes: int
    commits: int
    rows_rewritten: int
    metadata_removed: int
    removed: Removed


def maintain(
    lake: "Lake",
    name: str,
    *,
    after: timedelta = REMOVE_AFTER,
    dry_run: bool = False,
    may_go_on: Callable[[], bool] = lambda: True,
    tell: Tell = lambda done, total: None,
    on_step: Step = lambda step: None,
) -> Maintained:
    """Compact the table's files until none is due, and remove what nothing needs for `after`.

    `may_go_on` is asked before each job, and may take its time. With `dry_run` nothing is changed:
    the files after it are then those before. Raises as
    `k2.lake.compact.compact` and `LakeTable.commit` do.
    """
    table = lake.table(name)
    before = table.snapshot().files
    commits = rows = 0
    for _ in range(_ROUNDS):
        jobs = _plan(lake, name)
        if dry_run:
            commits, rows = len(jobs), sum(job.rows for job in jobs)
        if dry_run or not jobs:
            break
        total = rows + sum(job.rows for job in jobs)
        for job in jobs:
            if not may_go_on():
                break
            if compact(table, job, on_step) is not None:
                commits, rows = commits + 1, rows + job.rows
            tell(rows, total)
        else:
            continue
        break
    on_step("remove")
    removed = remove_unneeded(lake, name, after, dry_run=dry_run)
    cleaned = 0 if dry_run else clean(table, min(after, CLEAN_AFTER))
    left = table.snapshot().files
    if not dry_run:
        table.keep_index()
    return Maintained(
        name, len(before), len(left), before.bytes, left.bytes, commits, rows, cleaned, removed
    )


def _plan(lake: "Lake", name: str) -> list[Job]:
    table = lake.table(name)
    snapshot = table.snapshot()
    # The commit of each row would be written out wrongly, for good.
    doubtful = snapshot.files.doubtful(snapshot.foreign)
    now = datetime.fromtimestamp(table.now_ms() / 1000, UTC)
    jobs = plan(name, snapshot.files, table.buckets, snapshot.exchanges.values(), now)
    return [job for job in jobs if not any(file.path in doubtful for file in job.files)]
