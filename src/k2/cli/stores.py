"""What the commands that write or prove open: log, registry and lake; and how they are stopped."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from k2.cli.show import say
from k2.errors import BadInput, Unavailable
from k2.settings import AccessSettings, Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from k2.ingest import WriterOptions
    from k2.lake import Lake
    from k2.log import Access, Log, Registry


@dataclass(frozen=True)
class Stores:
    """Log, registry and lake of one home, open."""

    log: "Log"
    registry: "Registry"
    lake: "Lake"


@contextmanager
def opened_log(settings: Settings) -> Iterator[tuple["Log", "Registry"]]:
    """Log and registry, made if missing and closed at the end. Raises `Unavailable`."""
    from k2.log import open_log, open_registry

    _make_home(settings)
    with ExitStack() as stack:
        access = access_of(settings.log.access)
        log = stack.enter_context(closing(open_log(settings.log.url, access)))
        access = access_of(settings.log.registry_access)
        registry = stack.enter_context(closing(open_registry(settings.log.registry, access)))
        yield log, registry


def access_of(settings: AccessSettings) -> "Access":
    """How a server is signed in to. Raises `BadInput` for a password file that is not there."""
    from k2.log import Access

    password = settings.password
    if settings.username is None and (password is not None or settings.password_file is not None):
        raise BadInput("a password is set, and nobody who signs in", hint="set …_USERNAME as well")
    if settings.password_file is not None:
        if password is not None:
            raise BadInput("the password and its file are both set", hint="unset one of them")
        try:
            password = settings.password_file.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            place = str(settings.password_file)
            raise BadInput("the password cannot be read", place=place) from error
    return Access(
        username=settings.username,
        password=password,
        ca=settings.ca,
        certificate=settings.certificate,
        key=settings.key,
        tls=settings.tls,
    )


@contextmanager
def spooled(settings: Settings, log: "Log", stop: Callable[[], bool]) -> Iterator["Log"]:
    """The log for feeds: while its server is away, what they append waits on disk.

    At the end that is waited for, unless `stop()` says otherwise; what is left then, is told.
    """
    from k2.feeds.run import POSITIONS
    from k2.log import is_server
    from k2.log.spool import Spooled

    if not is_server(settings.log.url):
        yield log
        return
    path = settings.home / "spool.db"
    with closing(
        Spooled(log, path, positions=POSITIONS, max_bytes=settings.log.spool_bytes)
    ) as spool:
        try:
            yield spool
        finally:
            if left := spool.drain(stop):
                say(f"{left:,} records wait in {path}: the next `k2 feed` brings them in")


@contextmanager
def opened_stores(settings: Settings) -> Iterator[Stores]:
    """Log, registry and lake, made if missing and closed at the end. Raises `Unavailable`."""
    from k2.lake import open_lake

    with (
        opened_log(settings) as (log, registry),
        closing(
            open_lake(settings.lake.folder, keep_snapshots=settings.lake.snapshots_kept)
        ) as lake,
    ):
        yield Stores(log, registry, lake)


def writer_options(settings: Settings) -> "WriterOptions":
    """How the settings have a writer work."""
    from k2.ingest import (
        CommitLimits,
        Level,
        OverloadOptions,
        Retention,
        Thresholds,
        Trigger,
        WriterOptions,
    )

    of = settings.overload
    levels = [level for level in Level if level is not Level.NORMAL]
    thresholds = Thresholds(
        {
            level: Trigger(lag, memory)
            for level, lag, memory in zip(levels, of.lag, of.memory, strict=True)
        },
        of.lag_down,
        of.memory_down,
        of.calm.total_seconds(),
        of.break_.total_seconds(),
    )
    return WriterOptions(
        overload=OverloadOptions(thresholds, of.tiers, of.memory_bytes),
        limits=CommitLimits(settings.commit.rows, settings.commit.bytes, settings.commit.interval),
        retention=Retention(settings.log.retention, settings.log.retention_bytes),
        skew=settings.clock_skew,
        gap_grace=settings.gap_grace,
    )


@contextmanager
def told_metrics(registry: "CollectorRegistry", host: str, port: int | None) -> Iterator[None]:
    """Serve a part's metrics meanwhile and say where; nothing without a port."""
    from k2.metrics import serving

    if port is None:
        yield
        return
    with serving(registry, host, port) as url:
        say(f"metrics are at {url}")
        yield


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGINT or SIGTERM has come.

    A second SIGINT interrupts whatever is under way.
    """
    came = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if came.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_home(settings: Settings) -> None:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the home folder cannot be made: {error.strerror}",
            place=str(settings.home),
            hint="--home or K2_HOME names another",
        ) from error
