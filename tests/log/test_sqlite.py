"""What is SQLite's alone: errors told apart, damage noticed, many openers, forks, time."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from k2.errors import BadInput, Broken, K2Error, Refused, Unavailable
from k2.log import Append
from k2.log.batch import BLOB_BYTES, BLOB_MESSAGES, MESSAGE_BYTES, pack
from k2.log.database import translate
from k2.log.embedded import EmbeddedRegistry
from k2.log.sqlite import SqliteLog

IMPATIENT = timedelta(milliseconds=50)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    opened = SqliteLog(tmp_path / "log.db")
    opened.create("t", 1)
    yield opened
    opened.close()


def append(log: SqliteLog, values: list[bytes]) -> int:
    (offsets,) = log.append([Append("t", 0, 1, pa.array(values, pa.binary()))])
    return int(offsets[0]) if len(offsets) else log.end_offset("t", 0)


def read(log: SqliteLog, offset: int = 0, max_bytes: int = 1 << 20) -> list[bytes]:
    values: list[bytes] = []
    while batches := log.read("t", 0, offset, max_bytes):
        for batch in batches:
            values += batch.values.to_pylist()
            offset = batch.next_offset
    return values


def test_every_error_of_sqlite_is_translated() -> None:
    names = [name for name in dir(sqlite3) if name.startswith("SQLITE_")]
    assert len(names) > 30
    for name in names:
        error = sqlite3.OperationalError("it failed")
        error.sqlite_errorcode = getattr(sqlite3, name)
        found = translate(error, "somewhere")
        assert isinstance(found, Unavailable | Broken | Refused)
        assert found.place == "somewhere"
    assert isinstance(translate(sqlite3.ProgrammingError("no code"), "x"), Broken)
    ioerr = sqlite3.OperationalError("disk I/O error")
    ioerr.sqlite_errorcode = sqlite3.SQLITE_IOERR | 12 << 8
    assert isinstance(translate(ioerr, "x"), Unavailable)
    ioerr.sqlite_errorcode = sqlite3.SQLITE_IOERR | 32 << 8
    assert isinstance(translate(ioerr, "x"), Broken)


def test_a_locked_file_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(SqliteLog(path, busy_timeout=IMPATIENT)) as log:
        log.create("t", 1)
        append(log, [b"before"])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="locked") as raised:
                append(log, [b"meanwhile"])
            assert raised.value.retry_after
            assert read(log) == [b"before"]
            other.execute("ROLLBACK")
        assert append(log, [b"after"]) == 1


def test_a_thread_that_writes_too_long_makes_the_others_give_up(tmp_path: Path) -> None:
    with closing(SqliteLog(tmp_path / "log.db", busy_timeout=IMPATIENT)) as log:
        log.create("t", 1)
        holding, enough = threading.Event(), threading.Event()

        def hold() -> None:
            with log._database.writing():
                holding.set()
                enough.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        holding.wait()
        with pytest.raises(Unavailable, match="another thread"):
            append(log, [b"x"])
        enough.set()
        thread.join()
        assert append(log, [b"x"]) == 0


@pytest.mark.parametrize("opener", [SqliteLog, EmbeddedRegistry])
def test_what_is_no_file_of_its_own_is_refused(
    opener: type[SqliteLog | EmbeddedRegistry], tmp_path: Path
) -> None:
    other = EmbeddedRegistry if opener is SqliteLog else SqliteLog
    other(tmp_path / "other.db").close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(BadInput, match="another program"):
        opener(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as foreign:
        foreign.execute("CREATE TABLE mine (x)")
        foreign.commit()
    with pytest.raises(BadInput, match="another program"):
        opener(tmp_path / "foreign.db")
    (tmp_path / "text").write_text("symbol,price\n" * 1000)
    with pytest.raises(Broken):
        opener(tmp_path / "text")
    with pytest.raises(Unavailable):
        opener(tmp_path)
    with pytest.raises(Unavailable):
        opener(tmp_path / "text" / "log.db")


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    SqliteLog(tmp_path / "log.db").close()
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(Refused) as raised:
        SqliteLog(tmp_path / "log.db")
    assert raised.value.found == "layout 99"


OPENER = """
import os, sys, time
from pathlib import Path
from k2.log.sqlite import SqliteLog
for number in range(40):
    start = time.time() + 0.01
    children = []
    for _ in range(5):
        if (child := os.fork()) == 0:
            while time.time() < start:
                pass
            try:
                SqliteLog(Path(sys.argv[1], f"{number}.db")).close()
            except BaseException as error:
                print(repr(error))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
"""


def test_a_new_file_may_be_opened_by_many_processes_at_once(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", OPENER, tmp_path], stdout=subprocess.PIPE, text=True, check=True
    )
    assert told.stdout == ""


def test_folders_are_made(tmp_path: Path) -> None:
    SqliteLog(tmp_path / "a" / "b" / "log.db").close()
    assert (tmp_path / "a" / "b" / "log.db").is_file()


FULL = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from k2.errors import Unavailable
from k2.log import Append, open_log
log = open_log(Path(sys.argv[1]))
log.create("t", 1)
# The file system refuses to let a file grow past this, as a full disk would.
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
kept = 0
while True:
    values = pa.array([kept.to_bytes(8, "big") * 900], pa.binary())
    try:
        log.append([Append("t", 0, 1, values)])
    except Unavailable as error:
        print(kept, error.hint)
        break
    kept += 1
assert log.end_offset("t", 0) == kept
for offset in range(kept):
    (batch,) = log.read("t", 0, offset, 1)
    assert batch.values[0].as_py() == offset.to_bytes(8, "big") * 900
"""


def test_a_full_disk_is_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    told = subprocess.run(
        [sys.executable, "-c", FULL, path], stdout=subprocess.PIPE, text=True, check=True
    )
    kept, hint = told.stdout.split(maxsplit=1)
    assert int(kept) > 3
    assert "disk" in hint or "free" in hint
    with closing(SqliteLog(path)) as log:
        assert len(read(log)) == int(kept)
        assert append(log, [b"after"]) == int(kept)


def test_a_compacted_topic_is_no_topic_of_records(log: SqliteLog) -> None:
    log.put("k2.positions", "a", "1")
    with pytest.raises(Refused):
        log.create("k2.positions", 1)
    with pytest.raises(Refused):
        log.put("t", "a", "1")
    with pytest.raises(Refused):
        log.create("u", 0)


def test_a_closed_log_says_so(log: SqliteLog) -> None:
    log.close()
    log.close()
    with pytest.raises(Refused, match="closed"):
        log.topics()


def test_messages_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput):
        pack(pa.array([b"a", None], pa.binary()), 1)
    with pytest.raises(BadInput):
        pack(pa.array(["a"]), 1)
    # Zeros that nobody touches take no memory.
    zeros = np.zeros(MESSAGE_BYTES + 1, np.uint8)
    offsets = np.array([0, len(zeros)], np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(zeros)]
    with pytest.raises(Refused, match="too long"):
        pack(pa.Array.from_buffers(pa.binary(), 1, buffers), 1)


def test_blobs_stay_small() -> None:
    values = pa.array([bytes(1000)] * 5000 + [bytes(3 * BLOB_BYTES)] + [b""] * 200_000, pa.binary())
    blobs = pack(values, 1)
    assert sum(blob.count for blob in blobs) == len(values)
    assert max(blob.count for blob in blobs) <= BLOB_MESSAGES
    assert sorted(blob.datum_bytes for blob in blobs)[-2] < BLOB_BYTES + 1000


def test_small_appends_are_read_as_one_array(log: SqliteLog) -> None:
    for number in range(100):
        append(log, [f"{number} {part}".encode() for part in range(number % 5)])
    (batch,) = log.read("t", 0, 0, 1 << 20)
    assert len(batch.values) == log.end_offset("t", 0) == 200


def test_a_clock_that_steps_back_hides_nothing(tmp_path: Path) -> None:
    moments = [datetime(2026, 3, 1, 10, minute, tzinfo=UTC) for minute in (0, 5, 2, 7)]
    clock = iter(moments)
    with closing(SqliteLog(tmp_path / "log.db", clock=lambda: next(clock))) as log:
        log.create("t", 1)
        for _ in moments:
            append(log, [b"a", b"b"])
        microsecond = timedelta(microseconds=1)
        assert log.offset_at("t", 0, moments[0]) == 0
        assert log.offset_at("t", 0, moments[0] + microsecond) == 2
        assert log.offset_at("t", 0, moments[2] + microsecond) == 2
        assert log.offset_at("t", 0, moments[1] + microsecond) == 6
        assert log.offset_at("t", 0, moments[3] + microsecond) == 8


def test_trimming_goes_batch_by_batch(log: SqliteLog) -> None:
    for _ in range(100):
        append(log, [b"x" * 10] * 7)
    whole = log.size("t", 0)
    assert log.trim("t", 0, 6) == 0
    assert log.trim("t", 0, 7) == 7
    assert log.size("t", 0) == whole - whole // 100
    assert log.trim("t", 0, 697) == 693
    assert log.size("t", 0) == whole // 100
    assert log.trim("t", 0, 1 << 40) == 700


def test_space_of_what_was_trimmed_is_used_again(log: SqliteLog, tmp_path: Path) -> None:
    noise = random.Random(1)
    for _ in range(30):
        append(log, [noise.randbytes(1000) for _ in range(100)])
        log.trim("t", 0, log.end_offset("t", 0) - 200)
    log.close()
    assert (tmp_path / "log.db").stat().st_size < 600_000


def damaged(base: bytes, noise: random.Random, width: int) -> bytes:
    """The file with `width` bytes overwritten, half the time near its beginning."""
    start = noise.randrange(len(base) if noise.random() < 0.5 else 6 * 4096)
    junk = noise.randbytes(width) if noise.random() < 0.7 else bytes(width)
    return (base[:start] + junk + base[start + width :])[: len(base)]


@pytest.mark.parametrize("width", [1, 2, 40, 4096])
def test_no_wrong_message_comes_out_of_a_damaged_file(tmp_path: Path, width: int) -> None:
    """Every read gives what was appended, or names the damage; never less in silence."""
    noise = random.Random(width)
    wanted: list[bytes] = []
    with closing(SqliteLog(tmp_path / "log.db")) as log:
        log.create("t", 1)
        for _ in range(100):
            values = [noise.randbytes(noise.randrange(60)) for _ in range(noise.randrange(1, 80))]
            wanted += values
            append(log, values)
    base = (tmp_path / "log.db").read_bytes()
    outcomes = []
    for number in range(30):
        path = tmp_path / f"{number}.db"
        path.write_bytes(damaged(base, noise, width))
        try:
            with closing(SqliteLog(path)) as log:
                assert read(log, max_bytes=5000) == wanted
            outcomes.append("whole")
        except K2Error as error:
            outcomes.append(type(error).__name__)
    assert "Broken" in outcomes
    assert "whole" in outcomes or width == 4096


def test_damage_is_named_by_topic_partition_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(SqliteLog(path)) as log:
        log.create("t", 1)
        for number in range(5):
            append(log, [b"%d first" % number, b"", b"%d last" % number])
    kept = path.read_bytes()
    body = pack(pa.array([b"2 first", b"", b"2 last"], pa.binary()), 1)[0].body
    assert kept.count(body) == 1
    path.write_bytes(kept.replace(body, body[:-1] + b"?"))
    with closing(SqliteLog(path)) as log:
        with pytest.raises(Broken) as raised:
            log.read("t", 0, 0, 1 << 20)
        assert raised.value.place == "topic t, partition 0, offset 6"
        assert len(log.read("t", 0, 9, 1 << 20)[0].values) == 6
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM batches WHERE first_offset = 6")
        connection.execute("DELETE FROM batches WHERE first_offset = 12")
        connection.commit()
    with closing(SqliteLog(path)) as log:
        for offset, missing in ((0, 6), (7, 7), (9, 12), (12, 12), (14, 14)):
            with pytest.raises(Broken, match="missing") as raised:
                log.read("t", 0, offset, 1 << 20)
            assert raised.value.place == f"topic t, partition 0, offset {missing}"


FORK = """
import os, sys, threading
from pathlib import Path
import pyarrow as pa
from k2.log import Append, open_log
log = open_log(Path(sys.argv[1]))
log.create("t", 1)
def append(name, count):
    for number in range(count):
        values = pa.array([f"{name} {number}".encode()], pa.binary())
        log.append([Append("t", 0, 1, values)])
# Another thread is at it while the forks happen.
thread = threading.Thread(target=append, args=("thread", 300))
thread.start()
wait, go = os.pipe()
children = []
for child in range(3):
    append("parent", 10)
    children.append(os.fork())
    if children[-1] == 0:
        os.close(go)
        append(f"early {child}", 10)
        os.read(wait, 1)
        append(f"late {child}", 10)
        # Dies with the log open: whoever closes last would write back what others left.
        os._exit(0)
thread.join()
log.close()
os.close(go)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
"""


def test_parent_and_child_go_on_after_a_fork(tmp_path: Path) -> None:
    """The children append also after their parent has closed the log."""
    path = tmp_path / "log.db"
    subprocess.run([sys.executable, "-c", FORK, path], check=True, timeout=60)
    with closing(SqliteLog(path)) as log:
        values = read(log)
    names = Counter(value.decode().rsplit(" ", 1)[0] for value in values)
    children = {f"{when} {child}": 10 for when in ("early", "late") for child in range(3)}
    assert names == {"thread": 300, "parent": 30} | children


def test_threads_that_end_leave_no_connection_behind(log: SqliteLog, tmp_path: Path) -> None:
    for _ in range(50):
        thread = threading.Thread(target=log.topics)
        thread.start()
        thread.join()
    descriptors = Path("/proc/self/fd")
    names = [os.readlink(each) for each in descriptors.iterdir() if each.is_symlink()]
    # Of this log: others may be open in the same process.
    mine = [name for name in names if name == str(tmp_path.resolve() / "log.db")]
    assert 1 <= len(mine) <= 2


def test_readers_see_an_append_whole_or_not_at_all(log: SqliteLog) -> None:
    done = threading.Event()
    torn: list[tuple[int, int]] = []

    def watch() -> None:
        while not done.is_set():
            end, found = log.end_offset("t", 0), len(read(log, max_bytes=1 << 30))
            if end % 1000 or found % 1000 or found < end:
                torn.append((end, found))

    reader = threading.Thread(target=watch)
    reader.start()
    for _ in range(8):
        append(log, [bytes(1500)] * 1000)  # more than one stored batch
    done.set()
    reader.join()
    assert torn == []
