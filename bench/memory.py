"""Memory of the whole demo at 100,000 records/s: proportional set size of each process."""

import threading
import time
import urllib.request
from pathlib import Path

from bench.home import folder, k2
from bench.report import show
from k2.cli.machine import free_port, wait_until_ready

RATE = 100_000


def run(*, quick: bool = False) -> None:
    """Print what each process holds at most, while the page's questions are asked."""
    seconds = 5 if quick else 60
    port = free_port("127.0.0.1", 8642)
    url = f"http://127.0.0.1:{port}"
    most: dict[str, int] = {}
    whole = 0
    with (
        folder("memory") as home,
        k2(
            home,
            "demo",
            "--no-browser",
            "--home",
            str(home),
            "--rate",
            str(RATE),
            "--port",
            str(port),
        ) as demo,
    ):
        wait_until_ready(url, threading.Event().wait)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for path in ("/v1/symbols", "/v1/bars/1s?symbol=BTCUSDT&last=300", "/v1/status"):
                urllib.request.urlopen(url + path, timeout=30).read()
            now = memory_of(demo.pid)
            whole = max(whole, sum(now.values()))
            for name, size in now.items():
                most[name] = max(most.get(name, 0), size)
            time.sleep(0.5)
    figures: list[list[object]] = [[name, size / 2**20] for name, size in sorted(most.items())]
    figures.append(["all of it at once", whole / 2**20])
    title = f"Memory of k2 demo at {RATE:,} records/s; the aim: server 1,000 MB, all 1,280 MiB"
    show(title, ["process", "most, MiB"], figures)


def memory_of(parent: int) -> dict[str, int]:
    """Bytes of a process and its children, by what they do."""
    found: dict[str, int] = {}
    for folder_ in Path("/proc").iterdir():
        if not folder_.name.isdigit():
            continue
        try:
            above = int((folder_ / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent not in (above, int(folder_.name)):
                continue
            words = (folder_ / "cmdline").read_bytes().decode().split("\0")
            sizes = (folder_ / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        name = next((w for w in words if w in ("feed", "ingest", "serve", "demo")), "other")
        size = next(int(line.split()[1]) for line in sizes if line.startswith("Pss:"))
        found[name] = found.get(name, 0) + size * 1024
    return found
