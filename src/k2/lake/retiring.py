"""Which rows of a data file are to go, and what a ledger says of them.

Comes in: a file of one trading date, and a judge. Goes out: a mask over its rows, and the groups of
rows that go, or that pins hold; from these the ledger's entries, and a report.
"""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.errors import Broken
from k2.lake.index import DataFileRef
from k2.lake.ledgers import to_rows
from k2.lake.places import Offsets, to_distances
from k2.lake.retired import LEDGER, RETIRED
from k2.lake.sort import Bucket

Longs = npt.NDArray[np.int64]

_CODED: Final = ("exchange", "symbol", "log_topic", "log_id")
_WHOLE: Final = ("timestamp", "log_partition", "log_offset", "commit_sequence")
_DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Verdict:
    """A day of a symbol is to go: its tier, the rule that says so, and the pins that hold it; where
    there are any, it stays.
    """

    tier: int
    rule: str
    pins: tuple[str, ...] = ()


class Judge(Protocol):
    """Says what is to go. Asked by one thread."""

    def concerns(self, day: date) -> Hashable | None:
        """All that the verdicts on a trading date hang on; None where nothing of it is to go."""

    def verdict(self, exchange: str, day: date, symbol: str) -> Verdict | None:
        """What is to be done with a day of a symbol; None: it is kept."""

    def check(self) -> None:
        """Raises `Conflict` where a verdict might be another by now: somebody has pinned."""


@dataclass(frozen=True)
class Group:
    """Rows of a file that share exchange, verdict, and topic and partition of the log. Times are
    microseconds since 1970 (UTC), all ends inclusive.
    """

    exchange: str
    verdict: Verdict
    topic: str
    log_id: str
    partition: int
    offsets: Offsets
    symbols: frozenset[str]
    first_commit: int
    first_us: int
    last_us: int


@dataclass(frozen=True)
class Going:
    """A file of which rows are to go: `gone` says which, in the file's order."""

    file: DataFileRef
    bucket: Bucket | None
    gone: npt.NDArray[np.bool_]
    groups: tuple[Group, ...]

    @property
    def rows(self) -> int:
        """How many rows go."""
        return int(np.count_nonzero(self.gone))


def look_at(file: DataFileRef, bucket: Bucket | None, day: date, judge: Judge) -> Going:
    """What is to go of a file, whose rows are all of that day. Raises `Broken` for a file that is
    not what the table says of it.
    """
    rows = _cited(file)
    codes, names = {}, {}
    for name in _CODED:
        codes[name], names[name] = _coded(rows[name])
    pairs, of = np.unique(
        codes["exchange"] * (len(names["symbol"]) + 1) + codes["symbol"], return_inverse=True
    )
    verdicts: list[Verdict | None] = [None]
    judged = np.zeros(len(pairs), np.int64)
    for number, pair in enumerate(pairs.tolist()):
        exchange, symbol = divmod(pair, len(names["symbol"]) + 1)
        found = judge.verdict(names["exchange"][exchange], day, names["symbol"][symbol])
        if found not in verdicts:
            verdicts.append(found)
        judged[number] = verdicts.index(found)
    codes["verdict"] = judged[of]
    codes["partition"] = rows["log_partition"].to_numpy().astype(np.int64)
    leaves = np.array([each is not None and not each.pins for each in verdicts])
    groups = tuple(_groups(rows, codes, names, verdicts, file.sequence))
    return Going(file, bucket, leaves[codes["verdict"]], groups)


def _groups(
    rows: pa.Table,
    codes: dict[str, Longs],
    names: dict[str, list[str]],
    verdicts: list[Verdict | None],
    sequence: int,
) -> Iterator[Group]:
    """The rows that have a verdict, by what they share."""
    chosen = np.flatnonzero(codes["verdict"])
    if not len(chosen):
        return
    shared = ("verdict", "exchange", "log_topic", "log_id", "partition")
    keys = np.stack([codes[name][chosen] for name in shared])
    _, at = np.unique(keys, axis=1, return_inverse=True)
    order = np.argsort(at.reshape(-1), kind="stable")
    offsets = rows["log_offset"].to_numpy()
    times = rows["timestamp"].cast(pa.int64()).to_numpy()
    commits = pc.fill_null(rows["commit_sequence"], pa.scalar(sequence, pa.int64())).to_numpy()
    for mine in np.split(chosen[order], np.cumsum(np.bincount(at.reshape(-1)))[:-1]):
        first = int(mine[0])
        verdict = verdicts[int(codes["verdict"][first])]
        assert verdict is not None, "only rows with a verdict are chosen"
        yield Group(
            names["exchange"][int(codes["exchange"][first])],
            verdict,
            names["log_topic"][int(codes["log_topic"][first])],
            names["log_id"][int(codes["log_id"][first])],
            int(codes["partition"][first]),
            offsets[mine],
            frozenset(names["symbol"][code] for code in np.unique(codes["symbol"][mine]).tolist()),
            int(commits[mine].min()),
            int(times[mine].min()),
            int(times[mine].max()),
        )


def _cited(file: DataFileRef) -> pa.Table:
    """What the rows say of themselves, as far as it is needed here."""
    try:
        there = pq.read_schema(file.path).names
        columns = [name for name in (*_CODED, *_WHOLE) if name in there]
        rows = pq.ParquetFile(file.path, read_dictionary=list(_CODED)).read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise Broken(
            f"a data file cannot be read: {error}",
            place=file.path,
            hint="`k2 rebuild` makes its rows again from the log",
        ) from error
    if rows.num_rows != file.rows:
        raise Broken(
            "a file holds another number of rows than the table says of it",
            place=file.path,
            found=f"{rows.num_rows:,} rows",
            expected=f"{file.rows:,}",
            hint="`k2 audit` names what is wrong; nothing was changed",
        )
    if "commit_sequence" not in there:
        rows = rows.append_column("commit_sequence", pa.nulls(rows.num_rows, pa.int64()))
    return rows.unify_dictionaries().combine_chunks()


def _coded(column: pa.ChunkedArray) -> tuple[Longs, list[str]]:
    """A number for each row's text, and the texts that the numbers stand for."""
    coded = column.combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # without a row there is no chunk
        return np.zeros(0, np.int64), []
    codes = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, coded.dictionary.to_pylist()


# ------------------------------------------------------------------------- what is told of it

_Key = tuple[date, str, int, str, str, str, int]


class Entries:
    """The ledger's entries of one commit, gathered file by file: one for each day, exchange, rule
    and partition of the log.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._groups: dict[_Key, list[Group]] = defaultdict(list)

    def add(self, day: date, group: Group) -> None:
        """Rows that go."""
        of = group.verdict
        key = (day, group.exchange, of.tier, of.rule, group.topic, group.log_id, group.partition)
        self._groups[key].append(group)

    @property
    def days(self) -> dict[str, date]:
        """The latest day of each exchange."""
        return {exchange: day for day, exchange, *_ in sorted(self._groups)}

    def to_table(self, commit: int, now: datetime) -> pa.Table:
        """The entries as the ledger's rows, once the commit has its number."""
        return to_rows(LEDGER, [self._row(*one, commit, now) for one in self._groups.items()])

    def _row(self, key: _Key, groups: list[Group], commit: int, now: datetime) -> dict[str, Any]:
        day, exchange, tier, rule, topic, log_id, partition = key
        offsets = np.sort(np.concatenate([group.offsets for group in groups]))
        symbols = frozenset[str]().union(*(group.symbols for group in groups))
        return {
            "event": RETIRED,
            "kind": self._kind,
            "exchange": exchange,
            "exchange_date": day,
            "tier": tier,
            "rule": rule,
            **symbols_of(symbols),
            **places_of(offsets),
            "first_timestamp": _time(min(group.first_us for group in groups)),
            "last_timestamp": _time(max(group.last_us for group in groups)),
            "first_commit": min(group.first_commit for group in groups),
            "commit": commit,
            "committed_at": now,
            "log_topic": topic,
            "log_id": log_id,
            "log_partition": partition,
        }


def symbols_of(symbols: frozenset[str]) -> dict[str, Any]:
    """The ledger's columns that name symbols."""
    text = json.dumps(sorted(symbols), separators=(",", ":"), ensure_ascii=False)
    return {"symbols": text, "symbol_count": len(symbols)}


def places_of(offsets: Offsets) -> dict[str, Any]:
    """The ledger's columns that say where in a partition records lie, of ascending offsets."""
    return {
        "records": len(offsets),
        "log_offset": int(offsets[0]),
        "end_offset": int(offsets[-1]) + 1,
        "distances": to_distances(offsets),
    }


def _time(us: int) -> datetime:
    return _DAWN + timedelta(microseconds=us)


@dataclass(frozen=True)
class Lot:
    """Rows of one tier of an exchange that one rule retires; with `pins`, that these hold."""

    exchange: str
    tier: int
    rule: str
    pins: tuple[str, ...]
    first_day: date
    last_day: date
    days: int
    symbols: int
    rows: int


class Lots:
    """What goes and what is held, counted file by file."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, Verdict], int] = defaultdict(int)
        self._days: dict[tuple[str, Verdict], set[date]] = defaultdict(set)
        self._symbols: dict[tuple[str, Verdict], set[str]] = defaultdict(set)

    def add(self, day: date, group: Group) -> None:
        """Rows that go, or are held."""
        key = (group.exchange, group.verdict)
        self._rows[key] += len(group.offsets)
        self._days[key].add(day)
        self._symbols[key] |= group.symbols

    def lots(self, *, held: bool) -> tuple[Lot, ...]:
        """Those that pins hold, or the others; by exchange and tier."""
        found = [
            Lot(
                exchange,
                of.tier,
                of.rule,
                of.pins,
                min(days),
                max(days),
                len(days),
                len(self._symbols[exchange, of]),
                self._rows[exchange, of],
            )
            for (exchange, of), days in self._days.items()
            if bool(of.pins) == held
        ]
        return tuple(sorted(found, key=lambda lot: (lot.exchange, lot.tier, lot.rule, lot.pins)))
