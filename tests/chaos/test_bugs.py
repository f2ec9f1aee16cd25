"""One bug at each seam, put in on purpose: chaos finds it within a few runs.

What is patched here is a line of K2, as a mistake of tomorrow would change it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from k2.chaos import play
from k2.errors import Broken, Unavailable
from k2.feeds.run import _Run
from k2.ingest import follow, known, waiting
from k2.ingest.decide import Decider
from k2.ingest.follow import Follower
from k2.ingest.marks import Marks
from k2.ingest.sift import Sieve
from k2.lake import Snapshot, commit, ledgers
from k2.lake.catalog import Catalog
from k2.lake.commit import Commit
from k2.lake.offsets import Offsets, merge
from k2.lake.stage import Staged
from k2.lake.table import LakeTable

RUNS = 50
Patch = pytest.MonkeyPatch


def feed_takes_an_error_for_done(patch: Patch) -> None:
    insist = _Run._insist

    def careless(self: _Run, write: Callable[[], object]) -> bool:
        def once() -> None:
            try:
                write()
            except Unavailable:
                return

        return insist(self, once)

    patch.setattr(_Run, "_insist", careless)


def trimmed_records_are_passed_over(patch: Patch) -> None:
    begin = Follower._begin

    def silent(self: Follower, topic: str, partition: int) -> bool:
        if begin(self, topic, partition):
            return True
        start = self._log.start_offset(topic, partition)
        self.stopped.pop((topic, partition), None)
        self.next_offset[topic][partition] = start
        return True

    patch.setattr(Follower, "_begin", silent)


def registry_away_is_no_schema(patch: Patch) -> None:
    look_up = Decider._look_up

    def hasty(self: Decider, schema_id: int) -> Any:
        try:
            return look_up(self, schema_id)
        except Unavailable:
            return f"schema id {schema_id} is not known to the registry"

    patch.setattr(Decider, "_look_up", hasty)


def offsets_are_not_compared(patch: Patch) -> None:
    def blind(change: Commit, head: Snapshot) -> Offsets:
        return merge(change.start, change.end, head.offsets)

    patch.setattr(commit, "offsets_after", blind)


def lost_swap_is_taken_for_won(patch: Patch) -> None:
    swap = Catalog.swap

    def proud(self: Catalog, *arguments: Any) -> bool:
        swap(self, *arguments)
        return True

    patch.setattr(Catalog, "swap", proud)


def lost_answer_is_taken_for_a_failure(patch: Patch) -> None:
    patch.setattr(commit, "holds", lambda metadata, change_id: False)


def cleaned_files_are_committed(patch: Patch) -> None:
    patch.setattr(Staged, "complete", lambda self: True)


def outbox_is_not_written(patch: Patch) -> None:
    patch.setattr(commit, "outbox_to_json", lambda outbox: "[]")


def outbox_is_absorbed_twice(patch: Patch) -> None:
    taking = ledgers._taking

    def again(main: Snapshot, done: int, files: Any) -> Any:
        change = taking(main, done, files)

        def properties(head: Snapshot, sequence: int) -> Any:
            return change.properties(replace(head, absorbed={main.table: done}), sequence)

        return replace(change, properties=properties)

    patch.setattr(ledgers, "_taking", again)


def restart_forgets_what_is_known(patch: Patch) -> None:
    patch.setattr(known, "read_marks", lambda table, snapshot, kind: Marks.of_nothing(table))


def rejected_records_are_dropped(patch: Patch) -> None:
    validate = Sieve._validate

    def lax(self: Sieve, rows: pa.Table, raw: Any) -> Any:
        kept, rejected = validate(self, rows, raw)
        return kept, rejected.slice(0, 0)

    patch.setattr(Sieve, "_validate", lax)


def swap_compares_nothing(patch: Patch) -> None:
    swap = Catalog.swap

    def careless(self: Catalog, table: str, old: str, new: str, ready: Callable[[], bool]) -> bool:
        return swap(self, table, Catalog.location(self, table) or old, new, ready)

    patch.setattr(Catalog, "swap", careless)


def shed_ranges_are_not_kept(patch: Patch) -> None:
    patch.setattr(commit, "_shed", lambda change, head: {})


def tail_keeps_what_is_committed(patch: Patch) -> None:
    patch.setattr(waiting, "past", lambda rows, snapshot: rows)


def tail_leaves_out_what_waits(patch: Patch) -> None:
    poll = Follower.poll

    def quiet(self: Follower, *arguments: Any) -> Any:
        found = poll(self, *arguments)
        self.waiting.clear()
        return found

    patch.setattr(follow.Follower, "poll", quiet)


def clock_decides_the_order_of_commits(patch: Patch) -> None:
    def naive(self: LakeTable, after: object = None) -> int:
        return int(self._clock().timestamp() * 1000)

    patch.setattr(LakeTable, "now_ms", naive)


BUGS: dict[str, list[Callable[[Patch], None]]] = {
    "feed": [feed_takes_an_error_for_done],
    "log": [trimmed_records_are_passed_over],
    "registry": [registry_away_is_no_schema],
    "catalog": [
        offsets_are_not_compared,
        swap_compares_nothing,
        lost_swap_is_taken_for_won,
        lost_answer_is_taken_for_a_failure,
    ],
    "object files": [cleaned_files_are_committed, outbox_is_not_written, outbox_is_absorbed_twice],
    "writer": [
        restart_forgets_what_is_known,
        rejected_records_are_dropped,
        shed_ranges_are_not_kept,
    ],
    "server": [tail_keeps_what_is_committed, tail_leaves_out_what_waits],
    "clock": [clock_decides_the_order_of_commits],
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "bug", [pytest.param(bug, id=f"{seam}-{bug.__name__}") for seam in BUGS for bug in BUGS[seam]]
)
def test_a_bug_is_found(bug: Callable[[Patch], None], monkeypatch: Patch) -> None:
    bug(monkeypatch)
    hints = (hint_of(seed) for seed in range(RUNS))
    seed, hint = next((at for at in enumerate(hints) if at[1]), (RUNS, ""))
    assert f"k2 chaos --seed {seed} --runs 1" in hint, "not found"


def hint_of(seed: int) -> str:
    """What is said where the run finds a bug; nothing where it finds none."""
    try:
        play(seed)
    except Broken as found:
        return str(found.hint)
    return ""
