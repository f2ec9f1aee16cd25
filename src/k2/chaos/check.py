"""The checker: reads tables, ledgers and tail as a stranger would, and holds them against the
journal. It trusts no writer's memory, and says what is wrong with the first place that breaks.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from k2.chaos.journal import ID_COLUMN, PRICED, Identity, Journal, Message, Place, name_of
from k2.chaos.market import COUNTED, TOPICS, Market
from k2.errors import Broken
from k2.ingest import Pinned, audit, table_of
from k2.ingest.shed import shed_places
from k2.lake import Lake, Snapshot
from k2.log import Log

LINEAGE: Final = ("log_topic", "log_partition", "log_offset")
"""Of each row, its place in the log."""
_Row = Mapping[str, Any]


def wrong(what: str, place: object = None) -> Broken:
    """What the checker raises."""
    return Broken(what, place=None if place is None else str(place))


@dataclass(frozen=True)
class Fates:
    """Rows of tables and ledgers by the place in the log that they cite."""

    rows: dict[Place, _Row]
    rejected: dict[Place, _Row]
    duplicates: dict[Place, _Row]

    def places(self) -> set[Place]:
        """All that have a fate."""
        return {*self.rows, *self.rejected, *self.duplicates}


def check_end(log: Log, lake: Lake, journal: Journal, market: Market) -> None:
    """After all is committed: every message has one fate, and the ledgers say which.

    Raises `Broken` with the first thing that is wrong.
    """
    _check_sent(market, journal)
    fates = _read_fates(log, lake)
    _check_places(fates, journal)
    for place, row in fates.rejected.items():
        _check_rejected(place, row, journal.messages[place])
    for place, row in fates.duplicates.items():
        _check_duplicate(place, row, journal, fates.rows)
    for place, row in fates.rows.items():
        _check_row(place, row, journal.messages[place])
    _check_identities(fates.rows, journal)
    _check_shed(lake)
    _check_gaps(lake, market, journal, fates.rows)
    _check_commits(lake)
    _check_audit(log, lake)


def _check_sent(market: Market, journal: Journal) -> None:
    sent = Counter(
        name_of(records.kind, row)
        for chunk in market.chunks
        for records in chunk
        for row in records.table.to_pylist()
    )
    if missing := sent - journal.came:
        raise wrong(f"the feed never brought this into the log: {next(iter(missing))}")


def _check_places(fates: Fates, journal: Journal) -> None:
    for name, found in (("row", fates.rows), ("duplicate", fates.duplicates)):
        for place in found:
            if place not in journal.messages:
                raise wrong(f"a {name} cites a place that no message ever had", place)
    several = [p for p in fates.rows if p in fates.duplicates or p in fates.rejected]
    several += [p for p in fates.duplicates if p in fates.rejected]
    if several:
        raise wrong("this record has two fates", min(several))
    if missing := journal.messages.keys() - fates.places() - journal.lost:
        raise wrong("this record is lost: it has no fate", min(missing))
    if back := fates.places() & journal.lost:
        raise wrong("this record was given up, and has a fate", min(back))


def _check_rejected(place: Place, row: _Row, message: Message) -> None:
    if message.record is not None:
        raise wrong("a good record was rejected", place)
    if row["raw"] != message.value or not row["reason"]:
        raise wrong("a rejected record is not kept whole, with its reason", place)


def _check_duplicate(place: Place, row: _Row, journal: Journal, rows: Mapping[Place, _Row]) -> None:
    of = (row["of_topic"], row["of_partition"], row["of_offset"])
    if of not in rows:
        raise wrong(f"a duplicate names {of}, which is no row", place)
    mine, its = journal.messages[place].identity, journal.messages[of].identity
    if mine is None or mine != its:
        raise wrong(f"a record was called a duplicate of {of}, which is another record", place)


def _check_row(place: Place, row: _Row, message: Message) -> None:
    if message.record is None:
        raise wrong("a record that cannot be became a row", place)
    names = ["symbol", ID_COLUMN.get(message.kind), *PRICED.get(message.kind, ())]
    if message.kind == "rejects":
        names = ["raw", "reason"]
    for name in (n for n in names if n is not None and n in row):
        if row[name] != message.record.get(name):
            raise wrong(f"{name} of a row is not what was sent", place)


def _check_identities(rows: Iterable[Place], journal: Journal) -> None:
    counted = Counter(journal.messages[place].identity for place in rows)
    for identity, places in journal.by_identity.items():
        count = counted[identity]
        if count > 1:
            raise wrong(f"the same record is there {count} times: {identity}", max(places))
        if not count and not journal.lost.issuperset(places):
            raise wrong(f"a record is not there: {identity}", min(places))


def _check_shed(lake: Lake) -> None:
    records: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for row in _read([f.path for f in lake.ledger_files("shed")]):
        key = (row["id"], row["log_topic"], row["log_partition"])
        records[key][row["event"]] += row["records"]
    for which, events in records.items():
        if events["shed"] != events["filled"]:
            raise wrong(f"of what was shed, not all was brought in: {dict(events)}", which)
    for kind in ID_COLUMN:
        if open_ := lake.table(table_of(kind)).snapshot().shed:
            raise wrong("a shed range is still open", open_[0].place)


def _check_gaps(lake: Lake, market: Market, journal: Journal, rows: Mapping[Place, _Row]) -> None:
    told: dict[str, set[int]] = defaultdict(set)
    for row in _read([f.path for f in lake.ledger_files("gaps")]):
        if row["kind"] == "trades" and row["cause"] != "log loss" and row["last_missing"]:
            told[row["symbol"]] |= set(range(row["first_missing"], row["last_missing"] + 1))
    trades = str(TOPICS["trades"])
    for symbol in COUNTED:
        there = _numbers(rows, trades, symbol)
        missing = market.skipped[symbol] - there
        lost = {
            int(record["trade_id"])
            for place in journal.lost
            if (record := journal.messages[place].record) and record.get("symbol") == symbol
            if str(record.get("trade_id")).isdecimal()
        }
        if untold := missing - told[symbol] - lost:
            raise wrong(f"trade {min(untold)} was never sent, and the gap ledger lacks it", symbol)
        known = market.skipped[symbol] | market.spoiled[symbol] | lost
        if invented := told[symbol] - there - known:
            raise wrong(f"the gap ledger invents that trade {min(invented)} is missing", symbol)


def _numbers(rows: Mapping[Place, _Row], topic: str, symbol: str) -> set[int]:
    found = (row for place, row in rows.items() if place[0] == topic and row["symbol"] == symbol)
    return {int(row["trade_id"]) for row in found if row["trade_id"] is not None}


def _check_commits(lake: Lake) -> None:
    for kind in ID_COLUMN:
        commits = lake.commits_of(kind)
        numbers, times = (commits[name].to_pylist() for name in ("commit", "committed_at"))
        last = lake.table(table_of(kind)).snapshot().sequence
        if numbers != list(range(1, last + 1)):
            raise wrong(f"the ledger has not each commit once, up to {last}: {numbers}", kind)
        if times != sorted(times):
            raise wrong("the times of commits run backwards", kind)


def _check_audit(log: Log, lake: Lake) -> None:
    for part in audit(log, lake).partitions:
        place = f"{part.topic}[{part.partition}]"
        if part.problem is not None:
            raise wrong(f"audit: {part.problem}", f"{place} offset {part.first_wrong_offset}")
        fates = part.committed + part.duplicate + part.rejected + part.shed + part.absent
        if part.end_offset - part.start_offset != fates + part.lost + part.in_flight:
            raise wrong("the sum of fates is not the number of records", place)
        if part.in_flight:
            raise wrong(f"{part.in_flight} records are still in flight", place)


# ------------------------------------------------------------------------- one moment


def read_view(pinned: Pinned) -> list[_Row]:
    """The lineage of all rows that an answer reads, history and tail."""
    files = [file.path for file in pinned.snapshot.files.select()]
    return [*_read(files, list(LINEAGE)), *pinned.rows.select(LINEAGE).to_pylist()]


def check_view(lake: Lake, journal: Journal, kind: str, pinned: Pinned) -> list[_Row]:
    """What an answer reads now, which must be every record that the log has, each once.

    Records that were shed and are not brought in yet may be left out. Raises `Broken`.
    """
    found = read_view(pinned)
    check_rows(found, _open(lake, pinned.snapshot), journal, kind)
    return found


def check_rows(found: Iterable[_Row], shed: Collection[Place], journal: Journal, kind: str) -> None:
    """Hold the lineage of all rows of a kind against the journal; `shed` may be missing."""
    rows = [_place(row) for row in found]
    if twice := [place for place, count in Counter(rows).items() if count > 1]:
        raise wrong("an answer has a record twice", min(twice))
    if unknown := set(rows) - journal.messages.keys():
        raise wrong("an answer has a row that no message was", min(unknown))
    there = Counter(identity for p in rows if (identity := journal.messages[p].identity))
    for identity, places in journal.by_identity.items():
        if identity[0] == kind:
            visible = [p for p in places if p not in shed and p not in journal.lost]
            _check_seen(identity, visible, there[identity])
    nameless = {
        place
        for place, message in journal.messages.items()
        if message.kind == kind and message.record is not None and message.identity is None
    }
    if hidden := nameless.difference(rows, shed, journal.lost):
        raise wrong("an answer lacks a record", min(hidden))


def _check_seen(identity: Identity, visible: Collection[Place], count: int) -> None:
    if count > 1:
        raise wrong(f"an answer has the same record {count} times: {identity}", max(visible))
    if visible and not count:
        raise wrong(f"an answer lacks a record: {identity}", min(visible))


def _open(lake: Lake, snapshot: Snapshot) -> set[Place]:
    """Places of what was shed and waits."""
    return {
        (each.topic, each.partition, offset)
        for each in snapshot.shed
        for offset in shed_places(lake, each).first(each.end_offset - each.first_offset).tolist()
        if each.first_offset <= offset < each.end_offset
    }


# ------------------------------------------------------------------------- reading


def _read_fates(log: Log, lake: Lake) -> Fates:
    fates = Fates({}, {}, {})
    ids = {name: log.identity(name) for name in log.topics()}
    for kind, topic in TOPICS.items():
        table = lake.table(table_of(kind)).snapshot()
        paths = [f.path for f in table.files.select()]
        if kind == "gaps":
            paths = [f.path for f in lake.ledger_files("gaps")]
        if kind != "rejects":
            _take(fates.rows, _read(paths), ids, only=str(topic))
    for row in _read([f.path for f in lake.ledger_files("rejected")]):
        # Rows of `rejects` are entries of this ledger, like what the writer rejects.
        of = fates.rows if row["log_topic"] == str(TOPICS["rejects"]) else fates.rejected
        _take(of, [row], ids)
    _take(fates.duplicates, _read([f.path for f in lake.ledger_files("duplicates")]), ids)
    return fates


def _take(
    into: dict[Place, _Row],
    rows: Iterable[_Row],
    ids: Mapping[str, str],
    *,
    only: str | None = None,
) -> None:
    for row in rows:
        if row.get("cause") == "log loss":
            continue  # what the writer itself noticed is no message
        place = _place(row)
        if only is not None and place[0] != only:
            raise wrong(f"a row stands in the table of {only}", place)
        if ids.get(place[0]) != row["log_id"]:
            raise wrong("a row names another log", place)
        if place in into:
            raise wrong("the same place is cited twice by one table or ledger", place)
        into[place] = row


def _read(paths: Iterable[str], columns: list[str] | None = None) -> Iterator[_Row]:
    for path in paths:
        try:
            yield from pq.ParquetFile(path).read(columns=columns).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise wrong(f"a file that counts cannot be read: {error}", path) from error


def _place(row: _Row) -> Place:
    return (row["log_topic"], row["log_partition"], row["log_offset"])
