"""Databento's binary files: `dbn:x.dbn.zst[?kind=trades&exchange=XNAS&symbol=…&mapping=…]`.

Trades come from the schema `trades` and, by their action, from `tbbo` and `mbp-1`; quotes from
`tbbo` and `mbp-1`; instruments from `definition`. Files of several schemas give all three, their
trades from `trades` alone. Symbols are the file's own, by the day or by the messages in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from k2.errors import BadInput
from k2.feeds.blocks import BlockFeed, Clock, Opened, Progress
from k2.feeds.databento import columns, stream
from k2.feeds.databento.columns import SOURCE, Context
from k2.feeds.databento.stream import Array, Block, Head, Ints
from k2.feeds.databento.symbols import ALWAYS, Symbols, TooFine
from k2.feeds.mapped.options import read_options
from k2.feeds.mapped.rejects import Verdicts
from k2.feeds.mapping import load_mapping
from k2.feeds.port import Feed
from k2.model import CLOCK_SKEW, Exchange

_OPTIONS: Final = ("kind", "exchange", "symbol", "mapping", "skew")
_KINDS: Final = {
    "trades": ("trades",),
    "tbbo": ("trades", "quotes"),
    "mbp-1": ("trades", "quotes"),
    "definition": ("instruments",),
    None: ("instruments", "trades", "quotes"),
}
"""What there is in a file of a schema, in the order in which a block gives it."""
_NEW_YORK: Final = ("equities", "America/New_York", timedelta(0))
_EXCHANGES: Final = {
    **dict.fromkeys(("XNAS", "XBOS", "XPSX", "XNYS", "XASE", "XCHI", "XCIS", "ARCX"), _NEW_YORK),
    **dict.fromkeys(("BATS", "BATY", "EDGA", "EDGX", "IEXG", "MEMX", "EPRL"), _NEW_YORK),
    **dict.fromkeys(("DBEQ", "EQUS"), _NEW_YORK),
    "OPRA": ("options", "America/New_York", timedelta(0)),
    # Globex opens at 17:00 for the next day's session.
    "GLBX": ("futures", "America/Chicago", timedelta(hours=7)),
    "XEUR": ("futures", "Europe/Berlin", timedelta(0)),
}
"""Asset class, zone and day roll by the first part of the dataset, which is the exchange's name."""


@dataclass(frozen=True)
class Asked:
    """What a file is to be opened as; `open_file` says what each means."""

    path: Path
    mapping: str | None
    kind: str | None
    symbol: str | None
    exchange: str | None
    skew: timedelta
    block_bytes: int


def open_feed(rest: str, position: str | None, clock: Clock) -> Feed:
    """Open `<path>[?kind=…][&exchange=…][&symbol=…][&mapping=…][&skew=…]` at `position`."""
    path, options, skew = read_options("dbn", rest, _OPTIONS)
    return open_file(
        path,
        options.get("mapping"),
        options.get("kind"),
        symbol=options.get("symbol"),
        exchange=options.get("exchange"),
        skew=skew,
        clock=clock,
        position=position,
    )


def open_file(
    path: str | Path,
    mapping: str | Path | None = None,
    kind: str | None = None,
    *,
    symbol: str | None = None,
    exchange: str | None = None,
    instruments: str | Path | None = None,
    skew: timedelta = CLOCK_SKEW,
    clock: Clock,
    progress: Progress | None = None,
    position: str | None = None,
    block_bytes: int = stream.BLOCK_BYTES,
) -> Feed:
    """A feed of the records in a DBN file: of one kind, or of all that it holds.

    `exchange` takes the place of the dataset's name; `mapping` names a mapping whose exchange says
    asset class and zone, which a dataset that K2 does not know needs; `symbol` is that of every
    record, where the file maps none. The others are as in `k2.feeds.csv.open_file`, but that
    `instruments` has no meaning here. Raises `BadInput` for what cannot be, and where the library
    that knows the format is not installed.
    """
    if find_spec("databento_dbn") is None:
        raise BadInput(
            "DBN files are read with databento-dbn, which is not installed",
            place=str(path),
            hint="pip install 'k2-lakehouse[dbn]'",
        )
    if instruments is not None:
        raise BadInput(
            "a DBN file tells its symbols itself", place=str(path), hint="leave --instruments out"
        )
    named = None if mapping is None else str(mapping)
    asked = Asked(Path(path), named, kind, symbol, exchange, skew, block_bytes)
    return DbnFeed(asked, clock, progress, position)


class DbnFeed(BlockFeed[Block]):
    """One file as a feed: see `BlockFeed`."""

    def __init__(
        self, asked: Asked, clock: Clock, progress: Progress | None, position: str | None
    ) -> None:
        self._asked = asked
        self._symbols = Symbols()
        self._too_fine = TooFine()
        super().__init__(
            f"dbn:{asked.kind or 'all'}:{asked.path.resolve()}",
            Opened(SOURCE, asked.path, asked.skew, clock, progress, position),
        )

    def _begin(self) -> None:
        asked = self._asked
        head = stream.read_head(self._bytes, str(asked.path))
        if head is None:
            return
        self._head = head
        self._kinds = _kinds(asked, head)
        self.exchanges = (_exchange(asked, head),)
        if asked.symbol is not None and head.intervals:
            raise BadInput(
                "the file names its symbols itself",
                place=str(asked.path),
                hint="leave the symbol out",
            )
        for each in head.intervals:
            self._symbols.add(each.instrument_id, each.first, each.end, each.symbol)
        self._blocks = stream.read_blocks(self._bytes, head, str(asked.path), asked.block_bytes)

    def _again(self) -> "DbnFeed":
        return DbnFeed(self._asked, self._opened.clock, None, None)

    def _learn(self, block: Block) -> None:
        """Take what the block says of symbols, and of instruments that cannot be kept."""
        types = self._head.types
        if not self._head.intervals:
            rows = block.rows(stream.SYMBOL_MAPPING)
            # Those that the venue sends again and again say the same: a message is rare.
            for row, told in zip(
                rows.tolist(), block.records(rows, types[stream.SYMBOL_MAPPING]), strict=True
            ):
                symbol = told["stype_out_symbol"].decode("utf-8", "replace")
                self._symbols.add(int(told["instrument_id"]), block.first + row, ALWAYS, symbol)
        for kind, names in (
            (stream.DEFINITION, ("min_price_increment",)),
            (stream.TRADE, ("price",)),
            (stream.MBP_1, ("price", "bid_px_00", "ask_px_00")),
        ):
            rows = block.rows(kind)
            self._too_fine.look(block.records(rows, types[kind]), block.first + rows, names)

    def _convert(self, block: Block, kind: str, now: datetime) -> tuple[Ints, pa.Table, Verdicts]:
        """A kind's places in the block, their table, and which of them are refused."""
        rows, records = self._of(block, kind)
        verdicts = Verdicts(len(rows))
        for bad, name, why in self._too_fine.among(records, block.first + rows):
            verdicts.refuse(bad, name, why)
        context = Context(self._exchange, self._named(block, kind, rows, records, verdicts), now)
        convert = {
            "trades": columns.trades,
            "quotes": columns.quotes,
            "instruments": columns.instruments,
        }[kind]
        return rows, convert(records, context, verdicts), verdicts

    def _of(self, block: Block, kind: str) -> tuple[Ints, Array]:
        """Places and records of a kind."""
        types = self._head.types
        if kind == "instruments":
            rows = block.rows(stream.DEFINITION)
            return rows, block.records(rows, types[stream.DEFINITION])
        by_event = kind == "quotes" or self._head.schema in ("tbbo", "mbp-1")
        wanted = stream.MBP_1 if by_event else stream.TRADE
        rows = block.rows(wanted)
        records = block.records(rows, types[wanted])
        if kind == "trades" and by_event:
            traded = records["action"] == b"T"
            return rows[traded], records[traded]
        return rows, records

    def _named(
        self, block: Block, kind: str, rows: Ints, records: Array, verdicts: Verdicts
    ) -> tuple[Any, Sequence[str]]:
        """The codes of the records' symbols, and the symbols."""
        if kind == "instruments":
            texts = [text.decode("utf-8", "replace") for text in records["raw_symbol"].tolist()]
            names = list(dict.fromkeys(texts))
            places = {name: code for code, name in enumerate(names)}
            return np.array([places[text] for text in texts], np.int32), names
        if self._asked.symbol is not None:
            return np.zeros(len(rows), np.int32), [self._asked.symbol]
        by_day = bool(self._head.intervals)
        ids = records["instrument_id"].astype(np.int64)
        where = columns.days(records) if by_day else np.minimum(block.first + rows, ALWAYS - 1)
        codes = self._symbols.codes(ids, where)
        for number in np.unique(ids[codes < 0]).tolist():
            why = f"instrument {number} stands for no symbol"
            why += " on that day" if by_day else ": no message before it says which"
            verdicts.refuse((codes < 0) & (ids == number), "instrument_id", why)
        return codes, self._symbols.names


def _kinds(asked: Asked, head: Head) -> tuple[str, ...]:
    """The kinds to be read."""
    if head.schema not in _KINDS:
        raise BadInput(
            f"K2 reads no {head.schema}",
            place=str(asked.path),
            expected="a file of " + ", ".join(name for name in _KINDS if name),
        )
    kinds = _KINDS[head.schema]
    if asked.kind is None:
        return kinds
    if asked.kind not in kinds:
        raise BadInput(
            f"the file has no {asked.kind}: its schema is {head.schema or 'mixed'}",
            place=str(asked.path),
            expected=" or ".join(kinds),
        )
    return (asked.kind,)


def _exchange(asked: Asked, head: Head) -> Exchange:
    """The exchange of all records, from the dataset or the mapping."""
    name = asked.exchange or head.dataset.partition(".")[0]
    if asked.mapping is not None:
        return load_mapping(asked.mapping).exchange(name)
    facts = _EXCHANGES.get(head.dataset.partition(".")[0])
    if facts is None:
        raise BadInput(
            f"the exchange of the dataset {head.dataset!r} is not known here",
            place=str(asked.path),
            expected=", ".join(_EXCHANGES),
            hint="name a mapping whose [exchange] says its asset class and zone: --mapping",
        )
    return Exchange(name, *facts)
