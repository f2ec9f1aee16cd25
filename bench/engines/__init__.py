"""The engines of the comparison: K2, and what its users might take in its place."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import Final

_NOT_ENGINES: Final = {"port", "apart"}


def engine_names() -> list[str]:
    """The names of all engines, whether what they need is installed or not; K2's first."""
    found = {module.name for module in iter_modules(__path__)} - _NOT_ENGINES
    return sorted(found, key=lambda name: (name != "k2", name))


def engine(name: str) -> ModuleType:
    """The module of an engine: see `port`."""
    return import_module(f"bench.engines.{name}")


def why_not(name: str) -> str | None:
    """Why an engine cannot be asked here; None where it can be."""
    needs: str = engine(name).NEEDS
    if find_spec(needs) is None:
        return f"the package {needs} is not installed here: `make bench` has it in a folder"
    return None
