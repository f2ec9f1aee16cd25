"""Runs: one seed, one small home, some dozen faults, and the proof afterwards.

Comes in: a seed. Goes out: how often each fault struck, or `Broken` with the command that makes
the same run again.
"""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from k2.chaos.check import check_end, check_rows
from k2.chaos.faults import Tally
from k2.chaos.journal import Journal
from k2.chaos.market import TOPICS
from k2.chaos.scene import WRITERS, Scene, draw_plan
from k2.chaos.trouble import TROUBLES
from k2.chaos.turning import Clock
from k2.chaos.writing import World
from k2.errors import Broken
from k2.lake import open_lake
from k2.log import Log, open_log, open_registry
from k2.log.sqlite import SqliteLog
from k2.model import versions
from k2.query import open_reader

SQLITE: Final = "sqlite"
_TICKS: Final = 70
_SQL: Final = {
    "trades": "select log_topic, log_partition, log_offset from trades",
    "quotes": "select log_topic, log_partition, log_offset from quotes",
}
_MEMORY: Final = Path("/dev/shm")
"""Runs are small and many: where memory is a file system, no disk is worn out by them."""


@dataclass(frozen=True)
class Played:
    """What many runs came to: runs, and how often each fault struck."""

    runs: int
    faults: Tally

    @property
    def count(self) -> int:
        """All faults."""
        return self.faults.total()


def play_many(
    seed: int,
    enough: Callable[[Played], bool],
    *,
    log: str = SQLITE,
    tell: Callable[[Played], None] = lambda played: None,
) -> Played:
    """Runs of the seeds from `seed` on, until it is `enough`.

    `log` is `sqlite`, or the URL of another, in which each run has topics of its own. Raises
    `Broken` at the first run that proves something wrong.
    """
    played = Played(0, Counter())
    while not enough(played):
        faults = play(seed + played.runs, log=log)
        played = Played(played.runs + 1, played.faults + faults)
        tell(played)
    return played


def play(seed: int, *, log: str = SQLITE) -> Tally:
    """One run; the faults that struck. Raises `Broken`."""
    memory = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="k2-chaos-", dir=memory) as folder:
        try:
            return _play(seed, Path(folder), log)
        except Exception as error:
            again = f"k2 chaos --seed {seed} --runs 1"
            again += "" if log == SQLITE else f" --log {log}"
            raise Broken(
                f"chaos found a fault of K2: {type(error).__name__}: {error}",
                place=f"seed {seed}",
                hint=f"{again} repeats it",
            ) from error


def _play(seed: int, folder: Path, log: str) -> Tally:
    chance = random.Random(seed)
    with _world(seed, folder, log, chance) as (world, url):
        lake = open_lake(
            folder / "lake",
            clock=world.clock.now,
            unique=world.unique,
            keep_snapshots=world.keep_snapshots,
        )
        with closing(lake):
            scene = Scene(world, lake, draw_plan(chance), chance)
            for _ in range(_TICKS):
                _tick(scene)
            scene.settle()
            check_end(world.log, lake, world.journal, scene.market)
            if chance.random() < 0.2:
                _ask_the_engine(world, url)
        for process in filter(None, scene.writers):
            process.drop()
    return world.tally


@contextmanager
def _world(seed: int, folder: Path, log: str, chance: random.Random) -> Iterator[tuple[World, str]]:
    clock = Clock()
    ids = random.Random(seed)
    with ExitStack() as stack:
        url = f"sqlite:{folder / 'log.db'}" if log == SQLITE else _own_topics(log, seed)
        opened: Log = (
            SqliteLog(folder / "log.db", clock=clock.now) if log == SQLITE else open_log(url)
        )
        stack.enter_context(closing(opened))
        registry = stack.enter_context(closing(open_registry(f"embedded:{folder / 'registry.db'}")))
        registry.register(TOPICS["trades"].subject, versions("trades")[0].avro)
        yield (
            World(
                folder,
                opened,
                registry,
                Journal(registry),
                clock,
                Counter(),
                lambda: UUID(int=ids.getrandbits(128), version=4),
                chance.choice((2, 5, 100)),
            ),
            url,
        )


def _own_topics(log: str, seed: int) -> str:
    """The log with a prefix that no other run has: one that is repeated finds no old topics."""
    return f"{log}{'&' if '?' in log else '?'}prefix=chaos-{seed}-{time.time_ns()}."


def _tick(scene: Scene) -> None:
    """Let one thing happen, now and then with trouble on the way."""
    chance = scene.chance
    if chance.random() < 0.9:
        chance.choice(TROUBLES)(scene)
    scene.world.clock.go_on(chance.choice((0.05, 0.3, 0.3, 2.0)))
    what, number = chance.random(), chance.randrange(WRITERS)
    if what < 0.3:
        scene.market.trade_on(chance.randrange(1, 25))
        scene.feed()
    elif what < 0.75:
        scene.step(number)
        if chance.random() < 0.6:
            scene.commit(number)
    elif what < 0.82:
        scene.commit(number)
    elif what < 0.95:
        scene.look()
    elif what < 0.98:
        scene.finish(number)
    else:
        scene.accept_losses()


def _ask_the_engine(world: World, url: str) -> None:
    """A user's SQL has the same rows as the checker."""
    registry = f"embedded:{world.folder / 'registry.db'}"
    with open_reader(world.folder, log=url, registry=registry, clock=world.clock.now) as reader:
        for kind, text in _SQL.items():
            check_rows(reader.sql(text).table.to_pylist(), (), world.journal, kind)
