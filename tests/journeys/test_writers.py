"""Several writers share one log: killed, stopped, woken at every step, nothing lost or doubled."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from k2.feeds import open_feed
from k2.ingest import audit
from k2.log import Producer
from tests.journeys.home import (
    STEPS,
    Blow,
    Home,
    calm,
    now,
    open_home,
    overtaken,
    start_writer,
    wait_until_stopped,
)
from tests.journeys.test_killed import (
    FAULTY,
    assert_exact,
    feed_some,
    places_in_lake,
    places_in_log,
)

ROUNDS = int(os.environ.get("K2_TEST_ROUNDS", "15"))


def wait_for(reached: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def is_caught_up(home: Home) -> bool:
    return all(part.in_flight == 0 for part in audit(home.log, home.lake).partitions)


def end(writers: list[BaseProcess]) -> None:
    for writer in writers:
        if writer.is_alive() and writer.pid is not None:
            os.kill(writer.pid, signal.SIGCONT)
            writer.terminate()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode in (0, -signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [2, 3])
def test_writers_share_the_work_whatever_befalls_one(tmp_path: Path, count: int) -> None:
    """One of them is killed or stopped a round; the others bring in what it leaves."""
    chance = random.Random(20261124 + count)
    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 3)
        feed = open_feed(FAULTY, None, now)
        feed_some(feed, producer, 2_000)
        writers = [start_writer(tmp_path, None, until_caught_up=False) for _ in range(count - 1)]
        for number in range(ROUNDS):
            step = STEPS[number % len(STEPS)]
            how = chance.choice((signal.SIGKILL, signal.SIGSTOP))
            struck = start_writer(
                tmp_path, Blow(step, chance.randrange(1, 3), how), until_caught_up=False
            )
            for _ in range(4):
                feed_some(feed, producer, chance.randrange(200, 3_000))
                time.sleep(chance.random() * 0.2)
            if how is signal.SIGKILL:
                struck.join(3)
                struck.kill()
            else:
                # It may not get a step to be stopped at: then it is stopped anywhere.
                time.sleep(chance.random())
                assert struck.pid is not None
                os.kill(struck.pid, signal.SIGSTOP)
                wait_until_stopped(struck)
                assert_exact(home)
                time.sleep(chance.choice((0.0, 0.5, 6.0)))
                calm(tmp_path, struck.pid).touch()
                os.kill(struck.pid, signal.SIGCONT)
            assert_exact(home)
            if number % 3 == 2:
                wait_for(lambda: is_caught_up(home), f"round {number}: {step} {how.name}")
            if struck.is_alive():
                # It goes on in the place of another, so that all have been struck.
                writers.append(struck)
                end([writers.pop(0)])
        wait_for(lambda: is_caught_up(home), "the end")
        end(writers)
        assert_exact(home)
        assert places_in_lake(home) == places_in_log(home)
        assert overtaken(tmp_path) < 10 * ROUNDS, "writers are in each other's way"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_another_takes_over_within_seconds(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 3)
        feed = open_feed(f"{FAULTY}&kinds=trades", None, now)
        feed_some(feed, producer, 3_000)
        writers = [start_writer(tmp_path, None, until_caught_up=False) for _ in range(2)]
        wait_for(lambda: is_caught_up(home), "both")
        writers[0].kill()
        feed_some(feed, producer, 3_000)
        began = time.monotonic()
        wait_for(lambda: is_caught_up(home), "the other alone")
        assert time.monotonic() - began < 15
        end(writers)
        assert places_in_lake(home) == places_in_log(home)
        assert Counter(places_in_log(home).values()).keys() == {1}
