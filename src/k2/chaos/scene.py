"""One small home, whole: a market and its feed, two writers, a server's tail, an operator.

Each is moved by hand. What a fault ends is started again, as a supervisor would.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from k2.chaos.check import check_view, read_view, wrong
from k2.chaos.faults import Killed
from k2.chaos.market import Market, MarketFeed
from k2.chaos.ports import FaultyLog, FaultyRegistry
from k2.chaos.writing import Process, Seams, Sharing, World
from k2.errors import Broken, Conflict, NotFound, Unavailable
from k2.feeds.run import Pace, read_position, run_feed
from k2.ingest import (
    CommitLimits,
    Level,
    OverloadOptions,
    Pinned,
    Retention,
    Tail,
    Thresholds,
    Trigger,
    WriterOptions,
    accept_loss,
    table_of,
)
from k2.lake import Lake
from k2.lake.compact import Job, compact
from k2.log import Producer
from k2.model import CLOCK_SKEW

PARTITIONS: Final = 2
WRITERS: Final = 2
READ: Final = ("trades", "quotes")
"""The kinds that are asked for."""
_TAIL_ROWS: Final = 10**6
_HOWEVER_NEW: Final = timedelta(days=-36_500)
"""Files are of the machine's time, whatever the time of day is in a run."""
_PATIENCE: Final = 2_000
"""Steps within which everything must be committed once nothing strikes any more."""


@dataclass(frozen=True)
class Plan:
    """How a run's writers work: `overloaded` ones step back early, `shares` partitions or not."""

    options: WriterOptions
    overloaded: bool
    shares: bool


def draw_plan(chance: random.Random) -> Plan:
    """Any of the ways."""
    overloaded = chance.random() < 0.4
    lags = (30, 60, 120, 240) if overloaded else (10**9,) * 4
    triggers = {level: Trigger(lag, 2.0) for level, lag in zip(list(Level)[1:], lags, strict=True)}
    limits = CommitLimits(
        rows=chance.choice((20, 100, 10**6)),
        interval=timedelta(seconds=chance.choice((0, 1, 5))),
    )
    # The clock of a run is a day of the past: what is committed then, is old at once.
    age = chance.choice((timedelta(0), timedelta(days=36_500)))
    thresholds = Thresholds(triggers, calm_seconds=2.0, break_seconds=2.0)
    options = WriterOptions(
        limits, Retention(age), OverloadOptions(thresholds, memory_bytes=1 << 60), CLOCK_SKEW
    )
    return Plan(options, overloaded, chance.random() < 0.5)


class Scene:
    """A home in which everything may go wrong. `lake` is the checker's own."""

    def __init__(self, world: World, lake: Lake, plan: Plan, chance: random.Random) -> None:
        self.world = world
        self.lake = lake
        self.plan = plan
        self.chance = chance
        self.feed_seams = Seams(world.tally)
        self.server_seams = Seams(world.tally)
        self.market = Market(chance, self.feed_seams.feed)
        self.writers: list[Process | None] = [None] * WRITERS
        self.sleepers: list[Process] = []
        """Writers that are frozen, in whose place others were started."""
        self.replaced: set[str] = set()
        """Files that a compaction took out of a table: who reads an older snapshot needs them."""
        self.rewind = 0
        self._seams = [Seams(world.tally) for _ in range(WRITERS)]
        self._sharing = [Sharing(world.log, rank, WRITERS) for rank in range(WRITERS)]
        self._commits: dict[tuple[str, int], int] = {}
        self._busy: list[Process] = []
        self._producer: Producer | None = None
        self._asked: list[tuple[Pinned, list[Mapping[str, Any]]]] = []
        self.start_server()

    # ------------------------------------------------------------------ the feed

    def feed(self) -> None:
        """Bring into the log what the market has sent, from where the feed stands."""
        seams, world = self.feed_seams, self.world
        log = FaultyLog(world.log, seams.log, world.journal.appended)
        if self._producer is None:
            registry = FaultyRegistry(world.registry, seams.registry)
            self._producer = Producer(log, registry, PARTITIONS, world.clock.seconds)
        at = int(read_position(world.log, MarketFeed.name) or 0)
        rewind, self.rewind = self.rewind, 0

        def opened(position: str) -> MarketFeed:
            return MarketFeed(self.market, position, seams.feed)

        hold_seconds = self.chance.choice((0.0, 10.0**9))  # a chunk at once, or all there are
        pace = Pace(10**6, hold_seconds, 0.0, 0.0, self.chance, opened)
        feed = opened(str(max(0, at - rewind)))
        try:
            run_feed(feed, self._producer, log, lambda: False, pace=pace)
        except Killed:
            self._producer = None

    # ------------------------------------------------------------------ the writers

    def writer(self, number: int) -> Process | None:
        """The writer of that number, started if it is down; None if it cannot start now."""
        if self.writers[number] is None:
            sharing = self._sharing[number] if self.plan.shares else None
            try:
                self.writers[number] = Process(
                    self.world, self.plan.options, sharing, self.other_first, self._seams[number]
                )
            except Unavailable:
                return None
        return self.writers[number]

    def step(self, number: int) -> bool:
        """One step of a writer; whether it had anything to do."""
        process = self.writer(number)
        return process is not None and self._move(process, process.step)

    def commit(self, number: int) -> None:
        """Let a writer's commits go on."""
        if (process := self.writers[number]) is not None:
            self._move(process, process.commit)

    def finish(self, number: int) -> None:
        """End a writer as an operator does."""
        if (process := self.writers[number]) is not None and self._move(process, process.finish):
            self.kill(number)

    def kill(self, number: int) -> None:
        """End it as it stands."""
        if (process := self.writers[number]) is not None:
            self.writers[number] = None
            process.drop()

    def freeze(self, number: int) -> None:
        """Have a writer sleep, and another one work in its place."""
        if (process := self.writers[number]) is not None:
            self.writers[number] = None
            self._seams[number] = Seams(self.world.tally)
            self.sleepers.append(process)

    def wake(self) -> None:
        """Let all sleepers go on where they were, and then end."""
        sleepers, self.sleepers = self.sleepers, []
        for process in sleepers:
            for call in (process.commit, process.step, process.commit):
                if process.is_alive:
                    self._move(process, call)
            process.drop()

    def seams_of(self, number: int) -> Seams:
        """The seams of that writer, whichever process it is."""
        return self._seams[number]

    def rebalance(self) -> None:
        """Have the writers take each other's partitions."""
        for sharing in self._sharing:
            sharing.turn += 1

    def other_first(self) -> None:
        """In the midst of one process's commit: let others do what they would."""
        idle = [n for n, p in enumerate(self.writers) if p is None or p not in self._busy]
        if idle:
            number = self.chance.choice(idle)
            self.step(number)
            self.commit(number)
        if self.chance.random() < 0.3:
            self.compact("trades")
        if self.chance.random() < 0.3:
            self.clean()
        if self.chance.random() < 0.5:
            self.lake.absorb(table_of(self.chance.choice(READ)))
        self.note_commits()

    def _move(self, process: Process, call: Callable[[], bool | None]) -> bool:
        """Let a process go on; it may end by it. Whether it did something and lives."""
        if process in self._busy:
            return False
        self._busy.append(process)
        try:
            return call() is not False
        except (Killed, Unavailable):
            self._end(process)
            return False
        finally:
            self._busy.remove(process)

    def _end(self, process: Process) -> None:
        process.drop()
        if process in self.writers:
            self.writers[self.writers.index(process)] = None

    # ------------------------------------------------------------------ the server

    def start_server(self) -> None:
        """A server that has read nothing yet."""
        world, seams = self.world, self.server_seams
        self._server = Tail(
            FaultyLog(world.log, seams.log, world.journal.appended),
            FaultyRegistry(world.registry, seams.registry),
            self.lake,
            CLOCK_SKEW,
            _TAIL_ROWS,
        )

    def note_commits(self) -> None:
        """A commit that anybody could have read is what it was: time travel leads to it for good.

        Without this a commit that another one overwrote would go unseen: its writer notices that
        the table's offsets fell, and commits the records once more.
        """
        for kind in READ:
            commits = self.lake.commits_of(kind).select(["commit", "snapshot_id"]).to_pydict()
            there = dict(zip(commits["commit"], commits["snapshot_id"], strict=True))
            for (of, number), snapshot in self._commits.items():
                if of == kind and there.get(number) != snapshot:
                    raise wrong(f"commit {number} was overwritten", kind)
            self._commits |= {(kind, number): snapshot for number, snapshot in there.items()}

    def look(self) -> None:
        """Ask for everything: the answer is right, or an error that says why there is none."""
        self.note_commits()
        for kind in READ:
            try:
                pinned = self._server.pin(kind)
            except (Unavailable, Conflict):
                continue
            except Broken:
                if self._is_cut():
                    continue
                raise
            rows = check_view(self.lake, self.world.journal, kind, pinned)
            self._asked.append((pinned, rows))
        # An answer may take long: whatever became of its files meanwhile, it is the same.
        for before, rows in self._asked[: -len(READ)]:
            if read_view(before) != rows:
                raise wrong("an answer that was under way changed", before.snapshot.table)
        del self._asked[: -len(READ)]

    def _is_cut(self) -> bool:
        """Whether the log lost what is not committed, and nobody has accepted that."""
        return any(
            self.world.log.start_offset(topic, partition) > offset
            for kind in READ
            for topic, of in self.lake.table(table_of(kind)).snapshot().offsets.items()
            for partition, offset in of.next_offset.items()
        )

    # ------------------------------------------------------------------ the operator

    def compact(self, kind: str) -> None:
        """Put fewer files in the place of some of a day, or settle them into buckets."""
        table = self.lake.table(table_of(kind))
        jobs = [
            Job(table.name, day, number, files, settles)
            for (day, number), files in table.snapshot().files.by_partition().items()
            for settles in ((0, 2, 5) if number is None else (0,))
            if len(files) > 1 or settles
        ]
        if not jobs:
            return
        job = self.chance.choice(jobs)
        least = 1 if job.settles else 2
        chosen = self.chance.sample(job.files, self.chance.randint(least, len(job.files)))
        job = replace(job, files=tuple(sorted(chosen, key=lambda file: file.sequence)))
        if job.settles:
            table.set_buckets(job.settles)
        if compact(table, job) is not None:
            self.replaced.update(file.path for file in job.files)

    def clean(self) -> None:
        """Delete metadata that nothing names, however new it is."""
        for kind in READ:
            self.lake.clean(table_of(kind), _HOWEVER_NEW)

    def accept_losses(self) -> None:
        """Go on behind what the log lost."""
        world = self.world
        for kind in READ:
            for loss in self.lake.table(table_of(kind)).snapshot().losses:
                if loss.accepted:
                    continue
                try:
                    given_up = accept_loss(world.log, self.lake, loss.place, world.clock.now())
                except NotFound:
                    continue  # a writer that had read these records has committed them since
                gone = range(given_up.first_offset, given_up.end_offset)
                places = {(loss.topic, loss.partition, offset) for offset in gone}
                world.journal.lost |= places & world.journal.messages.keys()

    # ------------------------------------------------------------------ the end

    def settle(self) -> None:
        """Nothing strikes any more: everything must come in by itself."""
        self.feed_seams.calm()
        self.server_seams.calm()
        for seams in self._seams:
            seams.calm()
        for process in self.sleepers:
            process.seams.calm()
        self.wake()
        self.feed()
        calm = 0
        for _ in range(_PATIENCE):
            self.world.clock.go_on(0.5)
            self.accept_losses()
            moved = False
            for number in range(WRITERS):
                moved |= self.step(number)
                self.commit(number)
            calm = 0 if moved or not self._is_settled() else calm + 1
            if calm == 3:
                break
        else:
            raise wrong(f"after {_PATIENCE} steps without a fault the writers are not done")
        for number in range(WRITERS):
            self.finish(number)
        self.look()

    def _is_settled(self) -> bool:
        return all(p is not None and p.is_done() and p.level is Level.NORMAL for p in self.writers)
