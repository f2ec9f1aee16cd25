"""Every adapter of the room, found by what it offers, and a fresh place for each.

An adapter whose place is a server has a module `tests/log/place_NAME.py` with
`fresh(request, folder)`, which takes the server from the fixtures and returns the URL of an empty
log or registry on it.
"""

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from _pytest.mark import ParameterSet

import k2.log


def adapters(opener: str) -> list[ParameterSet]:
    """Names of the modules of `k2.log` that offer `opener`, as a test's parameters.

    Those that need a server are marked so.
    """
    names = [module.name for module in pkgutil.iter_modules(k2.log.__path__)]
    return [
        pytest.param(name, marks=[pytest.mark.servers] if _place(name) else [])
        for name in names
        if hasattr(import_module(f"k2.log.{name}"), opener)
    ]


def fresh(request: pytest.FixtureRequest, name: str, folder: Path) -> str:
    """URL of an empty log or registry of the adapter called `name`."""
    place = _place(name)
    if place is None:
        return f"{name}:{folder / name}.db"
    url: str = place.fresh(request, folder)
    return url


def _place(name: str) -> ModuleType | None:
    place = f"tests.log.place_{name}"
    return import_module(place) if find_spec(place) else None
