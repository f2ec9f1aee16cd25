"""K2's own log: lines for people, or JSON objects with places and correlation for machines."""

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from k2.cli.logs import JsonLines, set_up_logs
from k2.cli.show import say, say_of
from k2.errors import Refused
from tests.cli.conftest import K2


@pytest.fixture
def as_json() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    set_up_logs("json", logging.INFO)
    yield
    root.handlers[:] = before
    root.setLevel(level)


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonLines().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_an_error_brings_its_fields_and_extras_their_own() -> None:
    error = Refused("no", place="market.crypto.trades.x[3] offset 7", hint="wait")
    record = logging.getLogger("k2.somewhere").makeRecord(
        "k2.somewhere", logging.ERROR, "f", 1, "%s: %s", ("trades", error), None, "g",
        {"table": "trades"},
    )  # fmt: skip
    found = formatted(record)
    assert found["level"] == "ERROR"
    assert found["logger"] == "k2.somewhere"
    assert found["table"] == "trades"
    assert found["message"] == f"trades: {error}"
    assert found["error"]["place"] == "market.crypto.trades.x[3] offset 7"
    assert found["error"]["hint"] == "wait"
    assert found["time"].endswith("Z")


def test_an_exception_is_in_the_same_line() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.makeLogRecord({"msg": "it failed", "exc_info": sys.exc_info()})
    assert "ValueError: first\nsecond" in formatted(record)["exception"]


@pytest.mark.usefixtures("as_json")
def test_what_is_said_is_a_line_too_and_parts_keep_theirs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logs("json", logging.INFO)  # on the stream that is captured
    say("two\nlines", colour="green")
    say_of("writer", '{"message": "m", "level": "ERROR", "table": "trades"}')
    say_of("writer", "no JSON")
    say_of("writer", "7")
    first, second, third, fourth = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["message"] == "two\nlines"
    assert second == {"message": "m", "level": "ERROR", "table": "trades", "part": "writer"}
    assert (third["message"], third["part"]) == ("no JSON", "writer")
    assert fourth["message"] == "7"


@pytest.mark.usefixtures("as_json")
def test_a_command_tells_json_where_that_is_set(k2: K2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_LOGGING", "json")
    ended = k2("feed", "simulator:?rate=max&count=50")
    assert ended.code == 0
    lines = [json.loads(line) for line in ended.talk.splitlines() if line.strip()]
    assert lines
    assert all({"time", "level", "message"} <= line.keys() for line in lines)


def test_what_it_can_be(k2: K2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_LOGGING", "xml")
    ended = k2("settings")
    assert ended.code == 2
    assert "text or json" in ended.talk
