"""Where records come from: one file per source, found by the scheme of its URL."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Protocol

from k2.errors import BadInput
from k2.feeds.port import EndOfFeed, Feed, FeedInterrupted, Records

__all__ = [
    "EndOfFeed",
    "Feed",
    "FeedInterrupted",
    "OpenFile",
    "Records",
    "file_adapter",
    "open_feed",
    "schemes",
]


class OpenFile(Protocol):
    """What opens a file as a feed; `k2.feeds.csv.open_file` says what each argument means."""

    def __call__(
        self,
        path: str | Path,
        mapping: str | Path | None,
        kind: str | None,
        *,
        symbol: str | None,
        exchange: str | None,
        instruments: str | Path | None,
        skew: timedelta,
        clock: Callable[[], datetime],
        progress: Callable[[int, int], None] | None,
    ) -> Feed:
        """Open the file. Raises `BadInput` for what cannot be."""


def open_feed(url: str, position: str | None, clock: Callable[[], datetime]) -> Feed:
    """Open `<scheme>:<rest>` with the adapter `k2.feeds.<scheme>`, at `position` (None: its start).

    `clock` gives the time (with a zone) that records are first seen at. Raises `BadInput` for a
    scheme that no adapter has, and whatever the adapter says of the rest.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or not re.fullmatch(r"[a-z][a-z0-9_]*", scheme) or not _is_feed(scheme):
        near = get_close_matches(scheme, schemes(), 1)
        raise BadInput(
            f"there is no feed called {scheme!r}",
            found=url,
            expected="one of " + ", ".join(f"{name}:" for name in schemes()),
            hint=f"did you mean {near[0]}: ?" if near else None,
        )
    feed: Feed = import_module(f"k2.feeds.{scheme}").open_feed(rest, position, clock)
    return feed


def file_adapter(path: Path) -> OpenFile:
    """What reads a file, by the endings of its name: `dbn` for x.dbn.zst, `itch` for
    12302019.NASDAQ_ITCH50.gz; csv if none is known.
    """
    endings = [re.sub(r"^.*_|[0-9]+$", "", suffix[1:].lower()) for suffix in path.suffixes]
    known = (name for name in endings if re.fullmatch(r"[a-z][a-z0-9_]*", name) and _is_feed(name))
    modules = [import_module(f"k2.feeds.{name}") for name in (*known, "csv")]
    found: OpenFile = next(m.open_file for m in modules if hasattr(m, "open_file"))
    return found


def schemes() -> tuple[str, ...]:
    """Names of all adapters in this room, sorted."""
    return tuple(sorted(m.name for m in iter_modules(__path__) if _is_feed(m.name)))


def _is_feed(name: str) -> bool:
    """Whether the module is an adapter, told by its `open_feed`."""
    spec = find_spec(f"k2.feeds.{name}")
    return spec is not None and hasattr(import_module(f"k2.feeds.{name}"), "open_feed")
