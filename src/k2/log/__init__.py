"""The append-only, partitioned, replayable log, and the schema registry."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from k2.errors import BadInput
from k2.log.port import (
    NOT_WIRE_FORMAT,
    Access,
    Append,
    Batch,
    Log,
    Membership,
    Registered,
    Registry,
)
from k2.log.producer import EXCHANGES_TOPIC, Producer, Sent
from k2.log.retention import Trimmed, retain

__all__ = [
    "EXCHANGES_TOPIC",
    "NOT_WIRE_FORMAT",
    "Access",
    "Append",
    "Batch",
    "Log",
    "Membership",
    "Producer",
    "Registered",
    "Registry",
    "Sent",
    "Trimmed",
    "is_server",
    "open_log",
    "open_registry",
    "retain",
]


def open_log(url: str | Path, access: Access | None = None) -> Log:
    """Open the log at `url`, `SCHEME:REST`: the module of this room named SCHEME opens it.

    A path alone is a SQLite file. A server is signed in to by `access`, and reached when it is
    first used. Raises `BadInput` for an unknown scheme, `Unavailable` when a file cannot be opened.
    The caller closes it.
    """
    adapter, rest = _find(url, "open_log", otherwise="sqlite")
    log: Log = adapter.open_log(rest, access)
    return log


def is_server(url: str | Path) -> bool:
    """Whether the log at `url` is a server, which may be away while this machine works on."""
    return getattr(_find(url, "open_log", otherwise="sqlite")[0], "IS_SERVER", False)


def open_registry(url: str | Path, access: Access | None = None) -> Registry:
    """Open the schema registry at `url`, `SCHEME:REST`; a path alone is the embedded one's file.

    Raises as `open_log` does. The caller closes it.
    """
    adapter, rest = _find(url, "open_registry", otherwise="embedded")
    registry: Registry = adapter.open_registry(rest, access)
    return registry


def _find(url: str | Path, opener: str, *, otherwise: str) -> tuple[ModuleType, str]:
    scheme, colon, rest = str(url).partition(":")
    if isinstance(url, Path) or not colon or "/" in scheme:
        scheme, rest = otherwise, str(url)
    if not rest:
        raise BadInput(f"{str(url)!r} names no place", expected=f"such as {otherwise}:FILE")
    try:
        adapter = import_module(f"{__name__}.{scheme}") if scheme.isidentifier() else None
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{scheme}":
            raise BadInput(
                f"{scheme}: needs a package that is not installed", found=error.name
            ) from error
        adapter = None
    if adapter is None or not hasattr(adapter, opener):
        raise BadInput(
            f"K2 has no {opener.removeprefix('open_')} called {scheme!r}",
            place=str(url),
            expected=f"such as {otherwise}:FILE",
        )
    return adapter, rest
