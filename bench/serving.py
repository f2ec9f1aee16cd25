"""Requests a second through HTTP, at 16 clients in a process of their own."""

import subprocess
import sys
import threading
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import numpy as np

from bench.home import folder, k2, settled
from bench.market import DAYS, SYMBOLS
from bench.report import show
from k2.cli.machine import free_port, wait_until_ready

CLIENTS = 16
_DAY = f"start_time={DAYS[2]}&end_time={DAYS[2] + timedelta(days=1)}"
PATHS = {
    "last 100 trades": f"/v1/trades?symbol={SYMBOLS[0]}&last=100",
    "1-min bars of a day": f"/v1/bars/1m?symbol={SYMBOLS[0]}&{_DAY}",
    "summary of a day": f"/v1/summary/{SYMBOLS[0]}/{DAYS[2]}",
    "health": "/health/live",
}


def run(*, quick: bool = False) -> None:
    """Serve tables of a million rows and ask."""
    with folder("serving") as home:
        settled(home, 100_000 if quick else 1_000_000)
        serve(home, 1.0 if quick else 5.0)


def serve(home: Path, seconds: float) -> None:
    """Print requests a second and latencies of each question at 16 clients."""
    port = free_port("127.0.0.1", 8642)
    url = f"http://127.0.0.1:{port}"
    with k2(home, "serve", "--port", str(port)):
        wait_until_ready(url, threading.Event().wait)
        figures = []
        for name, path in PATHS.items():
            done = subprocess.run(
                [sys.executable, "-m", "bench.serving", url + path, str(seconds)],
                capture_output=True,
                text=True,
                check=True,
            )
            rate, p50, p99 = map(float, done.stdout.split())
            figures.append([name, rate, p50, p99])
    show(f"Serving at {CLIENTS} clients", ["question", "requests/s", "p50 ms", "p99 ms"], figures)


def _ask(url: str, seconds: float) -> str:
    """Ask from all clients for so long; requests a second, p50 and p99 in milliseconds."""
    took: list[float] = []
    urllib.request.urlopen(url, timeout=60).read()
    end = time.perf_counter() + seconds

    def client() -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            urllib.request.urlopen(url, timeout=60).read()
            took.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(took) / (time.perf_counter() - began)
    return f"{rate} {np.percentile(took, 50) * 1000} {np.percentile(took, 99) * 1000}"


if __name__ == "__main__":
    sys.stdout.write(_ask(sys.argv[1], float(sys.argv[2])))
