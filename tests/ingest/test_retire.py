"""Retention: exactly what the rules name goes, whatever else happens meanwhile, and stays away."""

import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.errors import Refused
from k2.ingest import (
    Wanted,
    Writer,
    WriterOptions,
    audit,
    keep_verified,
    read_verified,
    rebuild,
)
from k2.lake import maintain, open_lake
from k2.lake.catalog import Catalog
from k2.query import Selection, Wish, open_reader, pins
from tests.ingest.retiring import DAY, TIER, Hold, Plain, at_noon, fates, keep_of, retire, unit
from tests.query.make import Row, random_trades, trade
from tests.query.rewriting import compact, rows_of
from tests.query.test_reader import Market

ALL = "[trades]\ntier_1 = 1\ntier_2 = 1\ntier_3 = 1\n"
STEPS = ("write", "absorb", "commit", "before swap", "after swap", "answer", "let go")


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


def some(seed: int, count: int, *, days: int = 3, first: int = 0) -> list[Row]:
    """Trades of so many days, two exchanges and three symbols."""
    return random_trades(
        seed, count, exchanges=("sim", "ASX"), start=at_noon(first), span=days * DAY, ties=1
    )


def ids(market: Market) -> list[str]:
    """Every row's id, read from the files as a stranger would."""
    files = market.lake.table("trades").snapshot().files.select()
    return sorted(id_ for file in files for id_ in ids_in(file.path))


def ids_in(path: str) -> list[str]:
    found: list[str] = pq.ParquetFile(path).read(["trade_id"])["trade_id"].to_pylist()
    return found


def content(market: Market) -> pa.Table:
    """Every row whole, but for where it stands: its commit is written out."""
    table = market.lake.table("trades")
    parts = [rows_of(table, file) for file in table.snapshot().files.select()]
    rows = pa.concat_tables([table.definition.arrow.empty_table(), *parts]).unify_dictionaries()
    plain = [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in rows.schema]
    order = [(name, "ascending") for name in ("log_topic", "log_partition", "log_offset")]
    return rows.cast(pa.schema(plain)).sort_by(order).combine_chunks()


# ------------------------------------------------------------------------------- by chance


class Course:
    """One random course of things, in the market and in plain Python."""

    def __init__(self, seed: int, market: Market) -> None:
        self.chance = random.Random(seed)
        self.market = market
        self.plain = Plain()
        self.sent: list[Row] = []
        self.now = at_noon(4)
        self.states: dict[str, frozenset[str]] = {}
        """Which ids were there at a snapshot."""

    def append(self) -> None:
        rows = some(self.chance.randrange(1 << 30), self.chance.randrange(1, 40), days=6)
        self.market.append(rows)
        self.sent += rows
        self.plain.waiting += rows

    def again(self) -> None:
        if self.sent:
            rows = [dict(row) for row in self.chance.sample(self.sent, min(len(self.sent), 20))]
            self.market.append_again(rows)
            self.plain.waiting += sorted(rows, key=lambda row: row["exchange"])

    def commit(self) -> None:
        self.market.commit()
        self.plain.commit()
        head = self.market.lake.table("trades").snapshot()
        if head.snapshot_id is not None:
            self.states[str(head.snapshot_id)] = frozenset(self.plain.rows)

    def retire(self) -> None:
        self.now += self.chance.randrange(0, 30) * timedelta(hours=1)
        days: dict[tuple[str, int], int] = {}
        lines = []
        for kind, exchanges in (("trades", ("sim", "ASX")), ("trades.ASX", ("ASX",))):
            lines.append(f"[{kind}]")
            for tier in (1, 2, 3):
                many = self.chance.choice([None, None, 1, 2, 3, 5, "forever"])
                if many is None:
                    continue
                lines.append(f"tier_{tier} = " + (f'"{many}"' if many == "forever" else f"{many}"))
                for exchange in exchanges:
                    days.pop((exchange, tier), None)
                    if isinstance(many, int):
                        days[exchange, tier] = many
        keep = keep_of(self.market.folder, "\n".join(lines))
        if not keep.retires("trades") or not self.states:
            return
        dry = retire(self.market, keep, self.now, dry_run=True)
        done = retire(self.market, keep, self.now)
        assert (dry.rows, dry.lots, dry.held) == (done.rows, done.lots, done.held)
        assert done.rows == self.plain.retire(days, self.now)
        assert retire(self.market, keep, self.now).rows == 0

    def compact(self) -> None:
        if self.states:
            compact(self.market.lake.table("trades"), buckets=self.chance.random() < 0.5)

    def pin(self) -> None:
        if not self.states:
            return
        name = f"pin{len(self.plain.holds)}"
        symbols = self.chance.choice([(), ("A",), ("B", "C")])
        exchanges = self.chance.choice([(), ("ASX",)])
        start = self.chance.choice([None, at_noon(1)])
        end = self.chance.choice([None, at_noon(3)])
        with open_reader(self.market.folder) as reader:
            try:
                wish = Wish(name, "trades", Selection(symbols, exchanges, start, end))
                reader.pins.create(wish)
            except Refused:  # never: a pin is of the newest state
                pytest.fail("the newest state cannot be pinned")
        hold = Hold(frozenset(symbols), frozenset(exchanges), start, end)
        self.plain.holds[name] = hold

    def unpin(self) -> None:
        standing = [name for name in sorted(self.plain.holds) if not self._is_gone(name)]
        if standing:
            name = self.chance.choice(standing)
            with open_reader(self.market.folder) as reader:
                reader.pins.remove(name)
            self.plain.holds[name] = Hold(frozenset("-"), frozenset(), None, None)

    def rebuild(self) -> None:
        if self.states:
            rebuild(self.market.log, self.market.registry, self.market.lake, Wanted("trades"))

    def check(self) -> None:
        """Tables, audit, answers and pins are as they must be."""
        assert ids(self.market) == sorted(self.plain.rows)
        sums = fates(self.market)
        assert sums["committed"] == len(self.plain.rows)
        assert sums["retired"] == self.plain.retired
        assert sums["duplicate"] == self.plain.duplicates
        assert sums["in_flight"] == len(self.plain.waiting)
        with open_reader(self.market.folder) as reader:
            coming = Plain(dict(self.plain.rows), list(self.plain.waiting), set(self.plain.closed))
            coming.commit()
            seen = reader.records("trades", Selection()).table["trade_id"].to_pylist()
            assert sorted(seen) == sorted(coming.rows)
            pins = [name for name in self.plain.holds if not self._is_gone(name)]
            verified = reader.pins.verify(pins)
            assert verified["ok"].to_pylist() == [True] * len(pins), verified.to_pylist()

    def check_past(self) -> None:
        """A past state is answered as it was, or refused where it had rows that went since."""
        with open_reader(self.market.folder) as reader:
            for state, there in self.states.items():
                is_whole = there <= self.plain.rows.keys()
                try:
                    seen = reader.records("trades", Selection(), as_of=state).table
                    assert is_whole
                    assert sorted(seen["trade_id"].to_pylist()) == sorted(there)
                except Refused:
                    assert not is_whole
                of_one = {i for i in there if self._row(i)["symbol"] == "A"}
                try:
                    seen = reader.records("trades", Selection(("A",)), as_of=state).table
                    assert sorted(seen["trade_id"].to_pylist()) == sorted(of_one)
                except Refused:
                    assert not is_whole
                else:
                    assert of_one <= self.plain.rows.keys()

    def _row(self, id_: str) -> Row:
        return next(row for row in self.sent if row["trade_id"] == id_)

    def _is_gone(self, name: str) -> bool:
        return self.plain.holds[name].symbols == frozenset("-")


ACTIONS = (
    *("append", "append", "append", "again", "commit", "commit", "commit"),
    *("retire", "retire", "compact", "pin", "unpin", "rebuild"),
)


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(n, marks=pytest.mark.slow) for n in range(5, 25))]
)
def test_exactly_what_the_rules_name_goes(market: Market, seed: int) -> None:
    course = Course(seed, market)
    course.append()
    course.commit()
    for _ in range(14):
        getattr(course, course.chance.choice(ACTIONS))()
        course.check()
    course.commit()
    course.retire()
    course.check()
    course.check_past()


# ------------------------------------------------------------------------------- one by one


def test_rows_that_stay_are_the_same_rows(market: Market, tmp_path: Path) -> None:
    for seed in range(3):
        market.append(some(seed, 60))
        market.commit()
    compact(market.lake.table("trades"))
    before = content(market)
    keep = keep_of(tmp_path, "[trades]\ntier_3 = 1\n[trades.ASX]\ntier_2 = 1\ntier_3 = 'forever'")
    done = retire(market, keep, at_noon(9))
    assert done.commits == 1
    assert {(lot.exchange, lot.tier, lot.rule) for lot in done.lots} == {
        ("sim", 3, "[trades] tier_3 = 1"),
        ("ASX", 2, "[trades.ASX] tier_2 = 1"),
    }
    pairs = zip(before["exchange"].to_pylist(), before["symbol"].to_pylist(), strict=True)
    stays = [pair not in (("sim", "C"), ("ASX", "B")) for pair in pairs]
    assert done.rows == stays.count(False) > 0
    assert content(market).equals(before.filter(pa.array(stays)))


def test_nothing_goes_without_a_rule_or_before_its_time(market: Market, tmp_path: Path) -> None:
    market.append([trade("C", at_noon(0), "1"), trade("C", at_noon(1), "1")])
    market.commit()
    keep = keep_of(tmp_path, "[trades]\ntier_3 = 2\n")
    midnight = datetime.combine(date(2024, 3, 7), datetime.min.time(), at_noon(0).tzinfo)
    # Two whole days behind the one that goes on, which counts as over an hour after its end.
    assert retire(market, keep, midnight + timedelta(minutes=59)).rows == 0
    assert retire(market, keep, midnight + timedelta(minutes=60)).rows == 1
    assert len(ids(market)) == 1


def test_what_was_retired_and_comes_again_is_not_kept(market: Market, tmp_path: Path) -> None:
    with_id = [trade("C", at_noon(0), str(n + 1)) for n in range(5)]
    market.append(with_id)
    market.commit()
    content_only = [trade("D", at_noon(0), str(n + 1), occurrence=0) for n in range(5)]
    market.append(content_only)
    market.commit()
    assert retire(market, keep_of(tmp_path, ALL), at_noon(9)).rows == 10
    # What is kept of identities beside the table is lost as well.
    for folder in ("marks", "sequences"):
        for path in (tmp_path / "lake/tables/trades" / folder).glob("*"):
            path.unlink()
    market.append_again([dict(row) for row in (*with_id, *content_only)])
    market.append([trade("C", at_noon(0), "77"), trade("E", at_noon(0), "78")])
    with open_reader(tmp_path) as reader:
        answer = reader.records("trades", Selection())
    assert answer.table["symbol"].to_pylist() == ["E"]
    market.commit()
    sums = fates(market)
    assert (sums["committed"], sums["retired"], sums["duplicate"]) == (1, 21, 0)
    events = market.lake.ledger_files("retired")
    rows = pa.concat_tables([pq.ParquetFile(file.path).read() for file in events]).to_pylist()
    late = [row for row in rows if row["event"] == "late"]
    assert sum(row["records"] for row in late) == 11
    assert all(row["rule"] is None and row["commit"] is None for row in late)


def test_an_audit_goes_on_where_the_last_one_ended(market: Market, tmp_path: Path) -> None:
    market.append(some(1, 50))
    market.commit()
    keep_verified(market.lake, audit(market.log, market.lake).verified)
    gone = retire(market, keep_of(tmp_path, ALL), at_noon(9)).rows
    assert gone == 50
    market.append_again([dict(row) for row in some(1, 50)])
    market.append(some(2, 10, first=20))
    market.commit()
    found = audit(market.log, market.lake, verified=read_verified(market.lake))
    assert found.ok
    assert sum(part.committed for part in found.partitions) == 10


def test_a_row_that_vanishes_otherwise_is_missed(market: Market, tmp_path: Path) -> None:
    """The ledger excuses what it names and nothing else."""
    market.append(some(1, 50))
    market.commit()
    retire(market, keep_of(tmp_path, "[trades]\ntier_3 = 1\n"), at_noon(9))
    table = market.lake.table("trades")
    file = table.snapshot().files.select()[0]
    table.replace([file.path], [])
    found = audit(market.log, market.lake)
    assert not found.ok
    assert any("neither row nor ledger" in (part.problem or "") for part in found.partitions)


class KilledError(BaseException):
    """In place of SIGKILL: nothing is tidied up that an exception would not reach."""


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_all_or_nothing_has_happened(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = Market(tmp_path)
    for seed in range(3):
        market.append(some(seed, 60))
        market.commit()
    before = set(ids(market))
    keep = keep_of(tmp_path, "[trades]\ntier_2 = 1\ntier_3 = 1\n")
    swap = Catalog.swap

    def killed(name: str) -> None:
        if name == step:
            raise KilledError

    def swap_in_steps(self: Catalog, table: str, *rest: object) -> bool:
        if table == "trades":
            killed("before swap")
        done = swap(self, table, *rest)  # type: ignore[arg-type]
        if table == "trades":
            killed("after swap")
        return done

    monkeypatch.setattr(Catalog, "swap", swap_in_steps)
    with pytest.raises(KilledError):
        retire(market, keep, at_noon(9), killed)
    monkeypatch.setattr(Catalog, "swap", swap)
    market.close()

    market = Market(tmp_path)
    left = set(ids(market))
    due = {row for row in before if row not in left}
    assert fates(market)["retired"] == len(due)
    assert (not due) == (step in ("write", "absorb", "commit", "before swap"))
    retire(market, keep, at_noon(9))
    with open_reader(tmp_path) as reader:
        symbols = reader.records("trades", Selection()).table["symbol"].unique().to_pylist()
    assert symbols == ["A"]
    sums = fates(market)
    assert sums["committed"] + sums["retired"] == 180
    # What was left behind goes, and what was retired is not on the disk any more.
    for name in market.lake.tables():
        maintain(market.lake, name, after=timedelta(0))
        maintain(market.lake, name, after=timedelta(0))
    on_disk = list((tmp_path / "lake/tables/trades/data").rglob("*.parquet"))
    there = {id_ for path in on_disk for id_ in ids_in(str(path))}
    assert there == set(ids(market))
    assert fates(market) == sums
    market.close()


def test_others_that_commit_meanwhile_are_not_overrun(market: Market, tmp_path: Path) -> None:
    market.append(some(1, 40))
    market.commit()
    keep = keep_of(tmp_path, ALL)

    def late(step: str) -> None:
        if step == "commit":
            market.append([trade("C", at_noon(1), "9")])
            market.commit()

    # A record came to a day that was to go: the next call takes it along.
    assert retire(market, keep, at_noon(9), late).rows == 0
    assert fates(market)["committed"] == 41
    assert retire(market, keep, at_noon(9)).rows == 41

    market.append(some(2, 40, first=12))
    market.commit()

    def compacted(step: str) -> None:
        if step == "commit":
            compact(market.lake.table("trades"), buckets=False)

    assert retire(market, keep, at_noon(20), compacted).rows == 0
    assert retire(market, keep, at_noon(20)).rows == 40
    assert fates(market)["retired"] == 81


def test_a_writer_decides_anew_what_it_had_not_committed(market: Market, tmp_path: Path) -> None:
    market.append(some(1, 40))
    market.commit()
    market.append([trade("C", at_noon(0), "9"), trade("C", at_noon(30), "10")])
    done: list[int] = []

    def meanwhile(step: str) -> None:
        if step == "commit" and not done:
            done.append(retire(market, keep_of(tmp_path, ALL), at_noon(9)).rows)

    writer = Writer(
        market.log,
        market.registry,
        market.lake,
        WriterOptions(skew=timedelta(minutes=5)),
        on_step=meanwhile,
    )
    writer.run(lambda: False, until_caught_up=True)
    assert done == [40]
    sums = fates(market)
    assert (sums["committed"], sums["retired"]) == (1, 41)


def test_a_pin_that_is_made_meanwhile_is_heeded(market: Market, tmp_path: Path) -> None:
    market.append(some(1, 40))
    market.commit()
    keep = keep_of(tmp_path, ALL)
    with open_reader(tmp_path) as reader:

        def pin(step: str) -> None:
            if step == "commit":
                reader.pins.create(Wish("study", "trades", Selection(("C",), ("sim",))))

        assert retire(market, keep, at_noon(9), pin).rows == 0
        done = retire(market, keep, at_noon(9))
        (held,) = done.held
        assert (held.pins, held.exchange, held.tier) == (("study",), "sim", 3)
        assert done.rows + held.rows == 40
        assert reader.pins.verify(["study"])["ok"].to_pylist() == [True]
        reader.pins.remove("study")
        assert retire(market, keep, at_noon(9)).rows == held.rows


def test_a_pin_of_rows_that_went_meanwhile_is_taken_back(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.append(some(1, 40))
    market.commit()
    keep = keep_of(tmp_path, ALL)
    kept = pins.keep_pin  # type: ignore[attr-defined]

    def overtaken(lake: object, dataset: object) -> object:
        retire(market, keep, at_noon(9))
        return kept(lake, dataset)  # type: ignore[arg-type]

    monkeypatch.setattr(pins, "keep_pin", overtaken)
    with open_reader(tmp_path) as reader:
        with pytest.raises(Refused, match="retired since"):
            reader.pins.create(Wish("study", "trades", Selection(("C",))))
        assert reader.pins.standing() == []


def test_old_snapshots_are_let_go_of_at_once(market: Market, tmp_path: Path) -> None:
    for seed in range(4):
        market.append(some(seed, 20))
        market.commit()
    retire(market, keep_of(tmp_path, "[trades]\ntier_3 = 1\n"), at_noon(9))
    table = market.lake.table("trades")
    retired = table.snapshot().retired.commit
    kept = [s["sequence-number"] for s in table.head().metadata["snapshots"]]
    assert min(kept) >= retired
    lake = open_lake(tmp_path / "lake", read_only=True)
    commits = lake.commits_of("trades")
    lake.close()
    assert commits["commit"].to_pylist() == list(range(1, table.snapshot().sequence + 1))
    assert sum(1 for rows in commits["rows"].to_pylist() if rows < 0) == 1


def test_what_is_retired_is_told_by_tier(market: Market, tmp_path: Path) -> None:
    rows = some(1, 80)
    market.append(rows)
    market.commit()
    done = retire(market, keep_of(tmp_path, ALL), at_noon(9))
    for lot in done.lots:
        mine = [
            row
            for row in rows
            if row["exchange"] == lot.exchange and TIER.get(row["symbol"], 3) == lot.tier
        ]
        assert lot.rows == len(mine)
        days = {row["exchange_date"] for row in mine}
        assert (lot.days, lot.first_day, lot.last_day) == (len(days), min(days), max(days))
        assert lot.symbols == len({row["symbol"] for row in mine})
    files = market.lake.ledger_files("retired")
    entries = pa.concat_tables([pq.ParquetFile(file.path).read() for file in files]).to_pylist()
    assert sum(entry["records"] for entry in entries) == 80
    units = {unit(row) for row in rows}
    assert len({(e["exchange"], e["exchange_date"]) for e in entries}) == len(
        {(exchange, day) for exchange, day, _ in units}
    )
    assert {entry["commit"] for entry in entries} == {
        market.lake.table("trades").snapshot().retired.commit
    }
