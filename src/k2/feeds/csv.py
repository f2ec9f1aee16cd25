"""Mapped files: delimited text of any size, plain or compressed, to records as a mapping says.

Opened by `open_file`, or by a URL: `csv:trades/7078.csv?mapping=asx&kind=trades&symbol=BHP`. A line
that cannot be read, or whose record the writer would refuse, becomes a record of kind `rejects`,
kept whole with its place; the rest of the file goes on.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.errors import BadInput
from k2.feeds.mapped import lines
from k2.feeds.mapped.content import Bytes, place_of, print_of
from k2.feeds.mapped.head import Asked, Head
from k2.feeds.mapped.options import read_options
from k2.feeds.mapped.records import Context, to_records
from k2.feeds.mapped.rejects import Origin, to_rejects
from k2.feeds.mapped.values import Fault, shown
from k2.feeds.mapping import FileMapping, load_mapping
from k2.feeds.occurrence import Occurrences
from k2.feeds.port import EndOfFeed, Feed, Records
from k2.model import CLOCK_SKEW, Exchange, Failures, latest, validate

Clock = Callable[[], datetime]
Progress = Callable[[int, int], None]

SKIP_SECONDS: Final = 0.05
"""So long one `read` may look for the position that the feed was opened at."""
_OPTIONS: Final = ("mapping", "kind", "symbol", "exchange", "instruments", "skew")


def open_feed(rest: str, position: str | None, clock: Clock) -> Feed:
    """Open `<path>?mapping=…&kind=…[&symbol=…][&exchange=…][&instruments=…]` at `position`.

    `[&skew=…]` is the K2_CLOCK_SKEW_SECONDS of the writer, where that is not the default.
    """
    path, options, skew = read_options("csv", rest, _OPTIONS)
    for option in ("mapping", "kind"):
        if option not in options:
            raise BadInput(f"a csv feed needs {option}=…", found=rest)
    return open_file(
        path,
        options["mapping"],
        options["kind"],
        symbol=options.get("symbol"),
        exchange=options.get("exchange"),
        instruments=options.get("instruments"),
        skew=skew,
        clock=clock,
        position=position,
    )


def open_file(
    path: str | Path,
    mapping: str | Path | FileMapping | None,
    kind: str | None,
    *,
    symbol: str | None = None,
    exchange: str | None = None,
    instruments: str | Path | None = None,
    skew: timedelta = CLOCK_SKEW,
    clock: Clock,
    progress: Progress | None = None,
    position: str | None = None,
    block_bytes: int = lines.BLOCK_BYTES,
) -> Feed:
    """A feed of the records of one kind in a file, by a mapping (name, path, or loaded).

    `symbol` is that of every record, where the file does not say; `exchange` takes the place of the
    mapping's; `instruments` is the file, in the same mapping, that tells symbols by company id;
    `skew` is how far a record's time may lie ahead of the clock's: the writer's setting.
    `progress(done, total)` is called after each block, in bytes of the file as it lies on the disk.
    At a `position`, the file is read from its start, and what lies before the position is not given
    again. Raises `BadInput` for a file, a mapping or a combination that cannot be.
    """
    path = Path(path)
    if mapping is None or kind is None:
        what = "mapping" if mapping is None else "kind"
        raise BadInput(
            f"a delimited file needs a {what}, which tells what its lines are",
            place=str(path),
            hint=f"name it with --{what}",
        )
    known = mapping if isinstance(mapping, FileMapping) else load_mapping(str(mapping))
    layout = known.layout(kind)
    asked = Asked(path, known, layout, symbol, exchange, instruments, skew, block_bytes)
    return CsvFeed(asked, clock, progress, position)


class CsvFeed:
    """One file as a feed. Its name and position hold as long as the file is the same."""

    def __init__(
        self, asked: Asked, clock: Clock, progress: Progress | None, position: str | None
    ) -> None:
        self._asked = asked
        self._clock = clock
        self._progress = progress
        self._bytes = Bytes(asked.path)
        self._occurrences: Occurrences | None = None
        try:
            self.name = f"csv:{asked.layout.kind}:{asked.mapping.name}:{asked.path.resolve()}"
            self._print = print_of(asked.path)
            self._line = 0
            self._skip = place_of(position, "line", self._print)
            self._blocks = lines.read_blocks(self._bytes, asked.block_bytes)
            self._head = Head(asked, self._blocks, _symbols_by_company)
            self.exchanges: Sequence[Exchange] = (
                () if self._head.context is None else (self._head.context.exchange,)
            )
            if "occurrence" in latest(asked.layout.kind).arrow.names:
                self._occurrences = Occurrences(self._reread)
        except BaseException:
            self._bytes.close()
            raise

    def read(self) -> Sequence[Records]:
        """The records of the next block, and the rejects among its lines."""
        began = time.monotonic()
        while True:
            found = self._read_block()
            # Behind the position that the feed was opened at, blocks hold nothing new.
            if found or self._line >= self._skip or time.monotonic() - began > SKIP_SECONDS:
                return found

    def _read_block(self) -> Sequence[Records]:
        block, now = self._next_block(), self._clock()
        good, rows, faults = self._convert(block, now)
        self._line = block.first_line + block.lines - 1
        if self._occurrences is not None:
            good = self._numbered(good)
        # Only now: which records are too far ahead depends on when they were read, and the numbers
        # of equal records must not.
        good, rows = self._validated(block, good, rows, faults)
        bad = self._rejects(block, faults, now)
        if self._skip:
            good = good.filter(pa.array(block.first_line + rows > self._skip))
            bad = bad.filter(pa.array(bad.column("line").to_numpy() > self._skip))
        if self._progress is not None:
            self._progress(self._bytes.done(), self._bytes.total)
        exchange = self._context.exchange.name
        found = [
            Records(self._asked.layout.kind, exchange, good),
            Records("rejects", exchange, bad),
        ]
        return [records for records in found if records.table.num_rows]

    def _next_block(self) -> lines.Block:
        block = self._head.take() or next(self._blocks, None)
        if block is None or self._head.context is None:
            raise EndOfFeed
        return block

    @property
    def _context(self) -> Context:
        assert self._head.context is not None
        return self._head.context

    def position(self) -> str:
        """`line <last line read> of <the file's size and time of change>`."""
        return f"line {max(self._line, self._skip)} of {self._print}"

    def close(self) -> None:
        """Let go of the file, and of temporary files."""
        self._bytes.close()
        if self._occurrences is not None:
            self._occurrences.close()

    def _convert(
        self, block: lines.Block, now: datetime
    ) -> tuple[pa.Table, npt.NDArray[np.int64], list[Fault]]:
        """The block's records, the row of each in the block, and the faults of other rows."""
        head = self._head
        keep, faults = lines.sift(block, head.shape)
        if block.first_line <= head.line < block.first_line + len(keep):
            keep[: head.line - block.first_line + 1] = False
        cells = lines.split_lines(block, keep, head.width, list(head.wanted.values()), head.shape)
        texts = {name: cells.columns[at] for name, at in head.wanted.items()}
        done = to_records(texts, len(cells.lines), self._context, now)
        for fault in done.faults:
            faults.append(replace(fault, row=int(cells.lines[fault.row])))
        return done.table, cells.lines[done.good], faults + cells.faults

    def _validated(
        self, block: lines.Block, table: pa.Table, rows: npt.NDArray[np.int64], faults: list[Fault]
    ) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """The records that can be, and their rows; the others are added to the faults."""
        kind, exchange = self._asked.layout.kind, self._context.exchange
        failures = validate(kind, table, exchange, self._asked.skew)
        if failures is None:
            return table, rows
        faults += self._implausible(block, rows[failures.rows], failures)
        keep = np.ones(len(rows), bool)
        keep[failures.rows] = False
        return table.filter(pa.array(keep)), rows[keep]

    def _implausible(
        self, block: lines.Block, rows: npt.NDArray[np.int64], failures: Failures
    ) -> Iterator[Fault]:
        """A fault for each failure, in the words of the file: its columns, its texts."""
        starts, ends = block.bounds
        columns = (a.to_pylist() for a in (failures.columns, failures.values, failures.wrongs))
        for row, name, value, wrong in zip(rows.tolist(), *columns, strict=True):
            source = self._asked.layout.fields.get(name)
            named = [c for c in source.columns if c in self._head.wanted] if source else []
            if named:
                raw = block.data[starts[row] : ends[row]]
                cells = lines.split_line(raw, self._asked.layout.delimiter)
                name = ", ".join(named)
                value = " ".join(cells[self._head.wanted[column]].strip() for column in named)
            yield Fault(row, name, f"{name} {shown(value)} {wrong}", None)

    def _rejects(self, block: lines.Block, faults: list[Fault], now: datetime) -> pa.Table:
        first: dict[int, Fault] = {}
        for fault in faults:
            first.setdefault(fault.row, fault)
        chosen = [first[row] for row in sorted(first)]
        starts, ends = block.bounds
        asked = self._asked
        return to_rejects(
            Origin(
                self._context.exchange.name, asked.layout.kind, asked.mapping.name, asked.path.name
            ),
            [block.first_line + fault.row for fault in chosen],
            [(fault.column, fault.reason, fault.expected) for fault in chosen],
            [block.data[starts[fault.row] : ends[fault.row]] for fault in chosen],
            now,
        )

    def _numbered(self, table: pa.Table) -> pa.Table:
        """The table with `occurrence` in the rows that have no id."""
        assert self._occurrences is not None
        at = table.schema.get_field_index("occurrence")
        if self._asked.layout.identity == "source_sequence":
            return table
        if not self._has_ids:
            ordinals = pa.array(self._occurrences.number(table), pa.int32())
            return table.set_column(at, table.schema.field(at), ordinals)
        nameless = table.column("trade_id").is_null().to_numpy()
        if not nameless.any():
            return table
        ordinals = np.zeros(table.num_rows, np.int32)
        ordinals[nameless] = self._occurrences.number(table.filter(pa.array(nameless)))
        return table.set_column(at, table.schema.field(at), pa.array(ordinals, mask=~nameless))

    @property
    def _has_ids(self) -> bool:
        """Whether records have ids of their own, at least some of them."""
        layout = self._asked.layout
        return layout.kind == "trades" and "trade_id" in layout.fields

    def _reread(self) -> Iterator[pa.Table]:
        """The records without an id of the whole file once more, as `_numbered` asks for them."""
        feed = CsvFeed(self._asked, self._clock, None, None)
        try:
            while True:
                table, _, _ = feed._convert(feed._next_block(), self._clock())
                if self._has_ids:
                    table = table.filter(table.column("trade_id").is_null())
                yield table
        except EndOfFeed:
            return
        finally:
            feed.close()


def _symbols_by_company(asked: Asked) -> Mapping[str, str]:
    """Symbol by company id, from the file of instruments; ids with several symbols are left out."""
    assert asked.instruments is not None
    feed = open_file(asked.instruments, asked.mapping, "instruments", clock=_no_clock)
    found: dict[str, set[str]] = {}
    try:
        while True:
            for records in feed.read():
                if records.kind == "instruments":
                    ids, symbols = (records.table.column(c) for c in ("company_id", "symbol"))
                    for company, symbol in zip(ids.to_pylist(), symbols.to_pylist(), strict=True):
                        found.setdefault(company.lower(), set()).add(symbol)
    except EndOfFeed:
        pass
    finally:
        feed.close()
    return {company: symbols.pop() for company, symbols in found.items() if len(symbols) == 1}


def _no_clock() -> datetime:
    return datetime.fromtimestamp(0, UTC)
