"""The outermost layer: what is imported, how errors are told, which code a command ends with."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from k2.cli import main
from k2.errors import BadInput, Broken, Conflict, Fenced, K2Error, NotFound, Refused, Unavailable
from tests.cli.conftest import K2

HEAVY = {"pyarrow", "duckdb", "polars", "pyiceberg", "fastapi", "numpy"}


def test_help_and_every_command_import_nothing_heavy() -> None:
    program = (
        "import sys, importlib\n"
        "from k2.cli import main\n"
        "main.run(['--help'])\n"
        "assert not [m for m in sys.modules if m.startswith('k2.cli.commands')], 'not lazy'\n"
        "for name in main.command_names():\n"
        "    importlib.import_module(f'{main.COMMANDS}.{name}')\n"
        "    assert main.run([name, '--help']) == 0\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_every_command_says_what_it_does(k2: K2) -> None:
    listing = k2("--help").out
    for name in main.command_names():
        assert main.first_line(name).endswith("."), name
        assert re.search(rf"^  {name} ", listing, re.M), name
        assert k2(name, "--help").code == 0


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "k2", "version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"k2 \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("x"), 2),
        (NotFound("x"), 1),
        (Refused("x"), 1),
        (Broken("x"), 1),
        (Unavailable("x"), 3),
        (Conflict("x"), 3),
        (Fenced("x"), 3),
    ],
)
def test_exit_codes(error: K2Error, code: int) -> None:
    assert main.exit_code(error) == code


def test_scripts_find_the_error_where_they_look_for_the_answer(k2: K2) -> None:
    ended = k2("trades", "--json")
    assert ended.code == 2
    told = json.loads(ended.out)
    assert told["success"] is False
    assert told["error"]["code"] == "VALIDATION_ERROR"
    assert told["error"]["message"] in ended.talk


def test_an_error_tells_what_was_expected_and_what_to_do() -> None:
    error = BadInput(
        'price "12,5" is no decimal number',
        place="trades.csv line 4,182",
        expected='digits with "." as the decimal mark',
        hint="mend the line and load the file again",
    )
    assert main.to_lines(error) == [
        'k2: trades.csv line 4,182: price "12,5" is no decimal number',
        '    expected digits with "." as the decimal mark',
        "    mend the line and load the file again",
    ]
    assert "    try again in 5 s" in main.to_lines(Unavailable("x", retry_after=5))


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuchcommand"],
        ["trades", "--nosuch"],
        ["bars"],
        ["bars", "BHP"],
        ["trades", "--limit", "0"],
        ["trades", "--limit", "many"],
        ["trades", "--from", "yesterday"],
        ["trades", "--from", "2014-03-10T10:00:00"],
        ["trades", "--last", "1", "--limit", "1"],
        ["summary", "BHP", "11.3.2014"],
        ["symbols"],
        ["settings", "--home", "file"],
    ],
)
def test_wrong_usage_is_2_in_two_or_three_lines(
    k2: K2, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "file").touch()
    ended = k2(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    lines = ended.talk.splitlines()
    assert lines[0].startswith("k2: ")
    assert 2 <= len(lines) <= 3
    assert all(line.startswith("    ") for line in lines[1:])


def test_no_command_shows_the_help(k2: K2) -> None:
    ended = k2()
    assert ended.code == 2
    assert "Commands:" in ended.talk


def test_a_fault_of_k2_is_named_as_one(k2: K2, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("about to be told")

    monkeypatch.setattr("k2.cli.options.load_settings", fail)
    ended = k2("settings")
    assert ended.code == 1
    assert "ZeroDivisionError: about to be told" in ended.talk
    assert "Traceback" not in ended.talk
    assert "Traceback" in k2("--debug", "settings").talk


def test_what_the_system_refuses_has_a_place(k2: K2) -> None:
    ended = k2("settings", "--csv", "-o", "no/such/folder/x.csv")
    assert ended.code == 2
    assert "no/such/folder" in ended.talk
    assert "Traceback" not in ended.talk


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "k2", "--home", str(tmp_path), "settings", "--csv"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words", [("feed", "simulator:?count=10&rate=max"), ("ingest", "--until-caught-up")]
)
def test_metrics_are_served_where_it_is_said(k2: K2, words: tuple[str, ...]) -> None:
    ended = k2(words[0], "--metrics-port", "0", *words[1:])
    assert ended.code == 0
    match = re.search(r"metrics are at http://127\.0\.0\.1:(\d+)/metrics", ended.talk)
    assert match is not None
    with socket.create_server(("127.0.0.1", int(match[1]))):
        ended = k2(words[0], "--metrics-port", match[1], *words[1:])
    assert ended.code == 3
    assert f"127.0.0.1:{match[1]}: the metrics cannot be served there" in ended.talk
