"""The tail's promise: all that the log has, or an error that says why not."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from k2.chaos.faults import Seam
from k2.chaos.ports import AWAY, FaultyRegistry
from k2.errors import Unavailable
from k2.feeds import open_feed
from k2.ingest import Tail
from k2.ingest.follow import Follower
from k2.ingest.tail import _KindTail
from k2.lake import Commit, Loss, Offsets, ShedRange, Snapshot, TopicOffsets, maintain
from k2.log import Producer
from k2.model import plain_schema
from tests.ingest.test_beside import catch_up
from tests.journeys.home import SKEW, now, open_home


def test_records_that_cannot_be_decided_now_are_not_left_out(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=2&chunk=50&seed=1", None, now)
        (found,) = feed.read()
        Producer(home.log, home.registry, 1).send(feed.exchanges[0], "trades", found.table)
        seam = Seam("registry", Counter())
        tail = Tail(home.log, FaultyRegistry(home.registry, seam), home.lake, SKEW, 1_000)
        seam.arm(AWAY, ("ask",))
        with pytest.raises(Unavailable, match="the registry does not answer"):
            tail.pin("trades")
        assert tail.pin("trades").rows.num_rows == 50


@pytest.mark.parametrize("fate", ["shed", "lost"])
def test_a_record_that_was_the_same_as_one_gone_since_is_not_left_out(
    tmp_path: Path, fate: str
) -> None:
    with open_home(tmp_path) as home:
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=2&chunk=50&seed=1", None, now)
        (found,) = feed.read()
        producer = Producer(home.log, home.registry, 1)
        (sent,) = producer.send(feed.exchanges[0], "trades", found.table)
        producer.send(feed.exchanges[0], "trades", found.table)
        tail = Tail(home.log, home.registry, home.lake, SKEW, 1_000)
        first = tail.pin("trades")
        assert first.rows["log_offset"].to_pylist() == list(range(50))
        log_id = home.log.identity(sent.topic)
        end = {sent.topic: TopicOffsets(log_id, {0: 50})}
        shed = ShedRange("one", sent.topic, log_id, 0, 0, 50, 50)
        lost = Loss(sent.topic, log_id, 0, 0, 50, accepted=True)
        commit = Commit((), {}, end)
        commit = (
            replace(commit, shed=(shed,)) if fate == "shed" else replace(commit, losses=(lost,))
        )
        home.lake.table("trades").commit(commit)

        again = tail.pin("trades")

        assert again.rows["log_offset"].to_pylist() == list(range(50, 100))


def test_a_writer_that_is_far_behind_is_told_at_once_and_nothing_is_held(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=2&chunk=500&seed=1", None, now)
        producer = Producer(home.log, home.registry, 2)

        def send() -> None:
            (found,) = feed.read()
            producer.send(feed.exchanges[0], "trades", found.table)

        send()
        tail = Tail(home.log, home.registry, home.lake, SKEW, 1_000)
        assert tail.pin("trades").rows.num_rows == 500
        send()
        assert tail.pin("trades").rows.num_rows == 1_000, "as many as may be held"
        send()
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"1,500 trades wait .* 1,000 .* far") as told:
                tail.pin("trades")
            assert "k2 ingest" in str(told.value.hint)
        # What is decided while it is far behind is nothing: the log's ends say it.
        reading: list[int] = []
        log, read = home.log, home.log.read
        send()

        class Counting:
            def __getattr__(self, name: str) -> object:
                return getattr(log, name)

            def read(self, topic: str, partition: int, offset: int, most: int) -> object:
                reading.append(offset)
                return read(topic, partition, offset, most)

        counted = Tail(Counting(), home.registry, home.lake, SKEW, 1_000)  # type: ignore[arg-type]
        for questions in range(3):
            with pytest.raises(Unavailable, match="2,000 trades wait"):
                counted.pin("trades")
            assert len(reading) == 2, (questions, "a look at each partition, once")
        home.catch_up()
        assert tail.pin("trades").rows.num_rows == 0
        send()
        assert (tail.pin("trades").rows.num_rows, counted.pin("trades").rows.num_rows) == (500, 500)


def test_a_tail_that_was_overtaken_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed meanwhile is skipped, and nothing decided a second time: also while rows
    wait in another partition, and where files were merged.
    """
    begun: list[_KindTail] = []
    begin = _KindTail._begin

    def counting(self: _KindTail, snapshot: Snapshot) -> Follower:
        begun.append(self)
        return begin(self, snapshot)

    monkeypatch.setattr(_KindTail, "_begin", counting)
    with open_home(tmp_path) as home:
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=9&chunk=90&seed=1", None, now)
        producer = Producer(home.log, home.registry, 2)

        def send() -> None:
            (found,) = feed.read()
            producer.send(feed.exchanges[0], "trades", found.table)

        send()
        catch_up(home, 0)
        catch_up(home, 1)
        send()
        tail = Tail(home.log, home.registry, home.lake, SKEW, 1_000)
        held = tail.pin("trades").rows.num_rows
        mine = begun[0]
        for partition in (0, 1, 0):
            send()
            catch_up(home, partition)
            if partition:
                maintain(home.lake, "trades")
            found = by_place(tail)
            assert found.equals(by_place(Tail(home.log, home.registry, home.lake, SKEW, 1_000)))
            assert 0 < found.num_rows != held
            held = found.num_rows
        assert begun.count(mine) == 1


def by_place(tail: Tail) -> pa.Table:
    rows = tail.pin("trades").rows
    plain = rows.cast(plain_schema(rows.schema))
    return plain.sort_by([(name, "ascending") for name in ("log_partition", "log_offset")])


def test_a_long_line_is_read_by_who_follows_and_answered_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.ingest.tail._READ_BYTES", 20_000)
    with open_home(tmp_path) as home:
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=9&chunk=500&seed=1", None, now)
        producer = Producer(home.log, home.registry, 2)
        topics: set[str] = set()

        def send(count: int) -> None:
            for _ in range(count):
                (found,) = feed.read()
                topics.update(s.topic for s in producer.send(exchange, "trades", found.table))

        (exchange,) = feed.exchanges
        send(8)
        every = Tail(home.log, home.registry, home.lake, SKEW, 10**6)
        tail = Tail(home.log, home.registry, home.lake, SKEW, 1_000, 6_000)
        beside = sorted(home.lake.folder.iterdir())
        assert not tail.follow("trades"), "nobody knows yet"
        with pytest.raises(Unavailable, match=r"of 4,000 trades .* not read yet"):
            tail.pin("trades")
        assert tail.follow("trades")
        with pytest.raises(Unavailable, match="not read yet"):
            tail.pin("trades")
        while tail.follow("trades"):
            pass
        assert by_place(tail).equals(by_place(every))
        assert sorted(home.lake.folder.iterdir()) == beside, "a file goes with its rows"
        (topic,) = topics
        start: Offsets = {}
        for committed in (0, 700, 1_300):
            end = {topic: TopicOffsets(home.log.identity(topic), {0: committed, 1: 10})}
            home.lake.table("trades").commit(Commit((), start, end))
            start = end
            send(1)
            assert by_place(tail).equals(by_place(every)), committed
        send(6)
        with pytest.raises(Unavailable, match=r"wait .* 6,000 of them at most"):
            tail.pin("trades")
        assert not tail.follow("trades"), "too much is not read on"
        end = {topic: TopicOffsets(home.log.identity(topic), {0: 2_000, 1: 2_000})}
        home.lake.table("trades").commit(Commit((), start, end))
        while tail.follow("trades"):
            pass
        assert by_place(tail).equals(by_place(every))
