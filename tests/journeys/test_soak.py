"""Every part for many minutes, a fault each minute: what they hold does not grow.

`K2_SOAK_MINUTES` says how long, `K2_SOAK_RATE` how many records a second, `K2_TEST_SEEDS` which
faults come.
"""

import json
import os
import random
import resource
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Final

import pytest

from k2.ingest import audit
from tests.cli.conftest import K2
from tests.journeys.home import open_home
from tests.journeys.test_processes import SYMBOLS, Machine, machine

MINUTES = float(os.environ.get("K2_SOAK_MINUTES", "30"))
RATE = int(os.environ.get("K2_SOAK_RATE", "2000"))
SEED = int(os.environ.get("K2_TEST_SEEDS", "1").partition(",")[0])
LOOKS_A_MINUTE = 12
FAULT_SECONDS = 3.0


def memory(pid: int) -> int:
    """Resident bytes."""
    return of_status(pid, "VmRSS:") * 1024


def handles(pid: int) -> int:
    """Open files and sockets."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return of_status(pid, "Threads:")


def of_status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def metadata_files(home: Path) -> int:
    """Files that say what the tables hold; those with their rows become more, and have to."""
    return sum(1 for file in home.glob("lake/tables/*/metadata/*") if file.is_file())


def data_files(home: Path) -> int:
    """Files with rows, those included that nothing needs any more."""
    return sum(1 for _ in home.glob("lake/tables/*/data/**/*.parquet"))


def grown(seen: list[int], of: Callable[[list[int]], float] = median) -> float:
    """The last quarter beside the second, which no start distorts."""
    quarter = len(seen) // 4
    return of(seen[-quarter:]) / of(seen[quarter : 2 * quarter])


def show(folder: Path, seen: Mapping[str, list[int]]) -> None:
    """Print what was measured, and keep all of it in `seen.json`."""
    told = {n: (min(s), max(s), len(s), round(grown(s), 2)) for n, s in seen.items()}
    print("\n".join(f"{name}: {figures}" for name, figures in told.items()))  # noqa: T201
    (folder / "seen.json").write_text(json.dumps(seen))


# ------------------------------------------------------------------------- a fault each minute


def kill(parts: Machine, chance: random.Random) -> None:
    """The server lives on, to be looked at."""
    victim = chance.choice(("feed", "writer", "maintenance"))
    parts.kill(victim)
    parts.start(victim)


def freeze(parts: Machine, chance: random.Random) -> None:
    process = parts.running[chance.choice(tuple(parts.running))]
    process.send_signal(signal.SIGSTOP)
    time.sleep(FAULT_SECONDS)
    process.send_signal(signal.SIGCONT)


def lock(parts: Machine, chance: random.Random) -> None:
    """Somebody else holds the log or the catalog."""
    file = chance.choice(("log.db", "lake/catalog.db"))
    with closing(sqlite3.connect(parts.home / file, timeout=30)) as held:
        held.execute("BEGIN IMMEDIATE")
        time.sleep(FAULT_SECONDS)
        held.rollback()


def fill_disk(parts: Machine, chance: random.Random) -> None:
    """No file of the part can grow."""
    pid = parts.running[chance.choice(("feed", "writer", "maintenance"))].pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (chance.choice((0, 5_000)), before[1]))
    time.sleep(FAULT_SECONDS)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


FAULTS: Final[tuple[Callable[[Machine, random.Random], None], ...]] = (
    kill,
    freeze,
    lock,
    fill_disk,
)


class Seen:
    """What was measured of each process, life by life, and of the home."""

    def __init__(self) -> None:
        self._lives: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.home: dict[str, list[int]] = defaultdict(list)

    def look(self, parts: Machine) -> None:
        parts.check()
        for part, process in parts.running.items():
            for measure in (memory, handles, threads):
                self._lives[f"{measure.__name__} of {part}", process.pid].append(
                    measure(process.pid)
                )
        self.home["metadata files"].append(metadata_files(parts.home))
        self.home["data files"].append(data_files(parts.home))

    def longest(self) -> dict[str, list[int]]:
        """Of each measure, its longest life."""
        found: dict[str, list[int]] = {}
        for (name, _), life in self._lives.items():
            found[name] = max(found.get(name, []), life, key=len)
        return found


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_nothing_grows_and_nothing_is_lost(
    k2: K2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was compacted away goes soon enough to be seen going.
    monkeypatch.setenv("K2_REMOVE_AFTER_SECONDS", "300")
    home = tmp_path / "home"
    chance = random.Random(SEED)
    seen = Seen()
    struck: Counter[str] = Counter()
    with machine(home, f"simulator:?symbols={SYMBOLS}&rate={RATE}&seed=21") as parts:
        parts.start("maintenance")
        parts.ask("/v1/symbols")
        for minute in range(max(int(MINUTES), 1)):
            if minute:
                fault = chance.choice(FAULTS)
                struck[fault.__name__] += 1
                fault(parts, chance)
            for _ in range(LOOKS_A_MINUTE):
                time.sleep(60 / LOOKS_A_MINUTE * (0.5 + chance.random()))
                for path in ("/v1/symbols", "/v1/stats", "/v1/trades?last=100"):
                    parts.ask(path)
                seen.look(parts)
        for part in ("feed", "maintenance", "writer", "server"):
            assert parts.end(part) == 0
    assert k2("ingest", "--until-caught-up").code == 0
    with open_home(home) as opened:
        found = audit(opened.log, opened.lake)
        assert found.ok
        assert sum(part.in_flight for part in found.partitions) == 0
    lives = seen.longest()
    print(struck)  # noqa: T201
    show(tmp_path, lives | seen.home)
    for name, life in lives.items():
        # Maintenance takes memory for as long as it merges, and keeps none of it.
        at_rest = min if name.endswith(" of maintenance") else median
        assert grown(life, at_rest) < 1.2, name
    for name, counts in seen.home.items():
        assert grown(counts) < 1.5, name
