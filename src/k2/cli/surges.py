"""Surges of a simulated market that overload its writer, for the demo, which shows what follows.

Comes in: settings under which little is too much. Goes out: records, ever faster until the writer
has stepped back, and then none until all that it shed is in.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from itertools import count, cycle
from typing import TYPE_CHECKING, Final

from k2.cli.stores import Stores, opened_stores
from k2.errors import Unavailable
from k2.settings import Settings

if TYPE_CHECKING:
    from k2.ingest import Level

SCALED_DOWN: Final[Mapping[str, str]] = {
    "K2_OVERLOAD_LAG": "2000 5000 10000 40000",
    "K2_OVERLOAD_CALM_SECONDS": "5",
    "K2_OVERLOAD_BREAK_SECONDS": "5",
}
"""Settings under which a surge of this machine is an overload."""

_MARKET: Final = "simulator:?kinds=trades&exchange=surge&symbols=40&rate=1000000&chunk=2000&seed="
_REST_SECONDS: Final = 10.0
_LONGEST_SECONDS: Final = 20.0
_TICK_SECONDS: Final = 0.1
_TICKS_A_CHUNK: Final = 3
"""After so many ticks, each brings a chunk of records more: 20,000 a second, and so on."""

GivenUp = Callable[[float], bool]
"""Waits so many seconds; whether the demo ends."""


def make_surges(settings: Settings, tell: Callable[[str], None], given_up: GivenUp) -> None:
    """A surge, and rest until all is well again, over and over; `tell` gets a line about each."""
    from k2.feeds import open_feed
    from k2.ingest import Level
    from k2.log import Producer

    with opened_stores(settings) as stores:
        producer = Producer(stores.log, stores.registry, settings.log.partitions)
        # A seed of its own: in a home that is kept, its trades are not those of the last time.
        url = f"{_MARKET}{int(time.time())}"
        with closing(open_feed(url, None, lambda: datetime.now(UTC))) as feed:
            (exchange,) = feed.exchanges

            def send() -> int:
                """Some records, as one append; how many."""
                tables = [records.table for records in feed.read()]
                for table in tables:
                    producer.send(exchange, "trades", table)
                return sum(table.num_rows for table in tables)

            for wanted in cycle((Level.AGGRESSIVE, Level.CIRCUIT_BREAK)):
                if given_up(_REST_SECONDS):
                    return
                try:
                    tell(f"a surge begins, until the writer is at level {wanted.name}")
                    sent = _surge(stores, send, wanted, given_up)
                    tell(f"the surge is over, {sent:,} records: the writer comes forward again")
                    while not _is_well(stores):
                        if given_up(_TICK_SECONDS):
                            return
                    tell("the level is NORMAL again, and all that was shed is in")
                except Unavailable as error:
                    tell(f"the surge waits: {error}")


def _surge(stores: Stores, send: Callable[[], int], wanted: "Level", given_up: GivenUp) -> int:
    """Send ever faster until the writer comes to the level; how many records that were."""
    sent, end = 0, time.monotonic() + _LONGEST_SECONDS
    for tick in count(_TICKS_A_CHUNK):
        if max(_levels(stores), default=0) >= wanted or given_up(_TICK_SECONDS):
            break
        for _ in range(tick // _TICKS_A_CHUNK):
            if time.monotonic() > end:
                return sent
            sent += send()
    return sent


def _levels(stores: Stores) -> "list[Level]":
    """Those of the writers that say theirs."""
    from k2.ingest import levels

    return [each.level for each in levels(stores.log, datetime.now(UTC))]


def _is_well(stores: Stores) -> bool:
    """Whether a writer runs, none is overloaded, and nothing that was shed waits."""
    found = _levels(stores)
    waiting = any(stores.lake.table(name).snapshot().shed for name in ("trades", "quotes"))
    return bool(found) and not any(found) and not waiting
