"""The reference pages docs/cli.md, settings.md and metrics.md, made from what they tell of."""

import inspect
from collections.abc import Iterator
from typing import Final

import click
from prometheus_client import CollectorRegistry

from k2.api.metrics import Metrics
from k2.cli.main import cli, command_names, first_line
from k2.log.kafka.cluster import OPTIONS, Place
from k2.metrics import FeedMetrics, WriterMetrics
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


_METRICS_OPENING: Final = """\
# Metrics

For Prometheus. The server has them at `/metrics`. `k2 feed` and `k2 ingest` serve theirs on a port
of their own once they are given one: `--metrics-port N`, or `K2_FEED_METRICS_PORT` and
`K2_INGEST_METRICS_PORT`; with 0 they take any port and say which. `k2 up` counts the ports up from
part to part. All of them count from the start of their process, and once a batch, so that counting
costs no record anything. `k2_ingest_messages_total` beside `k2_feed_records_total` is what was
consumed of what was produced; `k2_ingest_rows_total` of the table `gaps` counts the holes that
are in the ledger. Promises, alerts and a dashboard over them: [operations](operations.md).

| part | name | type | meaning |
|---|---|---|---|"""


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
    lines.append(_KAFKA_OPENING)
    defaults = vars(Place("HOST:PORT"))
    for name, (_, expected) in OPTIONS.items():
        given = defaults[name]
        default = "as the broker says" if given is None else f"`{given}`" if given else "none"
        lines.append(f"| `{name}` | {default} | {_KAFKA_MEANINGS[name]}: {expected} |")
    return "\n".join(lines) + "\n"


_KAFKA_OPENING: Final = """
## A log on Kafka

`K2_LOG=kafka:HOST:PORT[,HOST:PORT…][?option=value&…]`, with these options:

| option | if not given | meaning |
|---|---|---|"""
_KAFKA_MEANINGS: Final = {
    "replication": "Copies of a topic that is made",
    "compression": "How batches are compressed",
    "prefix": "What stands before the name of every topic and group",
    "mechanism": "The way of signing in by SASL, with K2_LOG_USERNAME",
    "timeout": "How long a cluster that is away is waited for, each time it is asked",
}


def metrics_page() -> str:
    """docs/metrics.md: every figure of every part."""
    lines = [_METRICS_OPENING]
    for part, registry in registries().items():
        for family in registry.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            lines.append(f"| {part} | `{name}` | {family.type} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def registries() -> dict[str, CollectorRegistry]:
    """The figures of each part, none counted yet."""
    return {
        "feed": FeedMetrics().registry,
        "writer": WriterMetrics().registry,
        "server": Metrics().registry,
    }


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
