"""Records that wait on disk while the log is away: in order, through SIGKILL, and not for ever."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from k2.errors import Unavailable
from k2.log import Append, Log, Producer, open_log, open_registry
from k2.log.spool import Spooled
from tests.log.test_producer import BINANCE, trades

T = "market.crypto.trades.t"
POSITIONS = "k2.positions"


class Away:
    """A log that can be taken away: a fault, injected between the spool and a real log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.away = False
        self.keys: list[Any] = []

    def append(self, appends: Sequence[Append]) -> list[Any]:
        self._look()
        self.keys += [each.keys and each.keys.to_pylist() for each in appends]
        return self._log.append(appends)

    def __getattr__(self, name: str) -> Any:
        self._look()
        return getattr(self._log, name)

    def _look(self) -> None:
        if self.away:
            raise Unavailable("it is away")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Away]:
    opened = open_log(tmp_path / "log.db")
    opened.create(T, 2)
    yield Away(opened)
    opened.close()


def spooled(log: Away, folder: Path, max_bytes: int = 1 << 20) -> Spooled:
    return Spooled(log, folder / "spool.db", positions=POSITIONS, max_bytes=max_bytes)


def append(log: Spooled, *numbers: int, partition: int = 0, schema_id: int = 1) -> list[int]:
    values = pa.array([f"message {number}".encode() for number in numbers], pa.binary())
    keys = pa.array([f"S{number}" for number in numbers]).dictionary_encode()
    (offsets,) = log.append([Append(T, partition, schema_id, values, keys)])
    found: list[int] = offsets.tolist()
    return found


def numbers(log: Any, partition: int = 0) -> list[int]:
    found, offset = [], 0
    while batches := log.read(T, partition, offset, 1 << 20):
        for batch in batches:
            found += [int(value.split()[1]) for value in batch.values.to_pylist()]
            offset = batch.next_offset
    return found


def wait_for_all(spool: Spooled) -> None:
    end = time.monotonic() + 20
    assert spool.drain(lambda: time.monotonic() > end) == 0


def test_a_log_that_is_there_is_appended_to(log: Away, tmp_path: Path) -> None:
    with closing(spooled(log, tmp_path)) as spool:
        assert append(spool, 1, 2) == [0, 1]
        spool.put(POSITIONS, "feed", "2")
        assert log.latest(POSITIONS) == spool.latest(POSITIONS) == {"feed": "2"}
        assert spool.waiting() == 0


def test_records_wait_and_arrive_in_order(log: Away, tmp_path: Path) -> None:
    with closing(spooled(log, tmp_path)) as spool:
        append(spool, 1)
        log.away = True
        assert append(spool, 2, 3) == []
        assert append(spool, 4, schema_id=2) == []
        append(spool, 5, partition=1)
        spool.put(POSITIONS, "feed", "5")
        assert spool.waiting() == 4
        records, size = spool.backlog()
        assert (records, size > 0) == (4, True)
        assert spool.latest(POSITIONS) == {"feed": "5"}
        log.away = False
        append(spool, 6)
        wait_for_all(spool)
        assert append(spool, 7) == [5]
    assert numbers(log) == [1, 2, 3, 4, 6, 7]
    assert numbers(log, 1) == [5]
    assert [batch.schema_ids.tolist() for batch in log.read(T, 0, 3, 1)] == [[2]]
    assert log.latest(POSITIONS) == {"feed": "5"}
    assert sorted(key for keys in log.keys for key in map(_text, keys)) == [
        f"S{number}" for number in range(1, 8)
    ]


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


def test_what_waits_is_bounded(log: Away, tmp_path: Path) -> None:
    with closing(spooled(log, tmp_path, max_bytes=2000)) as spool:
        log.away = True
        sent = 0
        while sent < 1000:
            try:
                append(spool, sent)
            except Unavailable as error:
                assert "no more may" in str(error)  # noqa: PT017  # how often it went well counts
                break
            sent += 1
        assert 10 < sent < 1000
        log.away = False
        wait_for_all(spool)
        append(spool, sent)
    assert numbers(log) == list(range(sent + 1))


FEED = """
import sys
from pathlib import Path
from k2.log import open_log
from tests.log.test_spool import Away, append, spooled, POSITIONS
folder = Path(sys.argv[1])
log = Away(open_log(folder / "log.db"))
log.away = True
spool = spooled(log, folder)
for number in range(1 << 60):
    append(spool, number)
    spool.put(POSITIONS, "feed", str(number))
    print(number, flush=True)
"""


def test_what_waits_survives_a_killed_feed(log: Away, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FEED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as feed:
        assert feed.stdout is not None
        told = [int(next(feed.stdout)) for _ in range(20)]
        feed.kill()
        told += [int(line) for line in feed.stdout.read().splitlines() if line]
    log.away = True
    with closing(spooled(log, tmp_path)) as spool:
        # Started again while the log is still away: it goes on from where it was.
        position = int(spool.latest(POSITIONS)["feed"])
        assert position >= told[-1]
        append(spool, position + 1)
        log.away = False
        wait_for_all(spool)
    found = numbers(log)
    assert found[: len(told)] == told
    assert sorted(set(found)) == list(range(max(found) + 1))
    assert int(log.latest(POSITIONS)["feed"]) >= position


def test_a_feed_may_begin_while_the_log_is_away(log: Away, tmp_path: Path) -> None:
    """All that a producer asks of the log is known from the run before."""
    registry = open_registry(tmp_path / "registry.db")
    table = trades(["BTCUSDT"])
    with closing(spooled(log, tmp_path)) as spool:
        sent = Producer(spool, registry, 2).send(BINANCE, "trades", table)
        assert sum(each.count for each in sent) == 1
    log.away = True
    with closing(spooled(log, tmp_path)) as spool:
        assert Producer(spool, registry, 2).send(BINANCE, "trades", table) == []
        log.away = False
        wait_for_all(spool)
    (place,) = sent
    assert log.end_offset(place.topic, place.partition) == 2
    registry.close()
