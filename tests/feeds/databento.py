"""DBN files as databento_dbn writes them, of invented records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import databento_dbn
import pyarrow as pa

# Its stubs call members of its enumerations texts and numbers, which they are not.
dbn: Any = databento_dbn

NOON_NANOS = 1_767_614_400 * 10**9
"""2026-01-05T12:00:00Z."""
DAY_NANOS = 86_400 * 10**9


@dataclass
class Days:
    """The library's MappingInterval."""

    start_date: date
    end_date: date
    symbol: str


@dataclass
class Mapped:
    """The library's SymbolMapping."""

    raw_symbol: str
    intervals: Sequence[Days]


def mapped(symbol: str, number: int, first: int = 1, end: int = 28) -> Mapped:
    """A symbol that has the instrument id on these days of January 2026."""
    return Mapped(symbol, [Days(date(2026, 1, first), date(2026, 1, end), str(number))])


def head(schema: Any, *mappings: Mapped, **more: Any) -> bytes:
    """The metadata of a file."""
    given: dict[str, Any] = {
        "dataset": "XNAS.ITCH",
        "start": 0,
        "stype_in": dbn.SType.RAW_SYMBOL,
        "stype_out": dbn.SType.INSTRUMENT_ID,
        "mappings": list(mappings),
    } | more
    found: bytes = dbn.Metadata(schema=schema, **given).encode()
    return found


def trade(number: int = 0, **changed: Any) -> Any:
    """The record of a trade, `number` microseconds after noon."""
    when = NOON_NANOS + number * 1000
    given: dict[str, Any] = {
        **{"publisher_id": 2, "instrument_id": 7, "ts_event": when, "price": 101_250_000_000},
        **{"size": 10, "action": dbn.Action.TRADE, "side": dbn.Side.BID, "depth": 0},
        **{"ts_recv": when + 100, "flags": 0, "ts_in_delta": 500, "sequence": number},
    }
    return dbn.TradeMsg(**(given | changed))


def quote(number: int = 0, levels: Any = None, **changed: Any) -> Any:
    """The record of an event, and what is best after it."""
    when = NOON_NANOS + number * 1000
    given: dict[str, Any] = {
        **{"publisher_id": 2, "instrument_id": 7, "ts_event": when, "price": 101_250_000_000},
        **{"size": 10, "action": dbn.Action.ADD, "side": dbn.Side.BID, "depth": 0},
        **{"ts_recv": when + 100, "flags": 128, "ts_in_delta": 500, "sequence": number},
        "levels": levels or dbn.BidAskPair(101_240_000_000, 101_260_000_000, 5, 6, 1, 2),
    }
    return dbn.MBP1Msg(**(given | changed))


def definition(symbol: str, number: int, tick: int, **changed: Any) -> Any:
    """The definition of an instrument."""
    given: dict[str, Any] = {
        **{"publisher_id": 1, "instrument_id": number, "ts_event": NOON_NANOS},
        **{"ts_recv": NOON_NANOS + 1, "min_price_increment": tick, "display_factor": 10**9},
        **{"raw_symbol": symbol, "asset": "ES", "security_type": "FUT", "currency": "USD"},
        **{"instrument_class": dbn.InstrumentClass.FUTURE},
        **{"security_update_action": dbn.SecurityUpdateAction.ADD},
    }
    return dbn.InstrumentDefMsg(**(given | changed))


def told(symbol: str, number: int) -> Any:
    """A live message that says what an instrument id stands for from here on."""
    return dbn.SymbolMappingMsg(
        0, number, NOON_NANOS, dbn.SType.RAW_SYMBOL, symbol, dbn.SType.INSTRUMENT_ID, symbol, 0, 1
    )


def write(path: Path, start: bytes, records: Iterable[Any]) -> Path:
    """A file of metadata and records; compressed if its name ends in .zst."""
    whole = start + b"".join(bytes(record) for record in records)
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(whole)
    else:
        path.write_bytes(whole)
    return path
