"""Columns of text to records of one kind, as a layout says.

Comes in: the file's columns as strings. Goes out: a table with the kind's columns, the rows that
could be read, and the faults of those that could not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.feeds.mapped import times, values, zone
from k2.feeds.mapped.values import Fault
from k2.feeds.mapping import ACTIONS, SIDES, Layout, Source
from k2.model import DICTIONARY_TYPE, TIMESTAMP_TYPE, Exchange, latest

Mask = npt.NDArray[np.bool_]
Texts = Mapping[str, pa.Array]

DAY_MICROS: Final = 86_400_000_000


@dataclass(frozen=True)
class Context:
    """What holds for a whole file. `symbol` is that of every record, if the file names none."""

    layout: Layout
    exchange: Exchange
    source: str
    symbol: str | None = None
    symbols: Mapping[str, str] | None = None
    """Symbol by company id, where a layout looks it up."""
    symbols_file: str = ""
    exchange_cell: tuple[str, str] | None = None
    """A column that names the exchange, and the name that every line must have there."""
    passes: dict[str, zone.Pass] = field(default_factory=dict)
    """How each column of local times stands to the clock changes; moves on with every block."""


@dataclass(frozen=True)
class Converted:
    """`table` has the rows that `good` marks, in order; the others have a fault each, or more."""

    table: pa.Table
    good: Mask
    faults: list[Fault]


def to_records(texts: Texts, n: int, context: Context, now: datetime) -> Converted:
    """Convert `n` rows; `now` is when they were first seen."""
    layout, schema = context.layout, latest(context.layout.kind).arrow
    faults: list[Fault] = []
    columns: dict[str, pa.Array] = {
        "exchange": constant(context.exchange.name, n),
        "source": constant(context.source, n),
        "asset_class": constant(context.exchange.asset_class, n),
        "side": constant("UNKNOWN", n),
        "ingestion_timestamp": pa.repeat(pa.scalar(now, TIMESTAMP_TYPE), n),
        "timestamp_nanos": pa.repeat(pa.scalar(0, pa.int32()), n),
        "vendor_data": values.to_json([(name, texts[name]) for name in layout.vendor_data], n),
    }
    if context.exchange_cell is not None:
        faults += _other_exchange(texts, *context.exchange_cell)
    if context.symbol is not None:
        columns["symbol"] = constant(context.symbol, n)
    for name, source in layout.fields.items():
        if name == "symbol" and context.symbol is not None:
            continue
        kind = schema.field(name).type
        if source.value is not None:
            columns[name] = constant(source.value, n).cast(kind)
        elif pa.types.is_timestamp(kind):
            columns[name], nanos, wrong = _times(texts, n, name, source, context)
            if name == "timestamp":
                columns["timestamp_nanos"] = nanos
            faults += wrong
        else:
            columns[name], wrong = _field(texts, name, source, kind, context)
            faults += wrong
    if layout.kind == "trades":
        columns["price_forming"] = _price_forming(texts, n, layout)
    if layout.zero_side_is_empty:
        _empty_sides(columns)
    columns["id_space"] = _id_space(columns, n, context)
    good = np.ones(n, bool)
    good[[fault.row for fault in faults]] = False
    whole = [columns.get(f.name, pa.nulls(n, f.type)).cast(f.type) for f in schema]
    if not good.all():
        whole = [column.filter(pa.array(good)) for column in whole]
    return Converted(pa.Table.from_arrays(whole, schema=schema), good, faults)


def to_table(kind: str, n: int, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The `n` records of a kind whose columns these are; the others are null."""
    schema = latest(kind).arrow
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(n, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def constant(value: str, n: int) -> pa.Array:
    """A dictionary column with one value in all `n` rows."""
    codes = pa.array(np.zeros(n, np.int32))
    return pa.DictionaryArray.from_arrays(codes, pa.array([value], pa.string()))


def _other_exchange(texts: Texts, column: str, name: str) -> list[Fault]:
    bad = ~_numpy_equal(texts[column], name)
    why = f"is not the exchange of the file's first record, {values.shown(name)}"
    return values.faults_at(bad, texts[column], column, lambda _: why, "one exchange a file")


def _field(
    texts: Texts, name: str, source: Source, kind: pa.DataType, context: Context
) -> tuple[pa.Array, list[Fault]]:
    """One field that is no time."""
    column = source.columns[0]
    text = texts[column]
    if len(source.columns) > 1:
        text = _joined(texts, source, ",")
    absent = _absent(text, source)
    if name == "side":
        sides = source.values or {side.lower(): side for side in SIDES}
        absent_too = {t.lower(): "UNKNOWN" for t in source.absent}
        nowhere = np.zeros(len(text), bool)
        return values.to_texts(text, nowhere, column, {**sides, **absent_too}, source.otherwise)
    if pa.types.is_date(kind):
        return _dates(text, absent, column, source)
    if pa.types.is_decimal(kind):
        return values.to_decimals(text, absent, column, source.unit)
    if pa.types.is_integer(kind):
        return values.to_whole(text, absent, column, kind)
    faults: list[Fault] = []
    if not source.optional and source.otherwise is None:
        empty = _numpy_equal(text, "") & ~absent
        faults = values.faults_at(empty, text, column, str, None) if empty.any() else []
        absent = absent | empty
    if source.separator is not None:
        text = values.to_codes(text, source.separator)
    known, otherwise, why = source.values, source.otherwise, "is unknown here"
    if name == "action" and known is None:
        known = {action.lower(): action for action in ACTIONS}
    if source.lookup:
        known, why = context.symbols, f"stands for no symbol, or several, in {context.symbols_file}"
    found, wrong = values.to_texts(text, absent, column, known, otherwise, why)
    return found, faults + wrong


def _joined(texts: Texts, source: Source, by: str) -> pa.Array:
    return pc.binary_join_element_wise(*(texts[column] for column in source.columns), by)


def _absent(text: pa.Array, source: Source) -> Mask:
    """Which texts stand for nothing."""
    if not source.absent:
        return np.zeros(len(text), bool)
    found: Mask = pc.is_in(text, pa.array(source.absent)).to_numpy(zero_copy_only=False)
    return found


def _numpy_equal(text: pa.Array, value: str) -> Mask:
    found: Mask = pc.equal(text, value).to_numpy(zero_copy_only=False)
    return found


def _times(
    texts: Texts, n: int, name: str, source: Source, context: Context
) -> tuple[pa.Array, pa.Array, list[Fault]]:
    """UTC microseconds, the nanoseconds beyond them, and the faults of one field of times."""
    text = _joined(texts, source, " ") if len(source.columns) > 1 else texts[source.columns[0]]
    column = ", ".join(source.columns)
    absent = _absent(text, source)
    micros, nanos = np.zeros(n, np.int64), np.zeros(n, np.int32)
    done, local = absent.copy(), np.zeros(n, bool)
    for pattern in source.formats:
        rows = np.flatnonzero(~done)
        if len(rows) == 0:
            break
        some = text if len(rows) == n else text.take(pa.array(rows))
        read = times.read_times(some, pattern)
        hit = rows[read.good]
        micros[hit], nanos[hit], done[hit] = read.micros[read.good], read.nanos[read.good], True
        local[hit] = not read.utc
    faults: list[Fault] = []
    if not done.all():
        expected = "a time such as " + " or ".join(times.example(f) for f in source.formats)
        faults = values.faults_at(~done, text, column, lambda _: "is no time", expected)
    rows = np.flatnonzero(local & done)
    if len(rows):
        where = source.zone or context.exchange.zone
        before = context.passes.setdefault(name, zone.Pass())
        micros[rows], exists = zone.to_utc(micros[rows], where, before)
        if not exists.all():
            lost = np.zeros(n, bool)
            lost[rows[~exists]] = True
            why = f"never was in {where}: the clocks went forward over it"
            faults += values.faults_at(lost, text, column, lambda _: why, "a time that was")
    null = ~done | absent
    return pa.array(micros, TIMESTAMP_TYPE, mask=null), pa.array(nanos, pa.int32()), faults


def _dates(
    text: pa.Array, absent: Mask, column: str, source: Source
) -> tuple[pa.Array, list[Fault]]:
    days, done = np.zeros(len(text), np.int32), absent.copy()
    for pattern in source.formats:
        read = times.read_times(text, pattern)
        hit = read.good & ~done
        days[hit] = read.micros[hit] // DAY_MICROS
        done |= hit
    faults: list[Fault] = []
    if not done.all():
        expected = "a date such as " + " or ".join(times.example(f) for f in source.formats)
        faults = values.faults_at(~done, text, column, lambda _: "is no date", expected)
    return pa.array(days, pa.int32(), mask=~done | absent).cast(pa.date32()), faults


def _price_forming(texts: Texts, n: int, layout: Layout) -> pa.Array:
    forming = np.ones(n, bool)
    separator = layout.fields["conditions"].separator if "conditions" in layout.fields else None
    for column, codes in layout.not_price_forming.items():
        forming &= ~values.matches(texts[column], codes, separator)
    for column, codes in layout.price_forming_only.items():
        forming &= values.matches(texts[column], codes, separator)
    return pa.array(forming)


def _empty_sides(columns: dict[str, pa.Array]) -> None:
    """A side whose price and quantity are both zero, or not there, is empty: null."""
    for side in ("bid", "ask"):
        price, quantity = columns[f"{side}_price"], columns[f"{side}_quantity"]
        nothing = [pc.fill_null(pc.equal(c, pa.scalar(0, c.type)), True) for c in (price, quantity)]
        empty = pc.and_(*nothing)
        for name, column in ((f"{side}_price", price), (f"{side}_quantity", quantity)):
            columns[name] = pc.if_else(empty, pa.scalar(None, column.type), column)


def _id_space(columns: dict[str, pa.Array], n: int, context: Context) -> pa.Array:
    """The layout's text, or the exchange's date where numbers restart daily."""
    if context.layout.id_space != "exchange_date":
        return constant(context.layout.id_space, n)
    when = columns["timestamp"]
    if "target_timestamp" in columns:
        # The ids are those of the trades that are corrected.
        when = pc.coalesce(columns["target_timestamp"], when)
    utc = when.fill_null(0).cast(pa.int64()).to_numpy()
    roll = int(context.exchange.day_roll.total_seconds()) * 1_000_000
    days = zone.to_local(utc + roll, context.exchange.zone) // DAY_MICROS
    dates = pa.array(days.astype(np.int32)).cast(pa.date32()).dictionary_encode()
    names = pa.DictionaryArray.from_arrays(dates.indices, dates.dictionary.cast(pa.string()))
    return names.cast(DICTIONARY_TYPE)
