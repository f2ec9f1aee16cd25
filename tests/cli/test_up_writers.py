"""`k2 up` with a settings file: two writers that share the work, one of which is killed."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

from k2.cli.machine import free_port
from tests.cli.running import Run, get, parts, running, wait_for
from tests.servers.kafka import Kafka
from tests.servers.registry import Registry
from tests.test_metrics import Figures, scrape

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc"),
]

SETTINGS = """
feeds = ["simulator:?symbols=40&rate=1000"]
writers = 2
log_partitions = 4
serve_port = {serve}
feed_metrics_port = 0
ingest_metrics_port = {ingest}
"""


def free_pair() -> int:
    """A port that is free, and the next one with it."""
    while True:
        port = free_port("127.0.0.1", 0)
        if port < 65_535 and free_port("127.0.0.1", port + 1) == port + 1:
            return port


def test_two_writers_share_a_sqlite_log(tmp_path: Path) -> None:
    share_the_work(tmp_path, "")


def test_two_writers_share_a_kafka(tmp_path: Path, kafka: Kafka, registry_server: Registry) -> None:
    log = f'log = "kafka:{kafka.bootstrap}?prefix=up-writers."\n'
    share_the_work(tmp_path, f'{log}registry = "confluent:{registry_server.url}"\n')


def share_the_work(home: Path, servers: str) -> None:
    ingest = free_pair()
    serve = free_port("127.0.0.1", 0)
    (home / "k2.toml").write_text(SETTINGS.format(serve=serve, ingest=ingest) + servers)
    with running("--home", str(home), "up") as run:
        wait_for(lambda: run.says("K2 is ready"), run)
        ports = (ingest, ingest + 1)
        wait_for(lambda: shared(ports), run)
        killed = writer_at(ingest, run)
        os.kill(killed, signal.SIGKILL)
        # Started again, at its own port, while the other goes on.
        wait_for(lambda: run.says(r"writer 1: was killed by signal 9; starting it again"), run)
        wait_for(lambda: writer_at(ingest, run) not in (0, killed), run)
        rows = committed(ports)
        wait_for(lambda: shared(ports) and committed(ports) > rows, run)
        match = run.says(r"feed: metrics are at (http://\S+)")
        assert match is not None
        produced = scrape(match[1])
        assert sum(v for key, v in produced.items() if key[0] == "k2_feed_records_total") > 0
        assert b"k2_http_requests_total" in get(f"http://127.0.0.1:{serve}/metrics")
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 0, run.lines
        assert not parts(run.process.pid)
    k2 = [sys.executable, "-m", "k2", "--home", str(home)]
    subprocess.run([*k2, "ingest", "--until-caught-up"], check=True, timeout=120)
    done = subprocess.run([*k2, "audit", "--json"], capture_output=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert sum(part["committed"] for part in found["partitions"]) > 1_000
    assert not any(part["in_flight"] for part in found["partitions"])


def figures_at(port: int) -> Figures:
    """The figures of the writer at this port; none while it is away."""
    try:
        return scrape(f"http://127.0.0.1:{port}/metrics")
    except (urllib.error.URLError, OSError):
        return {}


def shared(ports: tuple[int, int]) -> bool:
    """Whether both writers have partitions of trades, and together all, each one once."""
    one, two = (
        {key[1:] for key in figures_at(port) if key[0] == "k2_ingest_lag_messages"}
        for port in ports
    )
    numbers = sorted(n for n, topic in (*one, *two) if topic == "market.crypto.trades.simulated")
    return bool(one and two) and numbers == ["0", "1", "2", "3"]


def committed(ports: tuple[int, int]) -> float:
    return sum(
        value
        for port in ports
        for key, value in figures_at(port).items()
        if key == ("k2_ingest_rows_total", "trades")
    )


def writer_at(port: int, run: Run) -> int:
    """Pid of the writer whose metrics are at this port; 0: there is none now."""
    wanted = ["ingest", "--metrics-port", str(port)]
    return next((pid for pid, words in parts(run.process.pid).items() if words == wanted), 0)
