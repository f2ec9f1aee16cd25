"""Every adapter of the room, found by what it offers, and a fresh place for each.

An adapter whose place is no file has a module `tests/log/place_NAME.py` with
`fresh(folder: Path) -> str`, which returns the URL of an empty log or registry.
"""

import pkgutil
from importlib import import_module
from pathlib import Path

import k2.log


def adapters(opener: str) -> list[str]:
    """Names of the modules of `k2.log` that offer `opener`."""
    names = [module.name for module in pkgutil.iter_modules(k2.log.__path__)]
    return [name for name in names if hasattr(import_module(f"k2.log.{name}"), opener)]


def fresh(name: str, folder: Path) -> str:
    """URL of an empty log or registry of this adapter."""
    place = f"tests.log.place_{name}"
    try:
        found: str = import_module(place).fresh(folder)
    except ModuleNotFoundError as error:
        if error.name != place:
            raise
        found = f"{name}:{folder / name}.db"
    return found
