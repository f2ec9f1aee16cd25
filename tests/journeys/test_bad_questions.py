"""Whatever is asked for, at the command line or over HTTP: a clear answer, and nothing changes."""

import csv
import importlib
import io
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx
import pytest

from k2.cli import main
from k2.query import open_reader
from tests.api.conftest import audit_of, running
from tests.api.test_shape import check_error
from tests.cli.conftest import K2
from tests.journeys.test_bad_input import GOOD, HEADER, MAPPING, assert_exact, data

SQL = """x' OR '1'='1' OR "1"="1"; DROP TABLE trades; --"""
TRADES = 30_000

USUAL: dict[str, list[str]] = {
    "aggregate": ["BTCUSDT", "--interval", "1m", "--metric", "vwap"],
    "bbo": ["BTCUSDT"],
    "bars": ["BTCUSDT", "--interval", "1m"],
    "feed": ["simulator:?rate=max&seed=8&count=400"],
    "load": ["good.csv", "--kind", "trades", "--mapping", "plain.toml"],
    "ingest": ["--until-caught-up"],
    "schema check": ["next.avsc", "trades"],
    "schema show": ["trades"],
    "serve": ["--host", "example.org"],
    "sql": ["select 1"],
    "summary": ["BTCUSDT", "2026-01-05"],
}
"""What a command needs beside the parameter that is tried, arguments first; and what ends it."""

FOREVER = {"demo", "up"}
"""Commands that run parts as processes: their settings are the other commands' own."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with many trades in its tables and a few more in its log."""
    folder = tmp_path_factory.mktemp("questions")
    market = "simulator:?rate=max&symbols=3&seed=8&kinds=trades&count="
    for words in (
        ["feed", f"{market}{TRADES}"],
        ["ingest", "--until-caught-up"],
        ["feed", f"{market}{TRADES + 100}"],
    ):
        assert main.run(["--home", str(folder), *words]) == 0
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[httpx.Client]:
    """A client of a server over `home`."""
    with (
        open_reader(home, follow=True) as reader,
        running(reader, audit_of(home), audit_seconds=None) as opened,
    ):
        yield opened


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command, the commands of groups as two words."""
    for name in main.command_names():
        command = importlib.import_module(f"{main.COMMANDS}.{name}").command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", c) for sub, c in command.commands.items())
        elif name not in FOREVER:
            yield name, command


def tries(name: str, command: click.Command, text: str) -> Iterator[tuple[str, list[str]]]:
    """The command with `text` in one parameter after the other."""
    usual = USUAL.get(name, [])
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    for place, argument in enumerate(arguments):
        words = list(usual)
        words[place : place + 1] = [text]
        yield str(argument.name), [*name.split(), *words]
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_flag:
            yield str(option.name), [*name.split(), *usual, option.opts[0], text]


TRIES = [
    pytest.param(words, parameter, id=f"{name} {parameter}")
    for name, command in commands()
    for parameter, words in tries(name, command, SQL)
]


@pytest.mark.parametrize(("words", "parameter"), TRIES)
def test_sql_in_every_parameter_of_every_command(
    k2: K2, home: Path, tmp_path: Path, words: list[str], parameter: str
) -> None:
    (tmp_path / "plain.toml").write_text(MAPPING)
    (tmp_path / "good.csv").write_text(f"{HEADER}\n{GOOD}\n")
    (tmp_path / "next.avsc").write_text("{}")
    at = [] if parameter == "home" else ["--home", str(home)]
    ended = k2(*words, *at)
    assert ended.code in (0, 1, 2), ended.talk
    assert "fault of K2 itself" not in ended.talk
    assert "K2's own" not in ended.talk
    if ended.code:
        assert ended.out == ""
        assert ended.talk.startswith("k2: "), ended.talk
        assert 1 <= len(ended.talk.splitlines()) <= 4
    elif words[0] != "load" and parameter in (
        "symbol",
        "exchange",
        "where",
        "after",
        "start",
        "end",
        "as_of",
    ):
        # Taken for a name: and there is none of that name.
        assert [line for line in ended.out.splitlines()[1:] if line.strip()] == []


def test_after_all_that_everything_is_as_it_was(k2: K2, home: Path) -> None:
    at = ("--home", str(home))
    ended = k2("audit", "--json", *at)
    assert json.loads(ended.out)["ok"] is True
    (row,) = data(
        k2, "sql", "select count(*) as rows from trades where exchange = 'simulated'", *at
    )
    assert row["rows"] >= TRADES + 100


def operations(client: httpx.Client) -> Iterator[tuple[str, str, dict[str, Any]]]:
    paths = client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method, described in methods.items():
            yield method.upper(), path, described


def test_sql_in_every_parameter_over_http(client: httpx.Client) -> None:
    before = client.get("/v1/trades?last=5").json()["data"]
    tried = 0
    usual = {"interval": "1m", "symbol": "BTCUSDT", "date": "2026-01-05", "id": "1"}
    usual["name"] = "none"
    for method, path, described in operations(client):
        given = described.get("parameters", [])
        body = described.get("requestBody", {}).get("content", {}).get("application/json", {})
        for parameter in given:
            name = parameter["name"]
            parts = {**usual, name: SQL} if parameter["in"] == "path" else usual
            url = path.format(**{key: quote(value, safe="") for key, value in parts.items()})
            query = {"symbol": "BTCUSDT"} if "bars" in path else {}
            if parameter["in"] == "query":
                query[name] = SQL
            if path == "/v1/stream":
                check_stream(client, query)
            else:
                check(client.request(method, url, params=query), name)
            tried += 1
        for name in body.get("schema", {}).get("properties", {}):
            for value in (SQL, [SQL]):
                document = {"symbols": ["BTCUSDT"], "interval": "1m", name: value}
                url = path.format(**usual)
                if "bars" not in path and name != "interval":
                    del document["interval"]
                check(client.request(method, url, json=document), name)
                tried += 1
    assert tried > 50
    assert client.get("/v1/trades?last=5").json()["data"] == before


def check_stream(client: httpx.Client, query: dict[str, str]) -> None:
    """A stream has no end: one that begins tells what it is of, and is left."""
    with client.stream("GET", "/v1/stream", params=query) as response:
        if response.status_code == 200:
            assert next(response.iter_lines())
        else:
            response.read()
            check_error(response, 422, "VALIDATION_ERROR")


def check(response: httpx.Response, name: str) -> None:
    assert response.status_code in (200, 404, 422), response.text
    if response.status_code != 200:
        code = {404: "NOT_FOUND", 422: "VALIDATION_ERROR"}[response.status_code]
        check_error(response, response.status_code, code)
    elif response.url.path == "/v1/explain":
        # What would be read is told by a line for each kind.
        (told,) = response.json()["data"]
        assert name != "symbol" or told["files"] == 0
    elif name in ("symbol", "symbols", "exchange", "exchanges"):
        assert response.json()["data"] == []


SYMBOLS = ["BRK/B", "O'NEIL", 'a"b', "X'; --", "A B", "%2F", "..", "株式会社", "-x", "A?b#c&d=e",
           "A,B", "/", "{x}", "$1", "*"]  # fmt: skip


def test_a_symbol_with_any_mark_goes_all_the_way(k2: K2, tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(MAPPING)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for number, symbol in enumerate(SYMBOLS):
        for second in (1, 2):
            rows.writerow([symbol, f"2026-03-02T01:00:0{second}.0Z", number + second, 10])
    (tmp_path / "odd.csv").write_text(f"{HEADER}\n{text.getvalue()}")
    ended = k2("load", "odd.csv", "--kind", "trades", "--mapping", "plain.toml", "--strict")
    assert ended.code == 0, ended.talk
    assert_exact(k2)
    assert {row["symbol"] for row in data(k2, "symbols")} == set(SYMBOLS)
    home = tmp_path / "home"
    with (
        open_reader(home, follow=True) as reader,
        running(reader, audit_of(home), audit_seconds=None) as client,
    ):
        for number, symbol in enumerate(SYMBOLS):
            (bar,) = data(k2, "bars", "--interval", "1h", "--", symbol)
            assert (bar["symbol"], bar["low"]) == (symbol, str(number + 1))
            (summary,) = data(k2, "summary", "--", symbol, "2026-03-02")
            assert (summary["symbol"], summary["high"]) == (symbol, str(number + 2))
            assert len(data(k2, "trades", "--where", f"symbol={symbol}")) == 2
            (by_sql,) = data(
                k2, "sql", f"select count(*) as n from trades where symbol = {literal(symbol)}"
            )
            assert by_sql["n"] == 2
            assert ask(client, "/v1/bars/1h", symbol=symbol) == [bar]
            assert len(ask(client, "/v1/trades", symbol=symbol)) == 2
            path = f"/v1/summary/{quote(symbol, safe='').replace('.', '%2E')}/2026-03-02"
            assert ask(client, path) == [summary]
        assert ask(client, "/v1/summary/BRK/B/2026-03-02")[0]["symbol"] == "BRK/B"


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def ask(client: httpx.Client, path: str, **query: str) -> list[dict[str, Any]]:
    response = client.get(path, params=query)
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.json()["data"]
    return rows


@pytest.mark.slow
def test_a_body_of_a_hundred_megabytes(client: httpx.Client) -> None:
    for method, path, described in list(operations(client)):
        if "requestBody" in described:
            url = path.format(id="1", name="none")
            response = client.request(method, url, content=b"x" * 100_000_000)
            check_error(response, 413, "PAYLOAD_TOO_LARGE")
    assert client.get("/health/live").status_code == 200


def test_clients_that_hang_up_in_the_middle_of_an_answer(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"limit": TRADES}).encode()
    address = (client.base_url.host, client.base_url.port)
    head = (
        b"POST /v1/trades/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with caplog.at_level(logging.WARNING):
        for number in range(12):
            with socket.create_connection(address) as caller:
                caller.sendall(head + (body if number % 3 else body[:5]))
                if number % 3 == 1:
                    assert b"200 OK" in caller.recv(4096)
                if number % 2:
                    # Not even a goodbye: the connection is reset.
                    linger = b"\x01\0\0\0\0\0\0\0"
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        rows = client.post("/v1/trades/query", json={"limit": TRADES}).json()["data"]
    assert len(rows) == TRADES
    assert client.get("/health/ready").status_code == 200
    assert caplog.records == []
