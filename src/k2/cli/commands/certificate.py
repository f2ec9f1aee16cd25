"""Certificates of answers, verified: the same rows come back, and a saved answer holds them."""

import json
from pathlib import Path

import click

from k2.cli.options import output_options, reader_of, settings_option
from k2.cli.show import Output, say
from k2.errors import BadInput
from k2.settings import Settings


@click.group("certificate")
def command() -> None:
    """`k2 trades … --certificate --json -o FILE` saves an answer that can be verified later."""


@command.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@output_options
@settings_option
def verify(settings: Settings, output: Output, file: Path) -> int:
    """Ask again what FILE answers, of the state that it was asked of, and compare.

    FILE is an answer in JSON, or a certificate alone. Ends with 1 where not the same rows come
    back, or where the rows in the file are not those of its certificate.
    """
    import pyarrow as pa

    from k2.query import Answer

    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput("the file is no JSON", place=str(file), found=str(error)[:120]) from error
    with reader_of(settings) as reader:
        found = reader.evidence.verify(document)
    verdicts = {"the tables": found.again} | ({"the file": found.kept} if found.kept else {})
    rows = [
        {
            "rows_of": where,
            "ok": verdict.ok,
            "rows": verdict.wanted.rows,
            "found_rows": verdict.found.rows,
            "hash": verdict.wanted.hash,
            "found_hash": verdict.found.hash,
            "problem": verdict.problem,
        }
        for where, verdict in verdicts.items()
    ]
    table = pa.Table.from_pylist(rows)
    document = {"ok": found.ok, "verdicts": rows, "certificate": found.certificate}
    shown = ("rows_of", "ok", "rows", "found_rows", "problem")
    output.write(Answer(table, {"rows": len(rows)}), columns=shown, document=document)
    for where, verdict in verdicts.items():
        if not verdict.ok:
            say(f"k2: the rows in {where} are not those of the certificate: {verdict.problem}")
    if found.ok and output.is_table:
        say("the same rows, value for value")
    return 0 if found.ok else 1
