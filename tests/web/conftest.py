"""A live market through log, writer and server, and a real browser that looks at it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from k2.api import Server, create_app
from k2.feeds import open_feed
from k2.feeds.run import run_feed
from k2.ingest import CommitLimits, Writer, WriterOptions
from k2.lake import open_lake
from k2.log import Producer, open_log, open_registry
from k2.query import open_reader
from tests.api.conftest import audit_of

QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-default-apps", "--disable-extensions", "--no-pings"),
    *("--metrics-recording-only",),
    "--disable-features=OptimizationHints,MediaRouter,Translate,DialMediaRouteProvider",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


def clock() -> datetime:
    return datetime.now(UTC)


@contextmanager
def ingesting(home: Path, url: str) -> Iterator[None]:
    """The feed of `url` through log and writer into the tables, until the end of the block."""
    stop = threading.Event()

    def feeds() -> None:
        with ExitStack() as stack:
            log = stack.enter_context(closing(open_log(home / "log.db")))
            registry = stack.enter_context(closing(open_registry(home / "registry.db")))
            feed = stack.enter_context(closing(open_feed(url, None, clock)))
            run_feed(feed, Producer(log, registry, 1), log, stop.is_set)

    def writes() -> None:
        with ExitStack() as stack:
            log = stack.enter_context(closing(open_log(home / "log.db")))
            registry = stack.enter_context(closing(open_registry(home / "registry.db")))
            lake = stack.enter_context(closing(open_lake(home / "lake")))
            limits = CommitLimits(interval=timedelta(seconds=1))
            Writer(log, registry, lake, WriterOptions(limits=limits)).run(stop.is_set)

    threads = [threading.Thread(target=work) for work in (feeds, writes)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """The URL of a server over `home`."""
    with open_reader(home, follow=True) as reader:
        server = Server(create_app(reader, audit_of(home), audit_seconds=1.0))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server.url
        finally:
            server.stop()
            thread.join()


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a page over a market that trades now."""
    home = tmp_path_factory.mktemp("live")
    with ingesting(home, "simulator:?symbols=12&rate=300&seed=5"), serving(home) as url:
        yield url


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a page over half an hour of a market that has closed."""
    url = "simulator:?symbols=2&rate=max&nominal=10&count=20000&seed=2"
    with market_of(tmp_path_factory.mktemp("past"), url) as served:
        yield served


@pytest.fixture(scope="session")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a page over a market some of whose records were no records."""
    url = "simulator:?symbols=2&rate=max&nominal=10&count=20000&seed=2&malformed=0.0005"
    with market_of(tmp_path_factory.mktemp("gappy"), url) as served:
        yield served


@contextmanager
def market_of(home: Path, url: str) -> Iterator[str]:
    """The URL of a page over all that this simulated market has."""
    log = open_log(home / "log.db")
    registry = open_registry(home / "registry.db")
    lake = open_lake(home / "lake")
    with closing(log), closing(registry), closing(lake):
        feed = open_feed(url, None, clock)
        run_feed(feed, Producer(log, registry, 1), log, lambda: False)
        feed.close()
        options = WriterOptions(gap_grace=timedelta(0))
        Writer(log, registry, lake, options).run(lambda: False, until_caught_up=True)
    with serving(home) as served:
        yield served


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield opened
        opened.close()


@dataclass
class Watched:
    """A page, and everything that it did wrong."""

    page: Page
    url: str
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def on_request(self, request: Request) -> None:
        self.asked.append(request.url)
        if not request.url.startswith(self.url):
            self.wrong.append(f"asked elsewhere: {request.url}")


Look = Callable[..., Watched]


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Opens a page and watches it; at the end of the test, nothing may have been wrong."""
    with ExitStack() as stack:
        opened: list[Watched] = []

        def open_page(url: str, path: str = "/", width: int = 1440, height: int = 900) -> Watched:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark"
            )
            stack.callback(context.close)
            page = context.new_page()
            watched = Watched(page, url)
            page.on("console", watched.on_console)
            page.on("pageerror", lambda error: watched.wrong.append(str(error)))
            page.on("request", watched.on_request)
            page.goto(url + path)
            opened.append(watched)
            return watched

        yield open_page
        for watched in opened:
            assert watched.wrong == []
