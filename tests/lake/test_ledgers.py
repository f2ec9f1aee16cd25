"""Ledgers: each outbox entry and each commit is taken once; past states are found for good."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2.errors import BadInput, NotFound, Refused
from k2.lake import Commit, Lake, ShedRange, Snapshot, open_lake
from k2.lake.offsets import shed_from_json
from tests.lake.make import DAY, START, TOPIC, append, at, rejected, trades


class Clock:
    """A clock that the test turns: a second passes whenever it is read."""

    now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = open_lake(tmp_path / "lake", clock=Clock(), keep_snapshots=3)
    yield lake
    lake.close()


def commit_rejecting(lake: Lake, rows: int = 10) -> Snapshot:
    """Commit that many trades and one rejected record behind them."""
    table = lake.table("trades")
    head = table.snapshot()
    first = head.offsets[TOPIC].next_offset[0] if head.offsets else 0
    file = table.write(trades(rows, first_offset=first), DAY)
    outbox = (rejected(lake, first + rows),)
    return table.commit(Commit((file,), head.offsets, at(first + rows + 1), outbox))


def offsets_in(lake: Lake, ledger: str) -> list[int]:
    files = lake.ledger_files(ledger)
    return sorted(o for f in files for o in pq.read_table(f.path)["log_offset"].to_pylist())


def test_a_ledger_is_its_table_and_the_outboxes(lake: Lake) -> None:
    commit_rejecting(lake)
    commit_rejecting(lake)
    assert offsets_in(lake, "rejected") == [10, 21]

    assert lake.absorb("trades") == 4
    assert offsets_in(lake, "rejected") == [10, 21]

    commit_rejecting(lake)
    assert offsets_in(lake, "rejected") == [10, 21, 32]
    assert [e.sequence for e in lake.table("trades").snapshot().outbox] == [3]


def test_absorbing_again_takes_nothing(lake: Lake) -> None:
    commit_rejecting(lake)

    assert [lake.absorb("trades"), lake.absorb("trades")] == [2, 0]
    assert lake.table("rejected").snapshot().files.rows == 1
    assert lake.commits_of("trades").num_rows == 1


def test_a_stale_absorber_takes_nothing_twice(lake: Lake, tmp_path: Path) -> None:
    commit_rejecting(lake)
    other = open_lake(tmp_path / "lake")
    other.table("rejected").snapshot()
    other.table("commits").snapshot()
    lake.absorb("trades")

    assert other.absorb("trades") == 0
    assert offsets_in(lake, "rejected") == [10]
    other.close()


def test_a_ledger_that_nothing_was_put_into_is_empty(lake: Lake) -> None:
    append(lake.table("trades"), 5)

    assert lake.ledger_files("duplicates") == ()


def test_commits_tell_rows_duplicates_rejected_and_offsets(lake: Lake) -> None:
    append(lake.table("trades"), 5)
    lake.absorb("trades")
    commit_rejecting(lake)

    rows = lake.commits_of("trades").to_pylist()

    assert [(r["commit"], r["rows"], r["rejected"]) for r in rows] == [(1, 5, 0), (2, 10, 1)]
    assert all(r["operation"] == "append" and r["table"] == "trades" for r in rows)
    assert rows[1]["offsets"] == f'{{"{TOPIC}":{{"log_id":"log-1","next_offset":{{"0":16}}}}}}'


def test_as_of_outlives_the_snapshots(lake: Lake) -> None:
    table = lake.table("trades")
    done = [append(table, 2)]
    for n in range(20):
        done.append(append(table, 2))
        if n % 4 == 0:
            lake.absorb("trades")
    assert len(table.head().metadata["snapshots"]) < 8

    for snapshot in done:
        moment = snapshot.committed_at
        assert lake.resolve_as_of("trades", moment) == snapshot.sequence
        assert lake.resolve_as_of("trades", moment.isoformat()) == snapshot.sequence
        assert lake.resolve_as_of("trades", str(snapshot.snapshot_id)) == snapshot.sequence
        just_before = moment - timedelta(microseconds=1)
        if snapshot.sequence > 1:
            assert lake.resolve_as_of("trades", just_before) == snapshot.sequence - 1


def test_no_snapshot_expires_before_the_ledger_has_it(lake: Lake) -> None:
    for _ in range(8):
        append(lake.table("trades"), 1)

    assert len(lake.table("trades").head().metadata["snapshots"]) == 8
    assert lake.commits_of("trades")["commit"].to_pylist() == list(range(1, 9))


def test_as_of_a_time_before_everything_says_when_it_began(lake: Lake) -> None:
    first = append(lake.table("trades"), 2)

    with pytest.raises(NotFound) as caught:
        lake.resolve_as_of("trades", datetime(2020, 1, 1, tzinfo=UTC))

    began = first.committed_at.isoformat().replace("+00:00", "Z")
    assert caught.value.hint == f"the first commit was at {began}"


@pytest.mark.parametrize("when", ["nowhere", "123", "2020-01-01T00:00:00Z"])
def test_as_of_what_never_was_is_not_found(lake: Lake, when: str) -> None:
    append(lake.table("trades"), 2)
    with pytest.raises(NotFound):
        lake.resolve_as_of("trades", when)


def test_as_of_needs_a_zone(lake: Lake) -> None:
    with pytest.raises(BadInput, match="zone"):
        lake.resolve_as_of("trades", "2026-11-20T10:00:00")


def test_a_tag_names_a_state_for_good_and_for_all_tables(lake: Lake) -> None:
    append(lake.table("trades"), 2)
    quotes = lake.table("quotes").commit(Commit((), {}, {}))
    assert lake.tag("trades", "ASX-2026-11-20-close") == 1
    append(lake.table("trades"), 2)
    lake.table("quotes").commit(Commit((), {}, {}))
    lake.absorb("trades")

    assert lake.resolve_as_of("trades", "ASX-2026-11-20-close") == 1
    with pytest.raises(NotFound, match="nothing was committed to quotes"):
        lake.resolve_as_of("quotes", "ASX-2026-11-20-close")
    lake.tag("quotes", "later", 2)
    assert lake.resolve_as_of("trades", "later") == 2
    assert lake.resolve_as_of("trades", quotes.committed_at) == 1
    assert lake.resolve_as_of("trades", lake.table("trades").snapshot().committed_at) == 2


def test_a_tag_given_later_moves_no_time(lake: Lake) -> None:
    done = [append(lake.table("trades"), 2) for _ in range(3)]
    lake.tag("trades", "second", 2)

    for snapshot in done:
        assert lake.resolve_as_of("trades", snapshot.committed_at) == snapshot.sequence


def test_a_clock_that_runs_backwards_does_not_turn_commits_around(tmp_path: Path) -> None:
    times = iter(range(1000, 0, -1))
    lake = open_lake(tmp_path, clock=lambda: START + timedelta(seconds=next(times)))
    done = [append(lake.table("trades"), 1) for _ in range(3)]

    moments = [snapshot.committed_at for snapshot in done]
    assert moments == sorted(moments)
    assert lake.resolve_as_of("trades", moments[-1]) == 3
    lake.close()


def test_a_tag_is_given_once(lake: Lake) -> None:
    append(lake.table("trades"), 2)
    lake.tag("trades", "close")

    with pytest.raises(Refused, match="taken"):
        lake.tag("trades", "close")
    with pytest.raises(Refused, match="look like"):
        lake.tag("trades", "2026-11-20T00:00:00Z")
    with pytest.raises(NotFound):
        lake.tag("trades", "never", 99)


def test_commits_tell_which_shed_records_they_brought_in(lake: Lake) -> None:
    table = lake.table("trades")
    shed = ShedRange("one", TOPIC, "log-1", 0, 0, 10, 10)
    base = table.commit(Commit((), {}, at(10), shed=(shed,)))
    front = replace(shed, end_offset=4, records=4)
    file = table.write(trades(4), DAY)
    table.commit(Commit((file,), base.offsets, base.offsets, filled=(front,)))
    for _ in range(2):
        told = lake.commits_of("trades")["filled"].to_pylist()
        assert [text and shed_from_json(text) for text in told] == [None, (front,)]
        lake.absorb("trades")
    lake.tag("trades", "after")
    assert lake.commits_of("trades")["filled"].to_pylist()[2] is None, "a name brings in nothing"


def test_commits_kept_by_an_older_version_are_read(lake: Lake) -> None:
    append(lake.table("trades"), 5)
    lake.absorb("trades")
    (file,) = lake.ledger_files("commits")
    older = pq.read_table(file.path).drop_columns(["filled"])
    pq.write_table(older, file.path)
    append(lake.table("trades"), 5)
    rows = lake.commits_of("trades").to_pylist()
    assert [(row["commit"], row["filled"]) for row in rows] == [(1, None), (2, None)]
    assert lake.resolve_as_of("trades", rows[0]["committed_at"]) == 1
