"""Three venues for half an hour, each connection ended once a minute, two writers and a server."""

import json
import time
import urllib.request
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import pytest

from k2.cli.machine import free_port
from k2.venues import Trading, open_venue, symbols_of
from tests.cli.conftest import K2
from tests.journeys.test_live_venues import NAMES, Parts
from tests.journeys.test_soak import (
    LOOKS_A_MINUTE,
    MINUTES,
    data_files,
    grown,
    handles,
    memory,
    metadata_files,
    show,
)
from tests.servers.kafka import Kafka
from tests.servers.registry import Registry

RATE = 300
"""Market orders a second of each venue: with their quotes some 2,000 messages together."""
CONNECTION_SECONDS = 60.0


def status(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=30) as answer:
        (found,) = json.load(answer)["data"]
        return dict(found)


@pytest.mark.soak
@pytest.mark.servers
@pytest.mark.timeout(0)
def test_venues_are_followed_and_nothing_grows(
    k2: K2,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kafka: Kafka,
    registry_server: Registry,
) -> None:
    home = tmp_path / "home"
    for name, value in {
        "K2_HOME": str(home),
        "K2_LOG": f"kafka:{kafka.bootstrap}?prefix=soak.",
        "K2_REGISTRY": f"confluent:{registry_server.url}",
        "K2_LOG_PARTITIONS": "2",
        # What was compacted away goes soon enough to be seen going.
        "K2_REMOVE_AFTER_SECONDS": "300",
    }.items():
        monkeypatch.setenv(name, value)
    port = free_port("127.0.0.1", 0)
    seen: dict[str, list[int]] = defaultdict(list)
    with ExitStack() as stack:
        venues = {
            name: stack.enter_context(
                open_venue(
                    name,
                    Trading(symbols_of(name)[:2], rate=RATE),
                    truth=tmp_path / f"{name}.jsonl",
                    connection_seconds=CONNECTION_SECONDS,
                )
            )
            for name in NAMES
        }
        parts = stack.enter_context(Parts(tmp_path))
        urls = [
            f"{name}:{','.join(symbols_of(name)[:2])}?ws={venue.ws}&rest={venue.rest}"
            for name, venue in venues.items()
        ]
        processes = {
            "feed": parts.start("feed", *urls),
            "writer 1": parts.start("ingest"),
            "writer 2": parts.start("ingest"),
            "server": parts.start("serve", "--port", str(port)),
            "maintenance": parts.start("maintain", "--follow"),
        }
        time.sleep(15)
        end = time.monotonic() + MINUTES * 60
        while time.monotonic() < end:
            time.sleep(60 / LOOKS_A_MINUTE)
            for name, process in processes.items():
                seen[f"memory of {name}"].append(memory(process.pid))
                seen[f"handles of {name}"].append(handles(process.pid))
            seen["metadata files"].append(metadata_files(home))
            seen["data files"].append(data_files(home))
            seen["lag"].append(int(status(port)["lag_messages"]))
        for venue in venues.values():
            venue.stop_trading()
        time.sleep(10)
        lag = status(port)["lag_messages"]
        parts.end(*processes.values())
    show(tmp_path, seen)
    assert lag == 0
    assert k2("ingest", "--until-caught-up").code == 0
    assert k2("audit", "--json").code == 0
    for name, counts in seen.items():
        if name != "lag":
            assert grown(counts) < (1.5 if name.endswith(" files") else 1.2), name
