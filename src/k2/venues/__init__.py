"""Venues to test against: Binance, Coinbase and Kraken as servers of this machine.

They speak the published protocols over a seeded market, commit scripted faults, and know the
truth about what they made. `k2 venue` and the pytest fixture of `k2.venues.pytest` start them.
"""

import re
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

from k2.errors import BadInput
from k2.feeds.market import MOST_SYMBOLS
from k2.venues.faults import Faults
from k2.venues.floor import Floor, Trading
from k2.venues.port import Dialect
from k2.venues.script import FAULTS, Fault, random_script, read_script, write_script
from k2.venues.server import Parts, Server
from k2.venues.truth import Truth, read_truth

__all__ = [
    "FAULTS",
    "Fault",
    "Trading",
    "Truth",
    "Venue",
    "names",
    "open_venue",
    "random_script",
    "read_script",
    "read_truth",
    "symbols_of",
    "write_script",
]


class Venue:
    """A venue that runs until it is closed; as a context manager it closes itself.

    `ws` and `rest` are the base URLs, as the venue's documents have them; `truth` is what it did.
    """

    def __init__(self, server: Server, floor: Floor, truth: Truth, urls: tuple[str, str]) -> None:
        self.ws, self.rest = urls
        self.port = server.port
        self.truth = truth
        self._server = server
        self._floor = floor

    def stop_trading(self) -> None:
        """Have the market stand still, so that all there is can be told; connections stay."""
        self._floor.trading = False

    def go_on_trading(self) -> None:
        """Have the market go on where it stood."""
        self._floor.trading = True

    def oldest(self, symbol: str) -> int:
        """The id of the oldest trade that REST still gives: history is bounded by memory."""
        return self._floor.histories[self._floor.index[symbol]].first

    def close(self) -> None:
        """Cut all connections and stop listening."""
        self._server.close()

    def __enter__(self) -> "Venue":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def names() -> tuple[str, ...]:
    """The venues there are: the modules of this room that have `open_dialect`, sorted."""
    found = (m.name for m in iter_modules(__path__) if m.name not in ("pytest", "server"))
    return tuple(sorted(name for name in found if _is_venue(name)))


def symbols_of(name: str) -> tuple[str, ...]:
    """What a venue trades if nobody says otherwise. Raises `BadInput` for an unknown venue."""
    if not re.fullmatch(r"[a-z]+", name) or not _is_venue(name):
        near = get_close_matches(name, names(), 1)
        raise BadInput(
            f"there is no venue called {name!r}",
            expected="one of " + ", ".join(names()),
            hint=f"did you mean {near[0]}?" if near else None,
        )
    symbols: tuple[str, ...] = import_module(f"k2.venues.{name}").SYMBOLS
    return symbols


def open_venue(
    name: str,
    trading: Trading | None = None,
    script: Sequence[Fault] = (),
    *,
    truth: Path | None = None,
    address: tuple[str, int] = ("127.0.0.1", 0),
    connection_seconds: float | None = None,
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000,
) -> Venue:
    """Start a venue at `address` (port 0: any that is free) and return once it listens and its
    market's past, if it has one, is there.

    `truth` names a file (.parquet or JSON Lines) for what it does; without one that is kept in
    memory. `connection_seconds` ends each connection after so long, in place of the venue's own
    limit. `clock` tells microseconds since 1970. Raises `BadInput` for an unknown venue or
    symbols that cannot be, `Unavailable` for a port that cannot be had.
    """
    trading = trading or Trading(symbols_of(name))
    _check(name, trading)
    if wrong := [f for f in script if f.symbol not in (None, *trading.symbols)]:
        raise BadInput(
            "a fault's symbol is none of the venue's",
            found=wrong[0].symbol,
            expected=", ".join(trading.symbols),
        )
    module = import_module(f"k2.venues.{name}")
    floor = Floor(
        trading,
        clock(),
        first_trade=module.FIRST_TRADE,
        first_update=module.FIRST_UPDATE,
    )
    dialect: Dialect = module.open_dialect(floor)
    if connection_seconds is not None:
        dialect.most_seconds = connection_seconds
    told = Truth(list(trading.symbols), truth)
    host, port = address
    server = Server(Parts(dialect, floor, Faults(script), told), clock, host, port)
    at = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    return Venue(server, floor, told, (f"ws://{at}{module.SOCKET_PATH}", f"http://{at}"))


def _check(name: str, trading: Trading) -> None:
    symbols = trading.symbols
    usual = symbols_of(name)
    if not 1 <= len(symbols) <= MOST_SYMBOLS or len(set(symbols)) < len(symbols):
        raise BadInput(
            "a venue's symbols differ from each other, and there are some",
            place="--symbols",
            expected=f"1 to {MOST_SYMBOLS:,}, such as {','.join(usual)}",
        )
    # A venue's usual symbols show how its names are made: BTCUSDT, BTC-USD, BTC/USD.
    between = re.sub(r"[A-Z]", "", usual[0])
    pattern = rf"[A-Z0-9]+{between}[A-Z0-9]+"
    if wrong := [symbol for symbol in symbols if not re.fullmatch(pattern, symbol)]:
        raise BadInput(
            f"{name} has no symbols of that form",
            place="--symbols",
            found=wrong[0],
            expected=f"such as {','.join(usual)}",
        )


def _is_venue(name: str) -> bool:
    spec = find_spec(f"k2.venues.{name}")
    return spec is not None and hasattr(import_module(f"k2.venues.{name}"), "open_dialect")
