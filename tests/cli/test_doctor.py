"""`k2 doctor`: each thing that is wrong is one line with its reason and the next step."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k2.venues import Trading, Venue, open_venue, symbols_of
from tests.cli.conftest import K2
from tests.servers.certificates import Certificates
from tests.servers.gate import gate
from tests.servers.kafka import Kafka, secured
from tests.servers.process import free_port
from tests.servers.registry import Registry

Doctor = Callable[..., tuple[str, str, str]]
"""State, found and hint of a part, with these settings."""


@pytest.fixture
def doctor(k2: K2, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    def look(part: str, **settings: str | Path) -> tuple[str, str, str]:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, str(value))
            ended = k2("doctor", "--json")
        assert ended.out, ended.talk
        rows = {row["part"]: row for row in json.loads(ended.out)["data"]}
        problems = [name for name, row in rows.items() if row["state"] == "problem"]
        row = rows[part]
        assert problems == ([part] if row["state"] == "problem" else [])
        assert ended.code == (1 if problems else 0)
        found, hint = row["found"], row["hint"] or ""
        assert "\n" not in found + hint
        assert len(found) < 300
        assert "s3cret" not in found + hint
        return row["state"], found, hint

    return look


@pytest.fixture
def silent() -> Iterator[str]:
    """HOST:PORT where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_broker_that_is_away(doctor: Doctor, silent: str) -> None:
    for address, reason, step in (
        ("no-such-host.invalid:9092", "nobody knows the host's name", "mend the address"),
        (f"127.0.0.1:{free_port()}", "nothing listens there", "start the server"),
        (silent, "it does not answer", "is it the right port"),
    ):
        state, found, hint = doctor("log", K2_LOG=f"kafka:{address}?timeout=1")
        assert state == "problem"
        assert f"Kafka is away: {reason}" in found
        assert address in found
        assert step in hint


def test_a_registry_that_is_away(doctor: Doctor) -> None:
    for address, reason, step in (
        ("no-such-host.invalid:8081", "nobody knows the host's name", "mend the address"),
        (f"127.0.0.1:{free_port()}", "nothing listens there", "start the server"),
    ):
        state, found, hint = doctor("registry", K2_REGISTRY=f"confluent:http://{address}")
        assert state == "problem"
        assert f"the registry is away: {reason}" in found
        assert address in found
        assert step in hint


@pytest.mark.slow
def test_a_registry_that_says_nothing(doctor: Doctor, silent: str) -> None:
    state, found, hint = doctor("registry", K2_REGISTRY=f"confluent:http://{silent}")
    assert state == "problem"
    assert "the registry is away: it does not answer" in found
    assert "is it the right port" in hint


def test_a_lake_that_cannot_be_read(doctor: Doctor, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "catalog.db").write_text("nobody's catalog" * 100)
    state, found, _ = doctor("lake", K2_LAKE=lake)
    assert state == "problem"
    assert str(lake) in found


@pytest.mark.slow
def test_a_broker_that_does_not_let_us_in(
    doctor: Doctor, make_kafka: Callable[..., Kafka], certificates: Certificates
) -> None:
    broker = make_kafka(secured(certificates, {"alice": "s3cret"}))
    signed = f"kafka:{broker.address('SASL_SSL')}?timeout=2"
    mutual = f"kafka:{broker.address('SSL')}?timeout=2"
    alice = {"K2_LOG": signed, "K2_LOG_USERNAME": "alice", "K2_LOG_CA": str(certificates.ca)}
    right = alice | {"K2_LOG_PASSWORD": "s3cret"}
    assert doctor("log", **right)[0] == "ok"
    # What a client is told when TLS fails depends on who hangs up first.
    for settings, reason, step in (
        (alice | {"K2_LOG_PASSWORD": "wr0ng"}, "refuses the name or the password", "K2_LOG_PASS"),
        (right | {"K2_LOG_CA": certificates.stranger}, "no trusted connection", "K2_LOG_CA"),
        ({"K2_LOG": signed}, "it does not answer", "does it want TLS or a login"),
        (
            {"K2_LOG": f"kafka:{broker.bootstrap}?timeout=2", "K2_LOG_TLS": "on"},
            r"what listens there does not speak TLS|closes the connection before TLS is agreed",
            "turn TLS off",
        ),
        (
            {"K2_LOG": mutual, "K2_LOG_CA": certificates.ca},
            "asks for a certificate|closes the connection before TLS is agreed",
            "_KEY",
        ),
    ):
        state, found, hint = doctor("log", **settings)
        assert state == "problem", settings
        assert re.search(reason, found), found
        assert step in hint


def test_a_registry_that_does_not_let_us_in(
    doctor: Doctor, registry_server: Registry, certificates: Certificates
) -> None:
    assert doctor("registry", K2_REGISTRY=f"confluent:{registry_server.url}")[0] == "ok"
    elsewhere = f"confluent:http://127.0.0.1:{registry_server.port}/elsewhere"
    state, found, hint = doctor("registry", K2_REGISTRY=elsewhere)
    assert state == "problem"
    assert "what answers is no schema registry" in found
    assert "/apis/ccompat/v7" in hint
    with gate(registry_server.url, certificates) as door:
        door.login = ("k2", "s3cret")
        url = f"confluent:{door.url}"
        state, found, hint = doctor("registry", K2_REGISTRY=url)
        assert "no trusted connection" in found
        assert "K2_REGISTRY_CA" in hint
        settings = {"K2_REGISTRY": url, "K2_REGISTRY_CA": str(certificates.ca)}
        login = {"K2_REGISTRY_USERNAME": "k2", "K2_REGISTRY_PASSWORD": "wr0ng"}
        state, found, hint = doctor("registry", **settings, **login)
        assert "does not accept the user name and password" in found
        assert "K2_REGISTRY_PASSWORD" in hint
        login["K2_REGISTRY_PASSWORD"] = "s3cret"
        assert doctor("registry", **settings, **login)[0] == "ok"


def feed_of(venue: Venue) -> str:
    return f"kraken:BTC/USD?ws={venue.ws}&rest={venue.rest}"


def test_a_venue_and_its_clock(doctor: Doctor) -> None:
    trading = Trading(symbols_of("kraken"), rate=10)
    with open_venue("kraken", trading) as venue:
        url = feed_of(venue)
        state, found, _ = doctor(f"feed {url}", K2_FEEDS=url)
        assert state == "ok"
        assert "its clock agrees with ours" in found
    # An answer's Date is of whole seconds, and the answer takes a moment: 30 s, or 1 less.
    for seconds, told in ((-30, "ahead of"), (30, "behind")):

        def clock(off: int = seconds) -> int:
            return time.time_ns() // 1_000 + off * 1_000_000

        with open_venue("kraken", trading, clock=clock) as venue:
            url = feed_of(venue)
            state, found, hint = doctor(f"feed {url}", K2_FEEDS=url)
            assert state == "problem"
            assert re.search(rf"our clock is (29|30|31) s {told} ", found), found
            assert "NTP" in hint


def test_a_venue_that_is_away(doctor: Doctor) -> None:
    closed = f"127.0.0.1:{free_port()}"
    with open_venue("kraken", Trading(symbols_of("kraken"), rate=10)) as venue:
        for ws, rest in ((venue.ws, f"http://{closed}"), (f"ws://{closed}/v2", venue.rest)):
            url = f"kraken:BTC/USD?ws={ws}&rest={rest}"
            state, found, hint = doctor(f"feed {url}", K2_FEEDS=url)
            assert state == "problem"
            assert "the venue is away: nothing listens there" in found
            assert closed in found
            assert "mend the address" in hint
    assert doctor("feed simulator:", K2_FEEDS="simulator:")[0] == "ok"


def test_a_feed_that_cannot_be(doctor: Doctor) -> None:
    state, found, hint = doctor("feed krakn:BTC/USD", K2_FEEDS="krakn:BTC/USD")
    assert state == "problem"
    assert "there is no feed called 'krakn'" in found
    assert "kraken" in hint
