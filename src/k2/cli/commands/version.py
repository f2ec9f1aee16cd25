"""The version of K2."""

from importlib.metadata import version

import click


@click.command("version")
def command() -> None:
    """Print the version of K2."""
    click.echo(f"k2 {version('k2-lakehouse')}")
