"""Disks that are full and files that are damaged: told with the place, waited for, never passed
over.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.cli.conftest import K2
from tests.conftest import missing

RECORDS = 60_000
MARKET = "simulator:?rate=max&symbols=3&seed=9&count="
FILE_ROOM, DISK_ROOM = 200_000, 500_000
"""Bytes: neither the log nor the tables of all records fit."""


class Disk(Protocol):
    """A folder on a small disk, and how to run K2 on it and to make room later."""

    folder: Path

    def command(self, *arguments: str) -> list[str]: ...

    def make_room(self, pid: int) -> None: ...


class FileLimit:
    """The kernel refuses to let the process's files grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, *arguments: str) -> list[str]:
        limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_ROOM}, resource.RLIM_INFINITY))"
        program = f"import resource; {limit}; from k2.cli.main import main; main()"
        return [sys.executable, "-c", program, *arguments]

    def make_room(self, pid: int) -> None:
        everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, everything)


class SmallDisk:
    """A file system that is full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "k2", *arguments]

    def make_room(self, pid: int) -> None:
        options = "remount,size=200m"
        subprocess.run(["mount", "-o", options, str(self.folder)], check=True)


@pytest.fixture(params=["limited files", "small disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limited files":
        yield FileLimit(folder)
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_ROOM}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        missing("the right to mount a small disk")
    yield SmallDisk(folder)
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[tuple[int, list[str]]]:
    """A process that is to end with 0 by itself; yields its pid and what it says, as it comes."""
    said: list[str] = []
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        assert process.stderr is not None
        stream = process.stderr
        reader = threading.Thread(target=lambda: said.extend(iter(stream.readline, "")))
        reader.start()
        try:
            yield process.pid, said
            assert process.wait(60) == 0, said
        finally:
            process.kill()
            reader.join()


def wait_for(words: str, said: list[str]) -> None:
    end = time.monotonic() + 60
    while not any(words in line for line in list(said)):
        assert time.monotonic() < end, said
        time.sleep(0.02)


def assert_all_committed(k2: K2, *home: str) -> None:
    ended = k2("audit", "--json", *home)
    assert ended.code == 0, ended.out
    parts = json.loads(ended.out)["partitions"]
    assert sum(part["committed"] for part in parts) == RECORDS
    assert sum(part["end_offset"] for part in parts) == RECORDS


@pytest.mark.slow
def test_a_feed_waits_for_room_in_the_log(k2: K2, disk: Disk) -> None:
    home = str(disk.folder / "home")
    feed = disk.command("--home", home, "feed", f"{MARKET}{RECORDS}")
    with running(feed) as (pid, said):
        wait_for("the log is away, records are kept", said)
        # What was appended before is there to be read; what was not is in nobody's way.
        disk.make_room(pid)
    assert k2("ingest", "--until-caught-up", "--home", home).code == 0
    assert_all_committed(k2, "--home", home)


@pytest.mark.slow
def test_a_writer_waits_for_room_in_the_tables(
    k2: K2, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert k2("feed", f"{MARKET}{RECORDS}").code == 0
    monkeypatch.setenv("K2_LAKE", str(disk.folder / "lake"))
    writer = disk.command("ingest", "--until-caught-up")
    with running(writer, K2_LAKE=str(disk.folder / "lake")) as (pid, said):
        wait_for("tried again", said)
        assert any(word in line for line in said for word in ("no space is left", "too large"))
        ended = k2("audit")
        assert ended.code in (0, 3), "in flight, or no room to look"
        disk.make_room(pid)
    assert_all_committed(k2)
    assert "Traceback" not in "".join(said)


def flipped(content: bytes, chance: random.Random) -> bytes:
    """The same with some bytes in the middle changed, as a bad disk would."""
    damaged = bytearray(content)
    first = chance.randrange(len(content) // 4, 3 * len(content) // 4)
    for at in range(first, min(first + chance.choice([1, 16, 4096]), len(content))):
        damaged[at] ^= chance.randrange(1, 256)
    return bytes(damaged)


@pytest.fixture
def market(k2: K2, tmp_path: Path) -> Path:
    """A home whose log has 2,000 records that are in the tables and as many that are not."""
    url = "simulator:?rate=max&symbols=3&seed=9&chunk=250&nominal=100&count="
    for arguments in (("feed", f"{url}2000"), ("ingest", "--until-caught-up")):
        assert k2(*arguments).code == 0
    assert k2("feed", f"{url}4000").code == 0
    return tmp_path / "home"


@pytest.mark.slow
def test_damage_in_the_log_is_named_and_never_passed_over(k2: K2, market: Path) -> None:
    log = market / "log.db"
    sound = log.read_bytes()
    lake = shutil.copytree(market / "lake", market / "lake.sound")
    wanted = json.loads(k2("trades", "--json").out)["data"]
    chance = random.Random(20261124)
    told = 0
    for _ in range(25):
        log.write_bytes(flipped(sound, chance))
        for side in ("log.db-wal", "log.db-shm"):
            (market / side).unlink(missing_ok=True)
        for question in (("audit",), ("ingest", "--until-caught-up"), ("trades", "--json")):
            ended = k2(*question)
            assert ended.code in (0, 1), (question, ended.talk)
            assert "fault of K2 itself" not in ended.talk
            if ended.code:
                told += 1
                assert "offset" in ended.talk or "log.db" in ended.talk or "topic" in ended.talk
            elif question[0] == "trades":
                # Damage that this answer did not need, or no damage at all: it is the whole one.
                assert json.loads(ended.out)["data"] == wanted
        shutil.rmtree(market / "lake")
        shutil.copytree(lake, market / "lake")
    assert told >= 25, "most damage must be seen"
    log.write_bytes(sound)
    assert k2("ingest", "--until-caught-up").code == 0
    ended = k2("audit", "--json")
    assert json.loads(ended.out)["ok"] is True
    assert json.loads(k2("trades", "--json").out)["data"] == wanted


@pytest.mark.slow
def test_damage_in_the_tables_is_named(k2: K2, market: Path) -> None:
    assert k2("ingest", "--until-caught-up").code == 0
    (path, *_) = sorted((market / "lake" / "tables" / "trades" / "data").rglob("*.parquet"))
    sound = path.read_bytes()
    questions: tuple[tuple[str, ...], ...] = (
        ("trades", "--csv"),
        ("bars", "BTCUSDT", "--interval", "1m"),
        ("sql", "select sum(price) from trades"),
    )
    wanted = [k2(*question).out for question in questions]
    for damaged in (sound[: len(sound) // 2], b"", b"x" * len(sound), None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        for question in questions:
            ended = k2(*question)
            assert ended.code == (1 if damaged is not None else 3)
            assert "damaged" in ended.talk or "cannot be read" in ended.talk
            assert path.name in ended.talk
        ended = k2("audit")
        assert ended.code == 1
        assert path.name in ended.talk
        path.write_bytes(sound)
    chance = random.Random(7)
    for _ in range(20):
        path.write_bytes(flipped(sound, chance))
        for question, right in zip(questions, wanted, strict=True):
            ended = k2(*question)
            # What decoders say of bad bytes has no end: in SQL it may look like a mistake.
            assert ended.code in ((0, 1, 2) if question[0] == "sql" else (0, 1))
            assert "fault of K2 itself" not in ended.talk
            if ended.code:
                assert ended.talk.startswith("k2: ")
            elif question[0] == "bars":
                # What the answer did not need is not looked at.
                assert len(ended.out.splitlines()) == len(right.splitlines())
        path.write_bytes(sound)
    assert k2("audit").code == 0
    assert [k2(*question).out for question in questions] == wanted


@pytest.mark.slow
def test_maintenance_goes_on_once_the_disk_has_room(k2: K2, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    follow = [sys.executable, "-m", "k2", "--home", home, "maintain", "--follow"]
    ingest = [sys.executable, "-m", "k2", "--home", home, "ingest", "--until-caught-up"]

    def more(count: int) -> None:
        """Records in many small files."""
        market = f"simulator:?rate=8000&symbols=3&seed=9&count={count}"
        with running([sys.executable, "-m", "k2", "--home", home, "feed", market]):
            for _ in range(2):
                with running(ingest, K2_COMMIT_INTERVAL_SECONDS="0.02"):
                    pass
        assert k2("--home", home, "ingest", "--until-caught-up").code == 0

    more(15_000)
    with running(follow, K2_MAINTAIN_SECONDS="0.1") as (pid, said):
        time.sleep(4)
        for turn, room in enumerate((0, 5_000, 60_000)):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            more(30_000 + 15_000 * turn)
            time.sleep(1)
        everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, everything)
        time.sleep(2)
        os.kill(pid, signal.SIGTERM)
    assert any("not maintained" in line for line in said), said
    assert not [*Path(home).rglob("*.part")], "what could not be written whole is gone"
    assert_all_committed(k2, "--home", home)
