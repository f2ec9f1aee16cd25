"""The reference pages docs/cli.md and docs/settings.md, made from the commands and the table."""

import inspect
from collections.abc import Iterator
from typing import Final

import click

from k2.cli.main import cli, command_names, first_line
from k2.settings import SETTINGS

_CLI_OPENING: Final = """\
# Command line

`k2 [--home FOLDER] COMMAND …`; `k2 COMMAND --help` tells the same. Data goes to stdout, everything
else to stderr. Exit codes: 0 done, 1 found a problem, 2 wrong usage, 3 unavailable.

Commands that answer with data take `--table` (default), `--json`, `--ndjson`, `--csv`, `--arrow`,
`--parquet` and `-o FILE`, whose suffix says the format if no option does; every command that needs
one takes `--home FOLDER`. Times (`WHEN`) are ISO 8601 with a zone, a date (midnight in the
exchange's own zone) or a distance to now such as `-15m`; ranges are half-open.

| command | what it does |
|---|---|"""

_SETTINGS_OPENING: Final = """\
# Settings

`k2 settings` prints each one's value and where it comes from. Later sources win: default, `k2.toml`
in the home folder, environment, option. In the file the key is the name in small letters without
`K2_` (`serve_port = 9000`). In any value `{home}` stands for the home folder. Sizes may be written
as `512MB` or `2GiB`.

| name | default | meaning |
|---|---|---|"""


def cli_page() -> str:
    """docs/cli.md: every command with its arguments and options."""
    return "\n".join(_cli_lines()) + "\n"


def settings_page() -> str:
    """docs/settings.md: every setting."""
    lines = [_SETTINGS_OPENING]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else "not set"
        unit = f" {setting.unit}" if setting.unit and setting.default.isdecimal() else ""
        lines.append(f"| `{setting.name}` | {default}{unit} | {setting.meaning} |")
    return "\n".join(lines) + "\n"


def _cli_lines() -> Iterator[str]:
    yield _CLI_OPENING
    for name in command_names():
        yield f"| [`k2 {name}`](#k2-{name}) | {first_line(name)} |"
    context = click.Context(cli, info_name="k2")
    for name in command_names():
        command = cli.get_command(context, name)
        assert command is not None
        yield from _command_lines(f"k2 {name}", command)


_EVERYWHERE: Final = {
    "--home",
    "--table",
    "--json",
    "--ndjson",
    "--csv",
    "--arrow",
    "--parquet",
    "-o",
}


def _command_lines(path: str, command: click.Command) -> Iterator[str]:
    yield ""
    yield f"## {path}"
    below = sorted(command.commands.items()) if isinstance(command, click.Group) else []
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield from _own_lines(path, command)
    for name, each in below:
        yield from _command_lines(f"{path} {name}", each)


def _own_lines(path: str, command: click.Command) -> Iterator[str]:
    pieces = [
        piece
        for piece in command.collect_usage_pieces(click.Context(command))
        if piece != "[OPTIONS]"
    ]
    yield ""
    yield f"`{' '.join([path, *pieces])}`"
    yield ""
    yield inspect.cleandoc(command.help or "")
    options = [
        p for p in command.params if isinstance(p, click.Option) and p.opts[0] not in _EVERYWHERE
    ]
    if options:
        yield ""
    for option in options:
        value = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
        required = " (required)" if option.required else ""
        yield f"- `{option.opts[0]}{value}`{required}: {option.help}"
