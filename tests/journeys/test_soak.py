"""The three parts for many minutes, killed once a minute: what they hold does not grow."""

import os
import random
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest

from k2.ingest import audit
from tests.cli.conftest import K2
from tests.journeys.home import open_home
from tests.journeys.test_processes import machine

MINUTES = float(os.environ.get("K2_SOAK_MINUTES", "30"))
LOOKS_A_MINUTE = 12


def memory(pid: int) -> int:
    """Resident bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def handles(pid: int) -> int:
    """Open files and sockets."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def metadata_files(home: Path) -> int:
    """Files that say what the tables hold; those with their rows become more, and have to."""
    return sum(1 for file in home.glob("lake/tables/*/metadata/*") if file.is_file())


def grown(seen: list[int]) -> float:
    """The last quarter beside the second, which no start distorts."""
    quarter = len(seen) // 4
    return median(seen[-quarter:]) / median(seen[quarter : 2 * quarter])


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_nothing_grows_and_nothing_is_lost(k2: K2, tmp_path: Path) -> None:
    home = tmp_path / "home"
    chance = random.Random(20261124)
    seen: dict[str, list[int]] = defaultdict(list)
    with machine(home) as parts:
        parts.ask("/v1/symbols")
        for minute in range(max(int(MINUTES), 1)):
            if minute:
                # The server lives on, to be looked at; the others are killed in turn.
                victim = ("feed", "writer")[minute % 2]
                parts.kill(victim)
                parts.start(victim)
            for _ in range(LOOKS_A_MINUTE):
                time.sleep(60 / LOOKS_A_MINUTE * (0.5 + chance.random()))
                for path in ("/v1/symbols", "/v1/stats", "/v1/trades?last=100"):
                    parts.ask(path)
                pid = parts.running["server"].pid
                seen["memory"].append(memory(pid))
                seen["handles"].append(handles(pid))
                seen["metadata files"].append(metadata_files(home))
        assert parts.end("feed") == 0
        assert parts.end("writer") == 0
        assert parts.end("server") == 0
    assert k2("ingest", "--until-caught-up").code == 0
    with open_home(home) as opened:
        found = audit(opened.log, opened.lake)
        assert found.ok
        assert sum(part.in_flight for part in found.partitions) == 0
    print({name: (min(s), max(s), round(grown(s), 2)) for name, s in seen.items()})  # noqa: T201
    assert grown(seen["memory"]) < 1.2
    assert grown(seen["handles"]) < 1.2
    assert grown(seen["metadata files"]) < 1.5
