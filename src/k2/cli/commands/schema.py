"""Schemas: which there are, what they say, whether one could follow another."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from k2.cli.options import output_options, settings_option
from k2.cli.show import Output, say
from k2.cli.stores import opened_log
from k2.errors import BadInput, NotFound
from k2.settings import Settings


@click.group("schema")
def command() -> None:
    """Schemas of records: those that K2 brings, and those that the registry holds."""


@command.command("list")
@output_options
@settings_option
def list_schemas(settings: Settings, output: Output) -> None:
    """Every schema: K2's own kinds first, then the registry's subjects, oldest version first."""
    import pyarrow as pa

    from k2 import model
    from k2.query import Answer

    rows: list[tuple[str, int, int | None, int]] = [
        (kind, schema.version, None, len(schema.avro["fields"]))
        for kind in model.kinds()
        for schema in model.versions(kind)
    ]
    for subject, versions in _registered(settings).items():
        rows += [(subject, v.version, v.id, len(v.schema["fields"])) for v in versions]
    names, numbers, ids, fields = zip(*rows, strict=True)
    table = pa.table(
        {
            "name": names,
            "version": numbers,
            "schema_id": pa.array(ids, pa.int32()),
            "fields": fields,
        }
    )
    output.write(Answer(table, {"rows": len(rows)}))


@command.command("show")
@click.argument("name")
@click.option("--version", type=click.IntRange(1), metavar="N", help="The newest, if not given.")
@settings_option
def show(settings: Settings, name: str, version: int | None) -> None:
    """The Avro schema of NAME, a kind (trades) or a subject of the registry, as JSON."""
    versions = _versions(settings, name)
    if version is not None and version not in versions:
        raise NotFound(
            f"{name} has no version {version}", expected=", ".join(map(str, sorted(versions)))
        )
    click.echo(json.dumps(versions[version or max(versions)], indent=2))


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("name")
@settings_option
def check(settings: Settings, file: Path, name: str) -> int:
    """Could the Avro schema in FILE be the next version of NAME, a kind or a subject?

    Ends with 1 and names each field that stands against it.
    """
    from k2.log.evolution import objections

    versions = _versions(settings, name)
    found = objections(_read(file), versions[max(versions)])
    for objection in found:
        say(f"k2: {file}: {objection}")
    if not found:
        say(f"it can follow version {max(versions)} of {name}")
    return 1 if found else 0


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"this is no JSON: {error}", place=str(file)) from error
    if not isinstance(found, dict):
        raise BadInput("this is no Avro record schema", place=str(file), expected="a JSON object")
    return found


def _versions(settings: Settings, name: str) -> Mapping[int, Mapping[str, Any]]:
    from k2 import model

    if name in model.kinds():
        return {schema.version: schema.avro for schema in model.versions(name)}
    registered = _registered(settings)
    if name not in registered:
        raise NotFound(
            f"there is no schema called {name!r}",
            expected=", ".join([*model.kinds(), *registered]),
        )
    return {version.version: version.schema for version in registered[name]}


def _registered(settings: Settings) -> Mapping[str, Any]:
    if not settings.home.is_dir():
        return {}
    with opened_log(settings) as (_, registry):
        return {subject: registry.versions(subject) for subject in registry.subjects()}
