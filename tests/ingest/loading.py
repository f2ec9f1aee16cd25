"""Made files, loaded through the log or straight into the tables, and what came of them."""

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from k2.cli.loading import load
from k2.cli.stores import Stores
from k2.feeds import file_adapter
from k2.feeds.run import run_feed
from k2.ingest import Fates, WriterOptions, audit
from k2.ingest.direct import Loaded, Telling, load_directly
from k2.ingest.sources import Asked
from k2.log import Producer
from tests.journeys.home import SKEW, Home, now

OPTIONS = WriterOptions(skew=SKEW)
MAPPING = """
name = "made"

[exchange]
name = "MADE"
asset_class = "crypto"
zone = "UTC"
numbered = ["trades"]

[trades]
vendor_data = ["note"]

[trades.fields]
symbol = "symbol"
timestamp = { column = "time", format = "epoch:us" }
price = "price"
quantity = "quantity"
trade_id = { column = "id", optional = true }
"""
HEADER = "symbol,time,price,quantity,id,note\n"
START = 1_767_600_000_000_000
"""2026-01-05T08:00:00Z."""
OWN = ("log_topic", "log_id", "log_partition", "log_offset", "commit_sequence")
DAY_US = 86_400_000_000


def never() -> bool:
    return False


def lines(seed: int, count: int, *, ids: bool = True, first: int = 0, days: int = 3) -> list[str]:
    """Trades of three symbols: some without an id, some twice, some that cannot be; a number is
    left out now and then.
    """
    chance = random.Random(seed)
    found: list[str] = []
    numbers = {"A": first, "B": first, "C": first}
    for n in range(count):
        symbol = chance.choice("ABC")
        numbers[symbol] += 1 + (chance.random() < 0.02)
        when = START + n * (days * DAY_US // max(count, 1)) + chance.randrange(-50, 50)
        price = chance.choice(["1.5", "2", "0.25", "-1" if chance.random() < 0.2 else "7"])
        price = "none" if chance.random() < 0.02 else price
        named = ids and chance.random() < 0.9
        note = chance.choice(["", "x"])
        cells = (symbol, when, price, n % 9 + 1, numbers[symbol] if named else "", note)
        found.append(",".join(map(str, cells)) + "\n")
        if chance.random() < 0.05:
            found.append(chance.choice(found[-20:]))
    return found


def write(path: Path, found: Sequence[str]) -> Path:
    path.write_text(HEADER + "".join(found))
    return path


def asked(folder: Path, kind: str | None = "trades", mapping: str | None = MAPPING) -> Asked:
    """What made files are loaded as; a mapping without a line break is one of those built in."""
    if mapping is not None and "\n" in mapping:
        (folder / "made.toml").write_text(mapping)
        mapping = str(folder / "made.toml")
    symbol = "ABC" if mapping == "asx" else None
    return Asked(kind, mapping, symbol, None, None, SKEW)


def through_log(home: Home, files: Sequence[Path], by: Asked) -> Loaded:
    stores = Stores(home.log, home.registry, home.lake)
    done = load(files, by, stores, 2, OPTIONS, never)
    return Loaded(done.read, done.fates)


def append(home: Home, file: Path, by: Asked) -> None:
    """Into the log, and no further."""
    feed = file_adapter(file)(
        *(file, by.mapping, by.kind),
        symbol=by.symbol,
        exchange=None,
        instruments=None,
        skew=SKEW,
        clock=now,
        progress=None,
    )
    with closing(feed):
        run_feed(feed, Producer(home.log, home.registry, 1), home.log, never)


def direct(
    home: Home,
    files: Sequence[Path],
    by: Asked,
    step: Callable[[str], None] = lambda step: None,
    stop: Callable[[], bool] = never,
) -> Loaded:
    stores = (home.log, home.registry, home.lake)
    return load_directly(stores, files, by, OPTIONS, stop, Telling(step=step))


def stored(home: Home, name: str, *without: str) -> list[dict[str, Any]]:
    """A table's rows, or a ledger's, as a stranger reads them: without what is their own."""
    if name in ("rejected", "duplicates", "gaps", "retired"):
        paths = [file.path for file in home.lake.ledger_files(name)]
    else:
        paths = [file.path for file in home.lake.table(name).snapshot().files.select()]
    found: list[dict[str, Any]] = []
    for path in paths:
        rows = pq.ParquetFile(path).read()
        keep = [c for c in rows.column_names if c not in (*OWN, "ingestion_timestamp", *without)]
        found += rows.select(keep).to_pylist()
    return sorted(found, key=repr)


def all_of(home: Home) -> dict[str, list[dict[str, Any]]]:
    """Every record, whichever way it came: rows of each table, and the ledgers."""
    kinds = ("trades", "quotes", "corrections", "instruments")
    found = {kind: stored(home, kind) for kind in kinds if home.lake.has(kind)}
    found = {kind: rows for kind, rows in found.items() if rows}
    found["rejected"] = stored(home, "rejected", "schema_id")
    places = ("of_topic", "of_log_id", "of_partition", "of_offset")
    found["duplicates"] = stored(home, "duplicates", *places)
    found["gaps"] = stored(home, "gaps")
    return found


def sums(home: Home) -> Fates:
    """What the audit counts, once it found nothing wrong."""
    found = audit(home.log, home.lake)
    assert found.ok, [part for part in found.partitions if part.problem]
    names = ("committed", "duplicate", "rejected", "retired", "shed")
    return Fates(**{name: sum(getattr(p, name) for p in found.partitions) for name in names})


def in_flight(home: Home) -> int:
    return sum(part.in_flight for part in audit(home.log, home.lake).partitions)
