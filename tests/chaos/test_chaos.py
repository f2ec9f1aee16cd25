"""Faults at every seam, over both logs: each run proves that every record has one fate.

`make test` plays a few hundred faults, `make soak` ten thousand, or `K2_TEST_FAULTS`. A run that
fails names the command that makes it again.
"""

import os
import time

import pytest

from k2.chaos import SQLITE, Played, play, play_many
from tests.servers.kafka import Kafka

FEW = 300
MANY = int(os.environ.get("K2_TEST_FAULTS", "10000"))
ON_KAFKA = 0.1
"""So large a part of them strikes on a real broker."""
SEED = int(os.environ.get("K2_TEST_SEEDS", "1").partition(",")[0])
SEAMS = {"feed", "log", "registry", "catalog", "object files", "writer", "server", "clock"}


def faults(log: str, count: float) -> Played:
    began = time.monotonic()
    played = play_many(SEED * 100_000, lambda played: played.count >= count, log=log)
    took = time.monotonic() - began
    print(f"{log}: {played.count:,} faults in {played.runs} runs, {took:,.0f} s")  # noqa: T201
    assert {seam for seam, _ in played.faults} == SEAMS
    return played


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_few_hundred_faults() -> None:
    faults(SQLITE, FEW)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_some_faults_on_kafka(kafka: Kafka) -> None:
    faults(f"kafka:{kafka.bootstrap}?timeout=60", FEW / 2)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_thousands_of_faults() -> None:
    played = faults(SQLITE, MANY * (1 - ON_KAFKA))
    for fault, count in sorted(played.faults.items()):
        print(*fault, count)  # noqa: T201


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_thousand_faults_on_kafka(kafka: Kafka) -> None:
    faults(f"kafka:{kafka.bootstrap}?timeout=60", MANY * ON_KAFKA)


@pytest.mark.slow
def test_a_seed_makes_the_same_run_again() -> None:
    assert play(7) == play(7)
