"""What is set, where each value comes from, and what it means."""

import os

import click

from k2.cli.options import output_options, settings_option
from k2.cli.show import Output, say
from k2.settings import Settings, unknown_variables


@click.command("settings")
@output_options
@settings_option
def command(settings: Settings, output: Output) -> None:
    """Every setting with its value, the source of that value, and its meaning.

    Later sources win: default, the file k2.toml in the home folder, the environment, --home.
    """
    import pyarrow as pa

    from k2.query import Answer

    values = settings.values
    table = pa.table(
        {
            "setting": [value.setting.name for value in values],
            "value": [value.text or None for value in values],
            "source": [value.source for value in values],
            "unit": [value.setting.unit for value in values],
            "meaning": [value.setting.meaning for value in values],
        },
        schema=pa.schema(
            [(name, pa.string()) for name in ("setting", "value", "source", "unit", "meaning")]
        ),
    )
    output.write(Answer(table, {"rows": len(values)}))
    for name, nearest in unknown_variables(os.environ).items():
        meant = f"; {nearest} is meant, perhaps" if nearest else ""
        say(f"{name} is set in the environment and is no setting of K2{meant}", colour="yellow")
