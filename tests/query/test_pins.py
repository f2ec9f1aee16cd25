"""Pinned datasets come back value for value, whatever happens to the tables; or say that they
do not.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from k2.errors import BadInput, Broken, NotFound, Refused, Unavailable
from k2.ingest import Wanted, rebuild
from k2.lake import Column, definition, maintain, open_lake
from k2.lake.compact import Job
from k2.lake.compact import compact as settle
from k2.log import Producer
from k2.model import latest
from k2.query import Past, Reader, Selection, Wish, open_reader, parse_conditions
from k2.query.digest import digest_of
from k2.query.pins import VERDICTS
from tests.query.make import EXCHANGES, Row, random_trades
from tests.query.rewriting import compact, rows_of
from tests.query.test_reader import Market

NOW = datetime(2026, 11, 24, tzinfo=UTC)
FIRST_DAY = datetime(2024, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(market: Market) -> Iterator[Reader]:
    with open_reader(market.folder, clock=lambda: NOW) as opened:
        yield opened


def some(seed: int, count: int = 80, *, day: int = 0) -> list[Row]:
    start = FIRST_DAY + timedelta(days=day)
    return random_trades(seed, count, exchanges=("sim", "ASX"), start=start, ties=5)


def verdict(reader: Reader, name: str) -> dict[str, object]:
    table = reader.pins.verify([name])
    assert table.schema == VERDICTS
    row: dict[str, object] = table.to_pylist()[0]
    return row


def bust(market: Market, row: Row, when: datetime) -> None:
    """The venue takes a trade back."""
    schema = latest("corrections").arrow
    values = {
        "symbol": row["symbol"],
        "exchange": row["exchange"],
        "timestamp": when,
        "action": "BUST",
        "trade_id": row["trade_id"],
        "target_timestamp": row["timestamp"],
        "ingestion_timestamp": when,
        "id_space": "",
        "timestamp_nanos": 0,
        "occurrence": 0,
        "source": "test",
    }
    plain = [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]
    table = pa.Table.from_pylist([values], schema=pa.schema(plain)).cast(schema)
    producer = Producer(market.log, market.registry, 1)
    producer.send(EXCHANGES[row["exchange"]], "corrections", table)


def test_a_pin_comes_back_after_everything_that_may_happen(market: Market, reader: Reader) -> None:
    for seed in range(3):
        market.append(some(seed))
        market.commit()
    wishes = {
        "all": Wish("all", "trades"),
        "one": Wish("one", "trades", Selection(("A",), ("sim",))),
        "some": Wish("some", "trades", Selection(where=parse_conditions(["price>=0.5"]))),
        "hour": Wish("hour", "trades", Selection(start=FIRST_DAY + HOUR, end=FIRST_DAY + 2 * HOUR)),
        "past": Wish("past", "trades", past=Past(as_of=_snapshot(reader, 2))),
        "prices": Wish("prices", "trades", fields=("price", "log_offset", "exchange_date")),
    }
    pinned = {name: reader.pins.create(wish)[0] for name, wish in wishes.items()}
    rows = {name: reader.pins.records(name, "trades").table for name in wishes}
    assert rows["all"].num_rows == 240 == pinned["all"].rows
    assert rows["past"].num_rows == 160
    assert 0 < rows["hour"].num_rows < 240 > rows["some"].num_rows > 0

    def comes_back() -> None:
        for name, pin in pinned.items():
            found = verdict(reader, name)
            assert found["ok"], found
            assert found["found_hash"] == pin.hash
            assert reader.pins.records(name, "trades").table.equals(rows[name])

    table = market.lake.table("trades")
    market.append(some(3))  # late records, in the log alone and then committed
    comes_back()
    market.commit()
    comes_back()
    compact(table, buckets=False)
    comes_back()
    bust(market, market.appended[7], NOW - HOUR)
    comes_back()
    for kind in ("trades", "pins", "commits"):
        maintain(market.lake, kind, after=timedelta(0))
    comes_back()
    market.commit()
    comes_back()
    market.append(some(4, day=1))
    market.commit()
    assert compact(table) > 4  # into the buckets: files of another partition spec
    comes_back()
    table.set_buckets(4)
    market.append(some(5, day=2))
    market.commit()
    for (day, number), files in table.snapshot().files.by_partition().items():
        if number is None:
            assert settle(table, Job("trades", day, None, files, settles=4)) is not None
    comes_back()
    with closing(open_lake(market.folder / "lake", keep_snapshots=1)) as other:
        for name in ("trades", "commits"):
            other.absorb("trades")
            other.table(name).replace([], [])
        assert len(other.table("trades").head().metadata["snapshots"]) <= 2
    comes_back()
    for kind in ("trades", "corrections", "pins", "commits"):
        done = maintain(market.lake, kind, after=timedelta(0))
        assert done.removed.files or kind != "trades"
    comes_back()
    _evolve(market)
    comes_back()
    assert reader.records("trades", Selection()).table.num_rows == 479


def _snapshot(reader: Reader, commit: int) -> str:
    for row in reader.snapshots().table.to_pylist():
        if row["commit"] == commit:
            return str(row["snapshot_id"])
    raise AssertionError(commit)


def _evolve(market: Market) -> None:
    """A later version of K2 adds a column, and files have it from then on."""
    trades = definition("trades")
    flag = Column("venue_flag", pa.string(), False, "What a later version knows of a trade")
    with closing(open_lake(market.folder / "lake")) as later:
        table = later.table("trades", replace(trades, columns=(*trades.columns, flag)))
        file = table.snapshot().files.select()[0]
        assert file.exchange_date is not None
        rows = rows_of(table, file)
        flags = pa.array(["x"] * rows.num_rows)
        rows = rows.set_column(rows.schema.get_field_index("venue_flag"), "venue_flag", flags)
        table.replace([file.path], [table.write(rows, file.exchange_date)])
        assert "venue_flag" in table.snapshot().field_ids


def test_the_hash_is_of_the_rows_as_they_were_pinned(market: Market, reader: Reader) -> None:
    market.append(some(1))
    market.commit()
    pin, _ = reader.pins.create(Wish("all", "trades"))
    rows = reader.records("trades", Selection()).table
    assert pin.hash == digest_of(rows, rows.column_names).hexdigest()
    days = json.loads(pin.days)
    assert sum(days.values()) == 80
    assert list(days) == sorted(days)
    assert pin.pinned_at == NOW


def test_only_what_is_committed_is_pinned_and_the_rest_is_told(
    market: Market, reader: Reader
) -> None:
    with pytest.raises(NotFound, match="nothing was committed"):
        reader.pins.create(Wish("none", "trades"))
    market.append(some(1))
    market.commit()
    market.append(some(2, 30))
    pin, notes = reader.pins.create(Wish("all", "trades"))
    assert pin.rows == 80
    assert [note for note in notes if "30 trades in the log are not committed" in note]
    assert json.loads(pin.offsets)["market.crypto.trades.sim"]["log_id"]


def test_corrections_count_up_to_the_pin(market: Market, reader: Reader) -> None:
    market.append(some(1))
    market.commit()
    before, _ = reader.pins.create(Wish("before", "trades"))
    bust(market, market.appended[3], NOW - 2 * HOUR)
    market.commit()
    after, _ = reader.pins.create(Wish("after", "trades"))
    known, _ = reader.pins.create(
        Wish("known", "trades", past=Past(as_known_at=(NOW - 3 * HOUR).isoformat()))
    )
    history, _ = reader.pins.create(Wish("history", "trades", past=Past(history=True)))
    assert [p.rows for p in (before, after, known, history)] == [80, 79, 80, 80]
    assert [p.corrections_commit for p in (before, after)] == [0, 1]
    assert before.hash == known.hash != after.hash
    for row in market.appended[4:9]:
        bust(market, row, NOW - HOUR)
    market.commit()
    names = ["before", "after", "known", "history"]
    assert reader.pins.verify(names)["ok"].to_pylist() == [True] * 4
    assert reader.records("trades", Selection()).table.num_rows == 74
    corrections, _ = reader.pins.create(Wish("corrections", "corrections"))
    assert (corrections.rows, corrections.corrections_commit) == (6, None)
    assert verdict(reader, "corrections")["ok"]


def test_the_same_again_changes_nothing_and_a_name_is_given_once(
    market: Market, reader: Reader
) -> None:
    market.append(some(1))
    market.commit()
    wish = Wish("mine", "trades", Selection(("A",)), author="ada", note="a study")
    first, _ = reader.pins.create(wish)
    again, _ = reader.pins.create(replace(wish, author="bob", note=None))
    assert again == first
    assert (again.author, again.note) == ("ada", "a study")
    with pytest.raises(Refused, match="taken") as caught:
        reader.pins.create(replace(wish, selection=Selection(("B",))))
    assert f"commit {first.commit}" in str(caught.value.expected)
    market.append(some(2))
    market.commit()
    with pytest.raises(Refused, match="taken"):
        reader.pins.create(wish)
    assert reader.pins.remove("mine", author="bob", note="done") == first
    with pytest.raises(NotFound):
        reader.pins.get("mine")
    assert reader.pins.create(wish)[0].rows > first.rows
    events = reader.ledger("pins").table
    assert sorted(events["event"].to_pylist()) == ["pinned", "pinned", "removed"]


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "x" * 129, "é", "a\n"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(BadInput, match="cannot name a pin"):
        Wish(name, "trades")


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (Wish("x", "trades", fields=("commit_sequence",)), "commit_sequence"),
        (
            Wish("x", "trades", Selection(where=parse_conditions(["commit_sequence<5"]))),
            "commit_sequence",
        ),
        (Wish("x", "trades", fields=("prize",)), "no column"),
        (Wish("x", "trades", past=Past(as_known_at="2126-01-01T00:00:00Z")), "yet to come"),
        (Wish("x", "splits", past=Past(as_known_at="2026-01-01T00:00:00Z")), "not kept"),
    ],
)
def test_what_cannot_be_pinned(market: Market, reader: Reader, wish: Wish, told: str) -> None:
    market.append(some(1, 5))
    market.commit()
    with pytest.raises(BadInput, match=told):
        reader.pins.create(wish)
    assert reader.pins.standing() == []


def _rewrite(market: Market, change: object) -> None:
    """Put other rows in the place of a file's, as no part of K2 does."""
    table = market.lake.table("trades")
    file = table.snapshot().files.select()[0]
    assert callable(change)
    assert file.exchange_date is not None
    written = table.write(change(rows_of(table, file)), file.exchange_date)
    table.replace([file.path], [written])


def test_rows_that_are_missing_are_told_by_their_day(market: Market, reader: Reader) -> None:
    market.append(some(1))
    market.commit()
    reader.pins.create(Wish("all", "trades"))
    _rewrite(market, lambda rows: rows.slice(3))
    found = verdict(reader, "all")
    assert (found["ok"], found["rows"], found["found_rows"]) == (False, 80, 77)
    assert "77 rows come back instead of 80: 3 are missing; of 2024-03-0" in str(found["problem"])
    with pytest.raises(Broken, match="not what was pinned"):
        reader.pins.records("all", "trades")
    # A page of it is given: only the whole has a hash.
    assert reader.pins.records("all", "trades", limit=5).table.num_rows == 5


def test_a_value_that_changed_is_told(market: Market, reader: Reader) -> None:
    market.append(some(1))
    market.commit()
    reader.pins.create(Wish("all", "trades"))
    reader.pins.create(Wish("times", "trades", fields=("timestamp",)))

    def dearer(rows: pa.Table) -> pa.Table:
        least = pa.scalar(Decimal("0.00000001"), pa.decimal128(18, 8))
        price = pc.add(rows["price"].slice(0, 1), least).cast(pa.decimal128(18, 8))
        column = pa.chunked_array([*price.chunks, *rows["price"].slice(1).chunks])
        return rows.set_column(rows.schema.get_field_index("price"), "price", column)

    _rewrite(market, dearer)
    found = verdict(reader, "all")
    assert (found["ok"], found["found_rows"]) == (False, 80)
    assert "not with the same values" in str(found["problem"])
    assert verdict(reader, "times")["ok"]


def test_a_file_that_is_gone_or_damaged_is_a_problem_of_its_pins(
    market: Market, reader: Reader
) -> None:
    market.append(some(1))
    market.commit()
    reader.pins.create(Wish("first", "trades"))
    market.append(some(2, day=5))
    market.commit()
    reader.pins.create(Wish("second", "trades", Selection(start=FIRST_DAY + timedelta(days=4))))
    file = Path(market.lake.table("trades").snapshot().files.select()[0].path)
    content = file.read_bytes()
    file.unlink()
    found = reader.pins.verify(["first", "second"]).to_pylist()
    assert [row["ok"] for row in found] == [False, True]
    assert found[0]["problem"]
    assert found[0]["found_hash"] is None
    file.write_bytes(content)
    assert verdict(reader, "first")["ok"]


def test_pages_of_a_pin_are_the_pin(market: Market, reader: Reader) -> None:
    market.append(some(1))
    market.commit()
    reader.pins.create(Wish("all", "trades"))
    market.append(some(2))
    market.commit()
    whole = reader.pins.records("all", "trades").table
    pages: list[pa.Table] = []
    after: str | None = None
    while not pages or after is not None:
        answer = reader.pins.records("all", "trades", limit=13, after=after)
        pages.append(answer.table)
        after = answer.next
    assert pa.concat_tables(pages).equals(whole)
    assert len(pages) == 7
    assert reader.pins.records("all", "trades", last=4).table.equals(whole.slice(76))
    with pytest.raises(BadInput, match="other records"):
        reader.pins.records("all", "quotes")
    reader.pins.create(Wish("other", "trades"))
    with pytest.raises(BadInput, match="page token"):
        reader.pins.records("other", "trades", limit=13, after=_next(reader))


def _next(reader: Reader) -> str:
    found = reader.pins.records("all", "trades", limit=13).next
    assert found is not None
    return found


def test_a_pin_of_a_newer_version_is_not_called_wrong(market: Market, reader: Reader) -> None:
    market.append(some(1))
    market.commit()
    pin, _ = reader.pins.create(Wish("all", "trades"))
    from k2.lake import keep_pin

    keep_pin(market.lake, replace(pin, name="newer", hash_definition=2))
    found = verdict(reader, "newer")
    assert found["ok"] is False
    assert "another form" in str(found["problem"])
    with pytest.raises(Refused, match="another form"):
        reader.pins.records("newer", "trades")


def test_pins_without_a_ledger(reader: Reader) -> None:
    assert reader.pins.standing() == []
    with pytest.raises(NotFound, match="no pin called 'x'"):
        reader.pins.verify(["x"])


def test_a_pin_of_nothing_is_a_pin(market: Market, reader: Reader) -> None:
    market.append(some(1, 5))
    market.commit()
    pin, _ = reader.pins.create(Wish("none", "trades", Selection(("NONE",))))
    assert (pin.rows, pin.days) == (0, "{}")
    assert verdict(reader, "none")["ok"]


def test_a_stranger_finds_the_hash_from_the_files(market: Market, reader: Reader) -> None:
    """The ledger and the definition are enough: without K2's queries."""
    market.append(some(1, 30))
    market.commit()
    market.append(some(2, 30))
    market.commit()
    pin, _ = reader.pins.create(Wish("all", "trades"))
    files = market.lake.table("trades").snapshot().files.select()
    names = [name for name, _ in json.loads(pin.fields)]
    order = ["timestamp", "timestamp_nanos", "log_topic", "log_partition", "log_offset"]
    rows = pa.concat_tables([pq.ParquetFile(file.path).read() for file in files])
    rows = rows.sort_by([(name, "ascending") for name in order])
    assert digest_of(rows, names).hexdigest() == pin.hash


def test_a_pin_needs_nothing_of_the_log(
    market: Market, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.append(some(1))
    market.commit()
    reader.pins.create(Wish("all", "trades"))
    market.append(some(2))
    monkeypatch.setattr("k2.query.state._TAIL_ROWS", 5)
    with open_reader(market.folder, clock=lambda: NOW) as far_behind:
        assert far_behind.pins.records("all", "trades").table.num_rows == 80
        assert verdict(far_behind, "all")["ok"]
        with pytest.raises(Unavailable, match="wait to be committed"):
            far_behind.records("trades", Selection())


def test_what_was_lost_and_made_again_from_the_log_is_what_was_pinned(
    market: Market, reader: Reader
) -> None:
    for seed in range(3):
        market.append(some(seed, 40))
        market.commit()
    reader.pins.create(Wish("all", "trades"))
    reader.pins.create(Wish("past", "trades", past=Past(as_of=_snapshot(reader, 2))))
    market.append(some(4, 40))
    market.commit()
    Path(market.lake.table("trades").snapshot().files.select()[1].path).unlink()
    assert reader.pins.verify(["all", "past"])["ok"].to_pylist() == [False, False]
    made = rebuild(market.log, market.registry, market.lake, Wanted("trades"))
    assert made.rows == 160
    assert reader.pins.verify(["all", "past"])["ok"].to_pylist() == [True, True]
