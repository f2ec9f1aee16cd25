"""A real Prometheus over a real K2: every figure is there, and an alert fires and clears."""

import json
import os
import re
import signal
import time
import urllib.error
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from k2.cli.machine import free_port
from k2.venues import Trading, open_venue
from tests.cli.running import Run, get, parts, running, wait_for
from tests.cli.test_up_writers import free_pair
from tests.ops.expressions import RULES, exported, queries
from tests.servers.prometheus import Prometheus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc"),
]

# Thirty times as fast as the rules are: a scrape a second, and five minutes are ten seconds.
FASTER: Final = 30
SECONDS: Final = {"m": 60, "h": 3600}

UNSET: Final = {
    # Without a server as log there is no spool; tests/test_metrics.py sets it.
    "k2_spool_limit_bytes",
}


@dataclass(frozen=True)
class Watched:
    """A K2 under way, the Prometheus that reads it, and the server's address."""

    run: Run
    prometheus: Prometheus
    server: str


def faster(rules: str) -> str:
    """The rules with all their times made shorter."""
    return re.sub(
        r"(\[|for: )(\d+)([mh])\b",
        lambda found: f"{found[1]}{int(found[2]) * SECONDS[found[3]] // FASTER}s",
        rules,
    )


@pytest.fixture(scope="module")
def watched(prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    server, feed, writer = free_port("127.0.0.1", 0), free_pair(), free_port("127.0.0.1", 0)
    settings = {
        "K2_SERVE_PORT": str(server),
        "K2_FEED_METRICS_PORT": str(feed),
        "K2_INGEST_METRICS_PORT": str(writer),
    }
    # The second feed's figures are at the port after the first one's.
    jobs = {"server": [server], "feed": [feed, feed + 1], "writer": [writer]}
    rules = folder / "rules.yml"
    rules.write_text(faster(RULES.read_text("utf-8")), "utf-8")
    reader = Prometheus(folder / "prometheus", prometheus)
    with open_venue("binance", Trading(("BTCUSDT",), rate=200)) as venue:
        live = f"binance:BTCUSDT?ws={venue.ws}&rest={venue.rest}"
        simulated = "simulator:?symbols=4&rate=200"
        words = ("--home", str(folder / "home"), "up", "--feed", live, "--feed", simulated)
        with running(*words, **settings) as run:
            wait_for(lambda: run.says("K2 is ready"), run)
            reader.start(configuration(rules, jobs))
            found = Watched(run, reader, f"http://127.0.0.1:{server}")
            try:
                until_none(lambda: {"all parts"} if len(reader.query("up == 1")) < 4 else (), found)
                yield found
            finally:
                reader.stop()


def configuration(rules: Path, jobs: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    scraped = []
    for part, ports in jobs.items():
        targets = [f"127.0.0.1:{port}" for port in ports]
        scraped.append({"job_name": f"k2-{part}", "static_configs": [{"targets": targets}]})
    return {"global": every, "rule_files": [str(rules)], "scrape_configs": scraped}


def test_every_query_of_the_dashboard_returns_series(watched: Watched) -> None:
    empty = queries()

    def look() -> list[tuple[str, str]]:
        ask(watched)
        empty[:] = [each for each in empty if not watched.prometheus.query(each[1])]
        return empty

    until_none(look, watched)


def test_every_documented_figure_is_set_and_no_other(watched: Watched) -> None:
    documented = exported()

    def missing() -> set[str]:
        ask(watched)
        return documented.keys() - UNSET - watched.prometheus.names()

    until_none(missing, watched)
    # The client tells of each count when it began, by itself.
    found = {n for n in watched.prometheus.names() if n.startswith("k2_")}
    assert {name for name in found if not name.endswith("_created")} <= documented.keys()


def test_alerts_fire_and_clear(watched: Watched) -> None:
    expected = {"K2PartAway", "K2NotCommitting"}
    until_none(lambda: expected & firing(watched), watched)
    with frozen_writer(watched):
        until_none(lambda: expected - firing(watched), watched)
        told = watched.prometheus.alerts()
        away = [each["labels"] for each in told if each["labels"]["alertname"] == "K2PartAway"]
        assert "k2-writer" in {labels["job"] for labels in away}
        assert "<error" not in str([each["annotations"] for each in told])
    until_none(lambda: expected & firing(watched), watched)


def firing(watched: Watched) -> set[str]:
    return {
        alert["labels"]["alertname"]
        for alert in watched.prometheus.alerts()
        if alert["state"] == "firing"
    }


def ask(watched: Watched) -> None:
    """Ask for something, so that there are answers to be counted."""
    try:
        get(f"{watched.server}/v1/trades?limit=5")
    except urllib.error.HTTPError as error:
        error.close()


@contextmanager
def frozen_writer(watched: Watched) -> Iterator[None]:
    """The writer stands still, and by chance in no moment at which others wait for it."""
    running = parts(watched.run.process.pid)
    (pid,) = (pid for pid, words in running.items() if words[0] == "ingest")
    try:
        os.kill(pid, signal.SIGSTOP)
        while not lag_grows(watched):
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.1)
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def lag_grows(watched: Watched) -> bool:
    """Whether records come in and the server sees them; False if not so within 20 s."""
    first: int | None = None
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            (now,) = json.loads(get(f"{watched.server}/v1/status"))["data"]
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        else:
            lag = now["lag_messages"]
            first = lag if first is None else first
            if lag > first:
                return True
        time.sleep(0.05)
    return False


def until_none(
    what: Callable[[], Collection[object]], watched: Watched, seconds: float = 120
) -> None:
    """Wait until `what()` is empty; tells what it was otherwise."""
    last: Collection[object] = ()

    def is_empty() -> bool:
        nonlocal last
        last = what()
        return not last

    try:
        wait_for(is_empty, watched.run, seconds)
    except AssertionError as error:
        raise AssertionError(f"still there: {last}") from error
