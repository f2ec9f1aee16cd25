"""Processes that append are killed at any moment: what was acknowledged is there, and is whole."""

import random
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from k2.log import open_log

# Each message says which append it belongs to, to which partitions that went, its index and the
# number of messages; the append is told on stdout once it is acknowledged.
APPENDER = """
import random, sys
from pathlib import Path
import pyarrow as pa
from k2.log import Append, open_log
path, name = sys.argv[1:]
noise = random.Random(name)
log = open_log(Path(path))
log.create("t", 2)
for number in range(1 << 60):
    partitions = noise.choice(["0", "1", "01"])
    count = noise.choice([1, 10, 1000])
    padding = b"." * noise.choice([0, 0, 0, 3000])
    values = pa.array([
        f"{name} {number} {partitions} {index} {count} ".encode() + padding
        for index in range(count)
    ], pa.binary())
    offsets = log.append([Append("t", int(p), noise.randrange(3), values) for p in partitions])
    for partition, given in zip(partitions, offsets):
        print(partition, given[0], name, number, count, flush=True)
"""


@dataclass(frozen=True)
class Told:
    partition: int
    first: int
    name: str
    number: int
    count: int


def read_all(path: Path) -> list[list[list[str]]]:
    """The words of each message of both partitions; offsets have no hole."""
    found: list[list[list[str]]] = []
    with closing(open_log(path)) as log:
        for partition in (0, 1):
            values: list[bytes] = []
            while batches := log.read("t", partition, len(values), 4 << 20):
                for batch in batches:
                    assert batch.offsets[0] == len(values)
                    values += batch.values.to_pylist()
                    assert batch.next_offset == len(values)
            assert log.end_offset("t", partition) == len(values)
            found.append([value.decode().split()[:5] for value in values])
    return found


def check(path: Path, told: list[Told]) -> int:
    """Every append is whole, in all of its partitions, and each that was told is there.

    Returns how many there are.
    """
    found = read_all(path)
    seen: dict[tuple[str, int], str] = defaultdict(str)
    for partition, messages in enumerate(found):
        offset = 0
        while offset < len(messages):
            name, number, _, _, count = messages[offset]
            same = messages[offset : offset + int(count)]
            assert [words[:2] for words in same] == [[name, number]] * int(count)
            assert [int(words[3]) for words in same] == list(range(int(count)))
            seen[name, int(number)] += str(partition)
            offset += int(count)
    for messages in found:
        for name, number, partitions, _, _ in messages:
            assert seen[name, int(number)] == partitions
    for each in told:
        words = found[each.partition][each.first]
        assert words[:2] == [each.name, str(each.number)]
        assert words[3:] == ["0", str(each.count)]
    return len(seen)


def kill_at_random(path: Path, noise: random.Random, names: list[str]) -> list[Told]:
    """Let processes append, kill them a moment after their first append; what they told."""
    several = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, path, name], stdout=subprocess.PIPE, text=True
        )
        for name in names
    ]
    lines: list[str] = []
    for each in several:
        assert each.stdout is not None
        lines.append(each.stdout.readline())
    for each in several:
        time.sleep(noise.random() / 20)
        each.kill()
    for each in several:
        lines += each.communicate()[0].splitlines(keepends=True)
    words = [line.split() for line in lines if line.endswith("\n")]
    return [Told(int(p), int(first), name, int(n), int(c)) for p, first, name, n, c in words]


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_what_was_acknowledged_survives_sigkill(tmp_path: Path, rounds: int) -> None:
    path = tmp_path / "log.db"
    noise = random.Random(20261124)
    told: list[Told] = []
    for number in range(rounds):
        told += kill_at_random(path, noise, [f"a{number}", f"b{number}"])
        appends = check(path, told)
        # Each may have had one append under way that it could not tell of any more.
        unheard = appends - len({(each.name, each.number) for each in told})
        assert 0 <= unheard <= 2 * (number + 1)
