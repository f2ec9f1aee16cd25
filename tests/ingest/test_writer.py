"""How a writer behaves around its log: away, asked to end."""

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from k2.errors import Unavailable
from k2.feeds import open_feed
from k2.ingest import Pace, PacedProducer, Writer, WriterOptions, following
from k2.log import Log, Producer
from tests.journeys.home import SKEW, Home, now, open_home


class Leaving:
    """A log that goes away once it was read, and counts how often it is asked after that."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.looked = 0
        self.asked_away = 0

    def topics(self) -> Mapping[str, int]:
        self.looked += 1
        if self.looked > 40:
            self.asked_away += 1
            raise Unavailable("the log does not answer", retry_after=0.01)
        return self._log.topics()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.parametrize("asked", [1, 3])
def test_a_writer_ends_though_its_log_is_away(tmp_path: Path, asked: int) -> None:
    """Each question may take as long as patience lasts: it ends after the one under way."""
    with open_home(tmp_path) as home:
        log = Leaving(home.log)
        away = Home(home.folder, cast(Log, log), home.registry, home.lake)
        writer = Writer(away.log, away.registry, away.lake, WriterOptions(skew=SKEW))
        writer.run(lambda: log.asked_away >= asked)
        assert log.asked_away == asked


@pytest.mark.parametrize("followed", [False, True])
def test_who_has_time_waits_for_writers_that_are_behind(tmp_path: Path, followed: bool) -> None:
    with open_home(tmp_path) as home:
        feed = open_feed("simulator:?rate=max&kinds=trades&chunk=100", None, now)
        stopped = threading.Event()
        producer = PacedProducer(home.log, home.registry, 1, Pace(home.lake, 250, stopped.is_set))
        sent: list[int] = []

        def send() -> None:
            for _ in range(5):
                producer.send(feed.exchanges[0], "trades", feed.read()[0].table)
                sent.append(100)

        with following(home.lake.folder) if followed else nullcontext():
            thread = threading.Thread(target=send)
            thread.start()
            thread.join(1.0)
            # The third hundred is in the log, and whoever sent it waits.
            assert (len(sent), thread.is_alive()) == ((2, True) if followed else (5, False))
            while thread.is_alive():
                home.catch_up()
                thread.join(0.2)
        assert len(sent) == 5


def test_a_disk_without_room_for_what_is_kept_beside_stops_nothing(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    writer = home.writer()
    folders = [home.lake.table(name).metadata_folder.parent for name in ("trades", "quotes")]
    for folder in folders:
        (folder / "marks").write_bytes(b"no folder")
    feed = open_feed("simulator:?rate=max&kinds=trades&chunk=50&seed=1", None, now)
    (found,) = feed.read()
    Producer(home.log, home.registry, 1).send(feed.exchanges[0], "trades", found.table)
    writer.run(lambda: False, until_caught_up=True)
    assert home.lake.table("trades").snapshot().files.rows == 50
    assert "what is kept beside it is not" in caplog.text
