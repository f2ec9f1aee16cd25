"""Records of DBN as numpy sees them to tables of the model: exact, whole columns at a time.

Every field of a trade can be told from its row: what the model has no column for stands in
`vendor_data`, where 0 is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from k2.feeds.databento.stream import Array, Ints
from k2.feeds.databento.symbols import UNDEFINED, nine_digits
from k2.feeds.mapped.records import constant, to_table
from k2.feeds.mapped.rejects import Verdicts
from k2.feeds.mapped.values import decimals
from k2.model import TIMESTAMP_TYPE, Exchange

Mask = npt.NDArray[np.bool_]

SOURCE: Final = "dbn"
NO_TIME: Final = 2**64 - 1
NO_SIZE: Final = 2**32 - 1
_NANOS_A_DAY: Final = 86_400 * 10**9
_UNITS: Final = 10**8
# Of a trade, the aggressor's side: "Ask for a sell aggressor in a trade, Bid for a buy aggressor"
# (Databento, standards and conventions, 2026).
_SIDES: Final = {"A": "SELL", "B": "BUY", "N": "UNKNOWN"}
# The flags that say something about the record's worth.
_FLAGS: Final = {4: "maybe_bad_book", 8: "bad_ts_recv", 32: "snapshot"}
_SIDE_OF: Final = [_SIDES.get(chr(code), "UNKNOWN") for code in range(256)]
_CONDITIONS_OF: Final = [
    ",".join(name for bit, name in _FLAGS.items() if flags & bit) or None for flags in range(256)
]


@dataclass(frozen=True)
class Context:
    """What holds for all rows of a table. `symbols`: the codes of the rows' symbols, -1 for none,
    and what they stand for; `now` is when the rows were first seen.
    """

    exchange: Exchange
    symbols: tuple[npt.NDArray[np.int32], Sequence[str]]
    now: datetime


def days(records: Array) -> Ints:
    """The day (since 1970, UTC) that a record's symbol is looked up by: that of its receipt."""
    received = records["ts_recv"]
    when = np.where(received == NO_TIME, records["ts_event"], received)
    return (when // _NANOS_A_DAY).astype(np.int64)


def trades(records: Array, context: Context, verdicts: Verdicts) -> pa.Table:
    """Trades; what cannot be one is refused, and stands in the table as anything."""
    _check_letters(records, "action", ("T",), "is no trade", verdicts)
    verdicts.refuse(records["price"] == UNDEFINED, "price", "the price is undefined")
    verdicts.refuse(records["size"] == NO_SIZE, "size", "the size is undefined")
    _check_sides(records, verdicts)
    return to_table(
        "trades",
        len(records),
        _shared(records, context)
        | {
            "price": decimals(records["price"] // 10),
            "quantity": decimals(records["size"].astype(np.int64) * _UNITS),
            "side": _coded(records["side"].view(np.uint8), _SIDE_OF),
            "price_forming": pa.repeat(pa.scalar(True), len(records)),
            "vendor_data": _joined(_head(records), *_latency(records)),
        },
    )


def quotes(records: Array, context: Context, verdicts: Verdicts) -> pa.Table:
    """Best bid and ask after each event. Of the event, its kind, side and depth are kept."""
    _check_sides(records, verdicts)
    columns = _shared(records, context)
    for side in ("bid", "ask"):
        price, size = records[f"{side}_px_00"], records[f"{side}_sz_00"]
        empty = (price == UNDEFINED) | (size == NO_SIZE) | ((price == 0) & (size == 0))
        columns[f"{side}_price"] = decimals(price // 10, empty)
        columns[f"{side}_quantity"] = decimals(size.astype(np.int64) * _UNITS, empty)
    event = (records["action"].view(np.uint8).astype(np.uint64) << np.uint64(8)) | records[
        "side"
    ].view(np.uint8)
    columns["vendor_data"] = _joined(
        _head(records),
        _pieces(
            event, lambda key: f',"action":"{_letter(key >> 8)}","side":"{_letter(key & 255)}"'
        ),
        *(_counted(records[f"{side}_ct_00"], f"{side}_count") for side in ("bid", "ask")),
        *_latency(records),
    )
    return to_table("quotes", len(records), columns)


def instruments(records: Array, context: Context, verdicts: Verdicts) -> pa.Table:
    """Definitions. `tick_size` is the least price increment, null where there is none."""
    tick = records["min_price_increment"]
    codes, names = context.symbols
    when = records["ts_event"]
    verdicts.refuse(when == NO_TIME, "ts_event", "the time is undefined")
    valid = (when // _NANOS_A_DAY).astype(np.int32)
    return to_table(
        "instruments",
        len(records),
        {
            **_named(codes, names, context, len(records)),
            "currency": _words(records["currency"]).dictionary_encode(),
            "tick_size": decimals(tick // 10, (tick == UNDEFINED) | (tick == 0)),
            "listed_from": _dates(records["activation"]),
            "listed_to": _dates(records["expiration"]),
            "valid_from": pa.array(valid, pa.int32(), mask=when == NO_TIME).cast(pa.date32()),
            "vendor_data": pa.array([_about(row) for row in records], pa.string()),
        },
    )


_ABOUT: Final = (
    *("instrument_class", "security_update_action", "security_type", "cfi", "asset", "group"),
    *("exchange", "underlying", "unit_of_measure", "strike_price_currency", "match_algorithm"),
)


def _about(row: Any) -> str:
    """What a definition says beyond the model. Definitions are few: thousands a day."""
    told: dict[str, str] = {name: str(int(row[name])) for name in ("publisher_id", "instrument_id")}
    told |= {name: _text(row[name]) for name in _ABOUT}
    told |= {
        name: nine_digits(int(row[name]))
        for name in ("strike_price", "display_factor", "unit_of_measure_qty")
        if row[name] != UNDEFINED
    }
    return orjson.dumps({name: value for name, value in told.items() if value}).decode()


def _shared(records: Array, context: Context) -> dict[str, pa.Array]:
    n = len(records)
    when, received = records["ts_event"], records["ts_recv"]
    codes, names = context.symbols
    return {
        **_named(codes, names, context, n),
        "asset_class": constant(context.exchange.asset_class, n),
        "id_space": constant("", n),
        "conditions": _coded(records["flags"], _CONDITIONS_OF),
        "timestamp": _times(when),
        "timestamp_nanos": pa.array((when % 1000).astype(np.int32)),
        "source_received_timestamp": _times(received, received == NO_TIME),
        "source_sequence": pa.array(records["sequence"].astype(np.int64)),
    }


def _named(
    codes: npt.NDArray[np.int32], names: Sequence[str], context: Context, n: int
) -> dict[str, pa.Array]:
    return {
        "symbol": pa.DictionaryArray.from_arrays(
            pa.array(np.maximum(codes, 0)), pa.array([*names] or [""], pa.string())
        ),
        "exchange": constant(context.exchange.name, n),
        "source": constant(SOURCE, n),
        "ingestion_timestamp": pa.repeat(pa.scalar(context.now, TIMESTAMP_TYPE), n),
    }


def _check_sides(records: Array, verdicts: Verdicts) -> None:
    verdicts.refuse(records["ts_event"] == NO_TIME, "ts_event", "the time is undefined")
    _check_letters(records, "side", tuple(_SIDES), "is unknown here", verdicts)


def _check_letters(
    records: Array, column: str, known: Sequence[str], wrong: str, verdicts: Verdicts
) -> None:
    codes = records[column].view(np.uint8)
    for code in np.flatnonzero(np.bincount(codes, minlength=256)).tolist():
        if chr(code) not in known:
            reason = f"{column} {chr(code)!r} {wrong}"
            verdicts.refuse(codes == code, column, reason, " or ".join(known))


def _times(nanos: npt.NDArray[np.uint64], absent: Mask | None = None) -> pa.Array:
    return pa.array((nanos // 1000).astype(np.int64), TIMESTAMP_TYPE, mask=absent)


def _dates(nanos: npt.NDArray[np.uint64]) -> pa.Array:
    days_ = (nanos // _NANOS_A_DAY).astype(np.int32)
    absent = (nanos == NO_TIME) | (nanos == 0)
    return pa.array(days_, pa.int32(), mask=absent).cast(pa.date32())


def _words(texts: Array) -> pa.Array:
    """Texts of fixed width, null where empty."""
    return pa.array([_text(text) or None for text in texts], pa.string())


def _coded(values: npt.NDArray[np.uint8], meanings: Sequence[str | None]) -> pa.Array:
    """A dictionary column: what each value means, null where nothing."""
    names = list(dict.fromkeys(meaning for meaning in meanings if meaning is not None))
    places = [names.index(meaning) if meaning is not None else -1 for meaning in meanings]
    codes = np.array(places, np.int32)[values]
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=codes < 0), pa.array(names, pa.string())
    )


def _head(records: Array) -> pa.Array:
    """The start of the JSON text: publisher, instrument, flags and depth."""
    key = records["publisher_id"].astype(np.uint64) << np.uint64(48)
    key |= records["instrument_id"].astype(np.uint64) << np.uint64(16)
    key |= records["flags"].astype(np.uint64) << np.uint64(8)
    return _pieces(key | records["depth"].astype(np.uint64), _head_text)


def _head_text(key: int) -> str:
    flags, depth = key >> 8 & 255, key & 255
    return (
        f'{{"publisher_id":"{key >> 48}","instrument_id":"{key >> 16 & NO_SIZE}"'
        + (f',"flags":"{flags}"' if flags else "")
        + (f',"depth":"{depth}"' if depth else "")
    )


def _latency(records: Array) -> list[pa.Array]:
    """What there is of the times beyond microseconds: of the receipt, and how long it was under
    way (nanoseconds).
    """
    received = records["ts_recv"]
    rest = np.where(received == NO_TIME, 0, received % 1000)
    pieces = [_counted(rest, "ts_recv_nanos"), _counted(records["ts_in_delta"], "ts_in_delta")]
    return [piece for piece in pieces if piece is not None]


def _counted(numbers: Array, name: str) -> pa.Array | None:
    """`,"name":"number"` a row, nothing for 0; None if all are."""
    if not numbers.any():
        return None
    texts = pa.array(numbers.astype(np.int64)).cast(pa.string())
    whole = pc.binary_join_element_wise(f',"{name}":"', texts, '"', "")
    return whole if numbers.all() else pc.if_else(pa.array(numbers != 0), whole, "")


def _pieces(keys: npt.NDArray[np.uint64], to_text: Any) -> pa.Array:
    """The text of each key; there are few distinct ones."""
    encoded = pa.array(keys).dictionary_encode()
    texts = [to_text(key) for key in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _joined(*pieces: pa.Array | None) -> pa.Array:
    return pc.binary_join_element_wise(*(p for p in pieces if p is not None), "}", "")


def _letter(code: int) -> str:
    return chr(code) if 32 < code < 127 and code not in b'"\\' else ""


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()
