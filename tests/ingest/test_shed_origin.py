"""Which commit brought in what was shed: against a plain account of who shed and filled what."""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from k2.ingest.origin import Origins, joined
from k2.ingest.shed import LATER, WHOLE
from k2.ingest.shed_origin import UNKNOWN, WAITS, ShedOrigins
from k2.lake import ShedRange, TopicOffsets, offsets_to_json
from k2.lake.offsets import shed_to_json
from k2.lake.places import to_distances

TOPIC = "market.crypto.trades.venue"
PLACE = (TOPIC, "log-1", 0)
OLDER = 8
"""Commits up to this one are of a K2 that did not keep what each filled."""
SCHEMA = pa.schema(
    [
        ("event", pa.string()),
        ("id", pa.string()),
        ("log_topic", pa.string()),
        ("log_id", pa.string()),
        ("log_partition", pa.int32()),
        ("log_offset", pa.int64()),
        ("end_offset", pa.int64()),
        ("distances", pa.binary()),
    ]
)


@dataclass
class Account:
    """One partition: entries of the ledger, commits, and offset by offset what became of it."""

    chance: random.Random
    entries: list[dict[str, object]] = field(default_factory=list)
    commits: list[dict[str, object]] = field(default_factory=list)
    became: list[dict[int, int]] = field(default_factory=list)
    """After each commit, the commit of each offset (or `WAITS` or `UNKNOWN`)."""
    waiting: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    open: dict[str, tuple[int, int]] = field(default_factory=dict)
    end: int = 0

    @property
    def now(self) -> dict[int, int]:
        return dict(self.became[-1]) if self.became else {}

    def entry(self, event: str, id_: str, first: int, end: int, distances: bytes | None) -> None:
        values = (event, id_, *PLACE, first, end, distances)
        self.entries.append(dict(zip(SCHEMA.names, values, strict=True)))

    def commit(self, now: dict[int, int], filled: list[ShedRange]) -> None:
        number = len(self.commits) + 1
        kept = shed_to_json(filled) if filled and number > OLDER else None
        offsets = offsets_to_json({TOPIC: TopicOffsets("log-1", {0: self.end})})
        self.commits.append({"commit": number, "offsets": offsets, "filled": kept})
        self.became.append(now)

    def shed(self, id_: str, offsets: list[int], *, whole: bool) -> None:
        first, end = offsets[0], offsets[-1] + 1
        distances = None if whole else to_distances(np.array(offsets, np.int64))
        self.entry("shed", id_, first, end, distances)
        self.open[id_] = (self.open.get(id_, (first, end))[0], end)
        self.waiting[id_] += offsets

    def pass_some(self) -> None:
        """Records come: all of them rows, or some of them or all of them are shed."""
        now, number = self.now, len(self.commits) + 1
        came = list(range(self.end, self.end + self.chance.randrange(1, 12)))
        self.end = came[-1] + 1
        now |= dict.fromkeys(came, number)
        called = f"time {number // 7}"
        how = self.chance.choice(["rows", "some", "some", "all"])
        if how == "some":
            came = sorted(self.chance.sample(came, self.chance.randrange(1, len(came) + 1)))
        if how != "rows":
            self.shed(called + (WHOLE if how == "all" else ""), came, whole=how == "all")
            now |= dict.fromkeys(came, WAITS)
        self.commit(now, [])

    def fill_some(self) -> None:
        """The front of an open range comes in; of one that was shed whole, some is shed anew."""
        if not self.open:
            return
        id_ = self.chance.choice(sorted(self.open))
        now, number = self.now, len(self.commits) + 1
        first, last = self.open.pop(id_)
        end = self.chance.randrange(first + 1, last + 1)
        if end < last:
            self.open[id_] = (end, last)
        mine = [offset for offset in self.waiting[id_] if offset < end]
        self.waiting[id_] = [offset for offset in self.waiting[id_] if offset >= end]
        now |= dict.fromkeys(mine, number if number > OLDER else UNKNOWN)
        self.entry("filled", id_, first, end, None)
        if id_.endswith(WHOLE) and len(mine) > 1:
            anew = sorted(self.chance.sample(mine, self.chance.randrange(1, len(mine))))
            self.shed(id_.removesuffix(WHOLE) + LATER, anew, whole=False)
            now |= dict.fromkeys(anew, WAITS)
        self.commit(now, [ShedRange(id_, *PLACE, first, end, len(mine))])


@pytest.mark.parametrize("seed", range(25))
def test_each_offset_has_the_commit_that_brought_it(seed: int) -> None:
    account = Account(random.Random(seed))
    for _ in range(60):
        account.chance.choice([account.pass_some, account.fill_some])()
    entries = pa.Table.from_pylist(account.entries, schema=SCHEMA)
    commits = pa.Table.from_pylist(
        account.commits,
        schema=pa.schema(
            [("commit", pa.int64()), ("offsets", pa.string()), ("filled", pa.string())]
        ),
    )
    seen = set()
    for until in range(OLDER, len(account.commits) + 1):
        expected = account.became[until - 1]
        shed = ShedOrigins(entries, commits, until)
        found = Origins(commits.slice(0, until), shed)
        offsets = np.array(sorted(expected), np.int64)
        assert found.commits(PLACE, offsets).tolist() == [expected[o] for o in offsets.tolist()]
        waits = [expected[o] == WAITS for o in offsets.tolist()]
        assert found.waiting(PLACE, offsets).tolist() == waits
        seen |= set(expected.values())
        for commit in {*expected.values()} - {WAITS}:
            ranges = found.ranges(np.array([commit])).get(PLACE, [])
            mine = {offset for offset, by in expected.items() if by == commit}
            assert mine <= {o for first, end in ranges for o in range(first, end)}
            assert all(end < first for (_, end), (first, _) in pairwise(ranges))
    assert {WAITS, UNKNOWN} & seen


def test_ranges_that_overlap_or_touch_are_one() -> None:
    starts, ends = np.array([0, 2, 10, 11, 30]), np.array([9, 4, 12, 11, 40])
    assert joined(starts, ends, 0) == [(0, 9), (10, 12), (30, 40)]
    assert joined(starts, ends, 1) == [(0, 12), (30, 40)]
    assert joined(starts, ends, 100) == [(0, 40)]
