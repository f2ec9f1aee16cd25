r"""A pytest plugin: `pytest_plugins = ["k2.venues.pytest"]` gives the fixture `venue`.

```python
def test_mine(venue):
    binance = venue("binance", script='[[fault]]\nat = 2\nfault = "disconnect"\n')
    # binance.ws, binance.rest, binance.truth.trades(), binance.stop_trading()
```
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from k2.venues import Fault, Trading, Venue, open_venue, read_script, symbols_of


class OpenVenue(Protocol):
    """What the fixture `venue` is."""

    def __call__(
        self,
        name: str,
        script: str | Path | Sequence[Fault] = (),
        *,
        symbols: Sequence[str] = (),
        connection_seconds: float | None = None,
        **trading: Any,
    ) -> Venue:
        """Start a venue that ends with the test.

        `script`: faults, their TOML, or a file of it. `symbols`: the venue's usual ones if
        empty. The others are those of `Trading`: rate, seed, history, start, seconds.
        """


@pytest.fixture
def venue() -> Iterator[OpenVenue]:
    """Starts venues; they end with the test."""
    with ExitStack() as stack:

        def start(
            name: str,
            script: str | Path | Sequence[Fault] = (),
            *,
            symbols: Sequence[str] = (),
            connection_seconds: float | None = None,
            **trading: Any,
        ) -> Venue:
            asked = Trading(tuple(symbols) or symbols_of(name), **trading)
            faults = _faults(script)
            return stack.enter_context(
                open_venue(name, asked, faults, connection_seconds=connection_seconds)
            )

        yield start


def _faults(script: str | Path | Sequence[Fault]) -> Sequence[Fault]:
    if isinstance(script, Path):
        return read_script(script.read_text("utf-8"), str(script))
    return read_script(script) if isinstance(script, str) else script
