"""`k2 up` and `k2 demo` as a user runs them: real processes, killed and ended from outside."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from k2.cli.machine import free_port
from tests.cli.running import commands, get, parts, running, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc"),
]


def test_up_restarts_what_is_killed_and_ends_cleanly(tmp_path: Path) -> None:
    port = free_port("127.0.0.1", 0)
    feed = "simulator:?symbols=2&rate=100"
    with running(*("--home", str(tmp_path), "up", "--feed", feed), K2_SERVE_PORT=str(port)) as run:
        wait_for(lambda: run.says("K2 is ready"), run)
        before = parts(run.process.pid)
        assert commands(run.process.pid) == ["feed", "ingest", "maintain", "serve"]
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(parts(run.process.pid).keys() - before.keys()) == 4, run)
        assert commands(run.process.pid) == ["feed", "ingest", "maintain", "serve"]
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 0, run.lines
        assert parts(run.process.pid) == {}
    audit = subprocess.run(
        [sys.executable, "-m", "k2", "--home", str(tmp_path), "audit", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(audit.stdout)["ok"] is True


def test_parts_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with running(
        *("--home", str(tmp_path), "up", "--feed", "simulator:?rate=10"), K2_SERVE_PORT="0"
    ) as run:
        wait_for(lambda: len(parts(run.process.pid)) == 4, run)
        run.process.kill()
        wait_for(lambda: parts(run.process.pid) == {}, run)


def test_wrong_usage_of_a_part_ends_up(tmp_path: Path) -> None:
    with running(*("--home", str(tmp_path), "up", "--feed", "nosuch:x"), K2_SERVE_PORT="0") as run:
        assert run.process.wait(60) == 2
    assert run.says("nosuch")


def test_demo_shows_a_page_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with running("demo", "--no-browser", TMPDIR=str(tmp_path), K2_HOME="/no/such") as run:
        wait_for(lambda: run.says("K2 is running"), run)
        match = run.says(r"(http://\S+)")
        assert match is not None
        assert b"<html" in get(match[1]).lower()
        wait_for(lambda: json.loads(get(f"{match[1]}/v1/symbols"))["data"], run)
        assert len(list(tmp_path.iterdir())) == 1
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 0, run.lines
    assert list(tmp_path.iterdir()) == []
    assert not Path("/no/such").exists()


def test_demo_with_venues_follows_three_of_them_through_faults(tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ["--venues", "--no-browser", "--faults", "200", "--rate", "300"]
    with running("demo", *words, "--home", str(home)) as run:
        wait_for(lambda: run.says("K2 is running"), run)
        match = run.says(r"(http://\S+)")
        assert match is not None
        assert b"<html" in get(match[1]).lower()
        wait_for(lambda: traded(match[1]) == {"binance", "coinbase", "kraken"}, run)
        # A fault of theirs, and a feed that noticed.
        wait_for(lambda: run.says(r"^feed \d: "), run)
        assert commands(run.process.pid) == ["feed", "feed", "feed", "ingest", "maintain", "serve"]
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 0, run.lines
        assert parts(run.process.pid) == {}
    k2 = [sys.executable, "-m", "k2", "--home", str(home)]
    subprocess.run([*k2, "ingest", "--until-caught-up"], check=True, timeout=120)
    audit = subprocess.run([*k2, "audit", "--json"], capture_output=True, check=True, timeout=120)
    assert json.loads(audit.stdout)["ok"] is True
    again = subprocess.run(
        [*k2, "demo", "--venues", "--no-browser"], capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 2
    assert "ids of those before" in again.stderr


def test_demo_overload_sheds_and_recovers(tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ["--overload", "--no-browser", "--rate", "200", "--home", str(home)]
    with running("demo", *words) as run:
        wait_for(lambda: run.says("K2 is running"), run)
        match = run.says(r"(http://\S+)")
        assert match is not None

        def asked(path: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(get(f"{match[1]}{path}"))["data"]
            return found

        wait_for(lambda: any(each["number"] for each in asked("/v1/degradation")), run, 240)
        wait_for(lambda: "filled" in [each["event"] for each in asked("/v1/shed")], run, 240)
        wait_for(lambda: run.says("all that was shed is in"), run, 240)
        history = [change for each in asked("/v1/degradation") for change in each["history"]]
        assert {"SOFT", "GRACEFUL", "NORMAL"} <= {change["after"] for change in history}
        (status,) = asked("/v1/status")
        assert status["level"] == "NORMAL"
        assert status["shed_waiting"] == 0
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 0, run.lines
        assert parts(run.process.pid) == {}
    k2 = [sys.executable, "-m", "k2", "--home", str(home)]
    subprocess.run([*k2, "ingest", "--until-caught-up"], check=True, timeout=240)
    audit = subprocess.run([*k2, "audit", "--json"], capture_output=True, check=True, timeout=120)
    found = json.loads(audit.stdout)
    assert found["ok"] is True
    assert not any(part["shed"] or part["in_flight"] for part in found["partitions"])


def traded(url: str) -> set[str]:
    """The exchanges of which there are symbols."""
    return {row["exchange"] for row in json.loads(get(f"{url}/v1/symbols"))["data"]}


def test_demo_with_venues_leaves_nothing_behind(tmp_path: Path) -> None:
    with running("demo", "--venues", "--no-browser", TMPDIR=str(tmp_path)) as run:
        wait_for(lambda: run.says("K2 is running"), run)
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(60) == 0, run.lines
        assert run.says("its folder is gone")
    assert list(tmp_path.iterdir()) == []
