"""A real home (log, tables, tail) and a real server over it, for the tests of this room."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from k2.api import Entry, Server, create_app
from k2.api.audit import Report
from k2.feeds import open_feed
from k2.feeds.run import run_feed
from k2.ingest import Writer, WriterOptions, audit
from k2.lake import open_lake
from k2.log import Producer, open_log, open_registry
from k2.model import CLOCK_SKEW
from k2.query import Reader, open_reader

MARKET = "simulator:?symbols=4&rate=max&nominal=50&seed=3&duplicates=0.002&malformed=0.002"
COMMITTED, APPENDED = 6_000, 8_000
BEGAN = "2026-01-05T00:00:00Z"


def clock() -> datetime:
    return datetime.now(UTC)


def fill(home: Path, count: int, *, commit: bool) -> None:
    """Bring the market's records up to `count` into the log, and through to the tables."""
    log = open_log(f"sqlite:{home / 'log.db'}")
    registry = open_registry(f"embedded:{home / 'registry.db'}")
    lake = open_lake(home / "lake")
    try:
        feed = open_feed(
            f"{MARKET}&count={count}", log.latest("k2.positions").get("simulator"), clock
        )
        run_feed(feed, Producer(log, registry, 1), log, lambda: False)
        feed.close()
        if commit:
            writer = Writer(log, registry, lake, WriterOptions())
            writer.run(lambda: False, until_caught_up=True)
    finally:
        lake.close()
        registry.close()
        log.close()


def audit_of(home: Path) -> Callable[[], Report]:
    """A function that audits the home folder, opening log and tables for itself each time."""

    def run() -> Report:
        log = open_log(f"sqlite:{home / 'log.db'}")
        with closing(log), closing(open_lake(home / "lake")) as lake:
            return audit(log, lake).to_dict()

    return run


@contextmanager
def running(reader: Reader, auditing: Any, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a server over `reader` that runs in a thread until the end of the block."""
    server = Server(create_app(reader, auditing, **settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            yield client
    finally:
        server.stop()
        thread.join()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose last records are in the log and in no snapshot yet."""
    folder = tmp_path_factory.mktemp("home")
    fill(folder, COMMITTED, commit=True)
    fill(folder, APPENDED, commit=False)
    return folder


@pytest.fixture(scope="session")
def reader(home: Path) -> Iterator[Reader]:
    with open_reader(home, follow=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def client(home: Path, reader: Reader) -> Iterator[httpx.Client]:
    """A client of a server over `home`."""
    log = open_log(f"sqlite:{home / 'log.db'}")
    registry = open_registry(f"embedded:{home / 'registry.db'}")
    with closing(log), closing(registry):
        entry = Entry(Producer(log, registry, 1), CLOCK_SKEW)
        with running(reader, audit_of(home), audit_seconds=None, entry=entry) as opened:
            yield opened


@pytest.fixture(scope="session")
def symbol(client: httpx.Client) -> str:
    """The symbol with the most trades."""
    rows = client.get("/v1/symbols").json()["data"]
    return str(max(rows, key=lambda row: row["trades"])["symbol"])
