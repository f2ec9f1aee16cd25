"""What the reader reads from: log, registry and lake of one home, pinned to views of tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from k2.errors import BadInput, NotFound
from k2.ingest import Pinned, Tail, WriterLevel, levels
from k2.lake import LEDGERS, RECORD_TABLES, Lake, ShedRange, Snapshot, definition, open_lake
from k2.log import EXCHANGES_TOPIC, Access, Log, open_log, open_registry
from k2.model import Exchange, Topic, plain_schema
from k2.query.commits import Committed, read_commit
from k2.query.copies import Copies
from k2.query.hot import Hot
from k2.query.page import Page
from k2.query.port import LogRange, Pin, Source
from k2.query.retired import Retirements
from k2.query.rollup import Rollups, folder_of
from k2.query.selection import Selection, check_text
from k2.query.times import parse_when
from k2.query.view import View

KNOWN_KINDS: Final = ("trades", "quotes", "corrections")
"""The kinds of record of which it is known when they were known."""

_MANY: Final = ("trades", "quotes")
"""The kinds of which there are many records, so that they are kept at hand."""

_TAIL_ROWS: Final = 2_000_000
"""Rows that may wait for their commit before a reader says that the writer is down; one that
follows keeps half of them in memory."""
_LONG_TAIL_ROWS: Final = 32_000_000
"""Those that may wait for the commit of a reader that follows, in files for the most part."""


class State:
    """The open stores of one home. Any thread may ask; whoever opened it closes it.

    `log` and `registry` are URLs, `lake` a folder; left out, they are the embedded ones of `home`.
    """

    def __init__(
        self,
        home: Path,
        *,
        log: str | None = None,
        registry: str | None = None,
        log_access: Access | None = None,
        registry_access: Access | None = None,
        lake: Path | None = None,
        clock: Callable[[], datetime],
        skew: timedelta = timedelta(minutes=5),
    ) -> None:
        self.clock = clock
        self._is_corrected = False
        self._rollups: Rollups | None = None
        self._hot: dict[str, Hot] = {}
        self._copies: Copies | None = None
        with ExitStack() as stack:
            self.log: Log = stack.enter_context(
                closing(open_log(log or home / "log.db", log_access))
            )
            self._registry = stack.enter_context(
                closing(open_registry(registry or home / "registry.db", registry_access))
            )
            self.lake: Lake = stack.enter_context(closing(open_lake(lake or home / "lake")))
            self._retirements = Retirements(self.lake)
            self.tail = Tail(self.log, self._registry, self.lake, skew, _TAIL_ROWS, _LONG_TAIL_ROWS)
            self._stack = stack.pop_all()

    def view(
        self,
        kind: str,
        *,
        as_of: str | None = None,
        page: Page | None = None,
        beyond: Pin | None = None,
        selection: Selection | None = None,
        day: date | None = None,
    ) -> View:
        """The rows of a kind: as of a past moment, as a page saw them, or now with the tail. Of a
        page and of now, only what is `beyond` an earlier state, if one is given. With a `selection`
        (of one trading date), it tells which days of that are not kept.

        Raises `NotFound` for a kind that there is not, or a moment before the first commit, and
        `Refused` where the selection needs rows of a past state that were retired since.
        """
        check_kind(kind)
        found = self._view(kind, as_of, page, beyond)
        return found if selection is None else self._retirements.told(found, selection, day)

    def _view(self, kind: str, as_of: str | None, page: Page | None, beyond: Pin | None) -> View:
        if page is not None and not page.pin.ranges:
            snapshot = self.lake.table(kind).snapshot()
            snapshot.check_past(page.pin.sequence)
            if beyond is not None:
                snapshot.check_past(beyond.sequence)
            return replace(self._history(snapshot, page.pin), beyond=beyond)
        if as_of is not None:
            commit = self.commit_of(kind, as_of)
            snapshot = self.lake.table(kind).snapshot()
            snapshot.check_past(commit)
            return self._history(snapshot, page.pin if page else Pin(commit))
        pinned = self.tail.pin(kind)
        if page is not None:
            pinned.snapshot.check_past(page.pin.sequence)
        if beyond is not None:
            pinned.snapshot.check_past(beyond.sequence)
        view = replace(
            self._history(pinned.snapshot, page.pin if page else None),
            tail=pinned.rows if pinned.rows.num_rows else None,
            ranges=tuple(self._ranges(pinned)),
            beyond=beyond,
        )
        if view.tail is None:
            return view
        return replace(view, exchanges={**self._declared(kind), **view.exchanges})

    def corrections(self, *, as_of: str | None = None, pin: Pin | None = None) -> View | None:
        """The corrections of trades, at the same moment as these: as of a past one, at a `pin`, or
        now with the tail. None where there was none yet.
        """
        if pin is not None and not pin.sequence and not pin.ranges:
            return None
        if not self._is_corrected:
            there = self.lake.has("corrections") and self.lake.table("corrections").snapshot()
            if not (there and there.sequence) and not self._topics_of("corrections"):
                return None
            self._is_corrected = True
        page = None if pin is None else Page(pin, ())
        if as_of is None:
            return self.view("corrections", page=page)
        try:
            commit = self.commit_of("corrections", as_of, zones_of="trades")
        except NotFound:
            return None
        snapshot = self.lake.table("corrections").snapshot()
        snapshot.check_past(commit)
        return self._history(snapshot, pin or Pin(commit))

    def known_at(self, kind: str, text: str) -> datetime:
        """The time that is meant by which records of this kind were known.

        Raises `BadInput` for text that is none, that is yet to come, or a kind of which it is not
        kept when they were known.
        """
        if kind not in KNOWN_KINDS:
            raise BadInput(f"when {kind} were known is not kept", expected=", ".join(KNOWN_KINDS))
        check_text("a time", text)
        return self._past(kind, parse_when(text, self.clock()), text)

    def views(self, *, as_of: str | None = None) -> dict[str, View]:
        """A view of each kind that there is anything of; as of a moment, of those that had begun.

        Raises `NotFound` for a moment, tag or id that no kind has.
        """
        there = [kind for kind in RECORD_TABLES if self.lake.has(kind) or self._topics_of(kind)]
        found: dict[str, View] = {}
        missing: NotFound | None = None
        for kind in there:
            try:
                found[kind] = self.view(
                    kind, as_of=as_of, selection=None if as_of is None else Selection()
                )
            except NotFound as error:
                if as_of is None:
                    raise
                missing = error
        if missing is not None and not found:
            raise missing
        return found

    def ledger(self, name: str) -> Source | pa.Table:
        """The entries of a ledger, with those that no commit of its own has taken yet.

        Raises `NotFound` for a name that is no ledger's.
        """
        if name not in LEDGERS:
            raise NotFound(f"there is no ledger called {name!r}", expected=", ".join(LEDGERS))
        if name == "commits":
            parts = [self.commits(kind) for kind in RECORD_TABLES]
            return pa.concat_tables(parts)
        files = self.lake.ledger_files(name)
        return Source(columns=definition(name).arrow, files=tuple(file.path for file in files))

    def commits(self, kind: str) -> pa.Table:
        """Every commit of a kind, oldest first, and its tags, as plain columns."""
        check_kind(kind)
        schema = definition("commits").arrow
        rows = self.lake.commits_of(kind) if self.lake.has(kind) else schema.empty_table()
        return rows.select(schema.names).cast(plain_schema(schema))

    def exchange(self, name: str) -> Exchange:
        """The exchange as it was declared in the log. Raises `NotFound`."""
        declared = self.log.latest(EXCHANGES_TOPIC)
        if name not in declared:
            known = ", ".join(sorted(declared)) or None
            raise NotFound(f"there is no exchange called {name!r}", expected=known)
        return Exchange.from_json(declared[name])

    def lag_messages(self, views: Iterable[View]) -> int:
        """Messages in the log that no snapshot of these views' tables has committed."""
        lag = 0
        for view in views:
            for name in self._topics_of(view.table):
                done = view.offsets.get(name, {})
                for partition, end in enumerate(self.log.end_offsets(name)):
                    first = done.get(partition)
                    lag += end - (
                        self.log.start_offset(name, partition) if first is None else first
                    )
        return lag

    def last_commit(self, kind: str, as_of: str | None = None, zones_of: str | None = None) -> int:
        """The newest commit of a kind, or the one that `as_of` means (see `commit_of`); 0 where
        nothing was ever committed. Raises `NotFound` for what is none.
        """
        check_kind(kind)
        if not self.lake.has(kind):
            return 0
        if as_of is None:
            return self.lake.table(kind).snapshot().sequence
        return self.commit_of(kind, as_of, zones_of)

    def committed(self, kind: str, number: int) -> Committed:
        """What is known of a commit (see `k2.query.commits`)."""
        return read_commit(self.lake, kind, number)

    def shed(self, kind: str, exchanges: Sequence[str] = ()) -> list[ShedRange]:
        """What was left in the log under overload and is not brought in yet, of these exchanges."""
        if not self.lake.has(kind):
            return []
        return [
            each
            for each in self.lake.table(kind).snapshot().shed
            if not exchanges or each.topic.rsplit(".", 1)[-1] in exchanges
        ]

    def levels(self) -> list[WriterLevel]:
        """How overloaded each writer that runs is."""
        return levels(self.log, self.clock())

    def _topics_of(self, kind: str) -> dict[str, int]:
        """The log's topics of a kind, and how many partitions each has."""
        parsed = {name: (Topic.parse(name), count) for name, count in self.log.topics().items()}
        return {n: count for n, (topic, count) in parsed.items() if topic and topic.kind == kind}

    def now(self) -> datetime:
        """What the clock says."""
        return self.clock()

    def commit_of(self, kind: str, as_of: str, zones_of: str | None = None) -> int:
        """The commit of a time, a tag or a snapshot id; a date is read in the zone of the exchanges
        that have records of kind `zones_of`. Raises `NotFound` for what is none.
        """
        check_text("an as-of time", as_of)
        if as_of.isdecimal() and int(as_of) >= 2**63:
            raise NotFound(
                f"there is no snapshot {as_of}", hint="`snapshots` lists those there are"
            )
        try:
            return self.lake.resolve_as_of(kind, self.moment_of(zones_of or kind, as_of))
        except OverflowError as error:
            raise BadInput(
                f"{as_of!r} is no time that can be", expected="2014-03-10T23:00:00Z"
            ) from error

    def moment_of(self, kind: str, as_of: str) -> datetime | str:
        """The time that is meant, a date being the midnight at its exchange; else an id or tag."""
        try:
            when = parse_when(as_of, self.clock())
        except BadInput:
            # Whether it is a tag is for the lake to say.
            return as_of
        return self._past(kind, when, as_of)

    def _past(self, kind: str, when: datetime | date, text: str) -> datetime:
        """The time that has been, a date being the midnight at the exchange of such records."""
        if not isinstance(when, datetime):
            zones = {e.zone for e in self.lake.table(kind).snapshot().exchanges.values()}
            if len(zones) != 1:
                raise BadInput(
                    f"{text} begins at different times at different exchanges",
                    expected=f"a time with a zone, such as {text}T00:00:00Z",
                )
            when = datetime.combine(when, time(), ZoneInfo(zones.pop()))
        if when > self.clock():
            raise BadInput(
                f"{text} is yet to come: what K2 will hold by then is not known",
                hint="without it, the answer is the newest",
            )
        return when

    def _history(self, snapshot: Snapshot, pin: Pin | None) -> View:
        of = definition(snapshot.table)
        assert of.time is not None
        return View(
            table=snapshot.table,
            columns=of.arrow,
            time=of.time,
            index=snapshot.files,
            sequence=snapshot.sequence,
            snapshot_id=snapshot.snapshot_id,
            committed_at=snapshot.committed_at,
            offsets={topic: of.next_offset for topic, of in snapshot.offsets.items()},
            exchanges=snapshot.exchanges,
            pin=pin,
            shed=sum(each.records for each in snapshot.shed),
            rollups=self._rollups_of(snapshot.table),
            hot=self._hot.get(snapshot.table),
            copies=self._copies if snapshot.table in _MANY else None,
            left=tuple(
                LogRange(s.topic, s.log_id, s.partition, s.first_offset, s.end_offset)
                for s in snapshot.shed
            ),
            # Asked after the snapshot was taken: a schema added meanwhile costs time, no more.
            evolved=len(self.lake.table(snapshot.table).head().metadata["schemas"]) > 1,
            retirement=snapshot.retired.commit,
        )

    def keep_hot(self, most_rows: int) -> None:
        """Keep the newest trades and quotes of symbols that are asked for in memory, so many."""
        self._hot = {kind: Hot(most_rows) for kind in _MANY}

    def keep_decoded(self, copies: Copies) -> None:
        """Have the files of trades and quotes read from these copies, where there are any."""
        self._copies = copies

    def _rollups_of(self, kind: str) -> Rollups | None:
        if kind == "trades" and self._rollups is None:
            self._rollups = Rollups(folder_of(self.lake.table(kind)))
        return self._rollups if kind == "trades" else None

    def _ranges(self, pinned: Pinned) -> list[LogRange]:
        """The offsets that the tail holds."""
        found = []
        for topic, partitions in sorted(pinned.offsets.items()):
            committed = pinned.snapshot.offsets.get(topic)
            for partition, end in sorted(partitions.items()):
                first = committed.next_offset.get(partition, 0) if committed else 0
                if first < end:
                    log_id = committed.log_id if committed else self.log.identity(topic)
                    found.append(LogRange(topic, log_id, partition, first, end))
        return found

    def _declared(self, kind: str) -> Mapping[str, Exchange]:
        """The exchanges that have a topic of this kind, as they were declared in the log."""
        mine = {name.rsplit(".", 1)[-1] for name in self._topics_of(kind)}
        declared = self.log.latest(EXCHANGES_TOPIC)
        return {n: Exchange.from_json(declared[n]) for n in sorted(mine & declared.keys())}

    def close(self) -> None:
        """Let go of log, registry and lake."""
        self._stack.close()


def check_kind(kind: str) -> None:
    """Raises `NotFound` unless there is a table of such records."""
    if kind not in RECORD_TABLES:
        raise NotFound(f"there are no records called {kind!r}", expected=", ".join(RECORD_TABLES))
