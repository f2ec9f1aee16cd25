"""Files straight into the tables: the same records and fates as through the log, exactly once."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2.errors import BadInput, Broken, Refused, Unavailable
from k2.ingest import Fates, Wanted, audit, rebuild
from k2.ingest import batch as batching
from k2.ingest import direct as loading
from k2.ingest.direct import load_directly
from k2.lake import BUCKETS, Bucket, bucket, maintain
from k2.lake.catalog import Catalog
from k2.lake.loads import LoadBook
from k2.model import LOADED_PARTITION
from k2.query import Selection, open_reader
from tests.feeds import nasdaq as itch
from tests.feeds.databento import dbn, head, mapped, quote
from tests.feeds.databento import write as write_dbn
from tests.feeds.nasdaq import OPEN
from tests.ingest.loading import (
    OPTIONS,
    START,
    all_of,
    append,
    asked,
    direct,
    in_flight,
    lines,
    never,
    stored,
    sums,
    through_log,
    write,
)
from tests.journeys.home import Home, open_home, processes

TOPIC = "loaded.crypto.trades.MADE"
STEPS = ("manifest", "note", "files", "commit", "before swap", "after swap", "answer")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with open_home(tmp_path) as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Home]:
    (tmp_path / "other").mkdir()
    with open_home(tmp_path / "other") as opened:
        yield opened


# --------------------------------------------------------------------- as through the log


def of_dbn(folder: Path) -> Path:
    start = head(dbn.Schema.TBBO, mapped("ABC", 7))
    prices = [10**9 * (n % 7 + 1) + (n == 11) for n in range(60)]
    events = [quote(n // 2, action=dbn.Action.TRADE, price=p) for n, p in enumerate(prices)]
    return write_dbn(folder / "x.dbn.zst", start, events)


def of_itch(folder: Path) -> Path:
    found = [itch.directory(1, "AAPL"), itch.directory(2, "MSFT")]
    found += [itch.hidden(1 + n % 2, OPEN + n, 7, "AAPL", 2_899_500, 9_000 + n) for n in range(50)]
    found += [itch.executed(1, OPEN + 99, 501, 100, 9_001), itch.broken(1, OPEN + 100, 9_004)]
    return itch.write(folder / "12302019.NASDAQ_ITCH50.gz", found)


@pytest.mark.parametrize("made", ["ids", "content", "dbn", "itch"])
def test_what_comes_in_is_the_same(home: Home, other: Home, tmp_path: Path, made: str) -> None:
    by = asked(tmp_path, None, None)
    if made == "dbn":
        file = of_dbn(tmp_path)
    elif made == "itch":
        file = of_itch(tmp_path)
    else:
        by = asked(tmp_path)
        file = write(tmp_path / "x.csv", lines(7, 900, ids=made == "ids"))
    ordinary, straight = through_log(other, [file], by), direct(home, [file], by)
    assert straight == ordinary
    assert straight.read == sum(vars(straight.fates).values()) > 50
    assert all_of(home) == all_of(other)
    assert sums(home) == sums(other) == straight.fates
    assert home.log.topics() == {}
    assert (len(stored(home, "gaps")) > 3) == (made == "ids")


def test_lineage_is_a_place_in_a_list_of_manifests(home: Home, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.csv", lines(n, 40, first=100 * n)) for n in range(2)]
    for file in files:
        direct(home, [file], asked(tmp_path))
    snapshot = home.lake.table("trades").snapshot()
    (_, end) = next(iter(snapshot.offsets[TOPIC].next_offset.items()))
    rows = [row for f in snapshot.files.select() for row in pq.read_table(f.path).to_pylist()]
    loads = LoadBook.of(home.lake.folder).read()
    assert {(r["log_topic"], r["log_id"], r["log_partition"]) for r in rows} == {
        (TOPIC, loads.loads[0].log_id, LOADED_PARTITION)
    }
    first, second = loads.stretches(TOPIC)
    assert (first.first, first.end, second.first, second.end) == (0, first.end, first.end, end)
    assert [s.source.name for s in (first, second)] == ["0.csv", "1.csv"]
    assert second.load.read_by.mapping_text == (tmp_path / "made.toml").read_text()
    assert max(row["log_offset"] for row in rows) < end


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("order", ["dd", "dl", "ld", "dld"])
def test_nothing_doubles_in_whatever_order(
    home: Home, tmp_path: Path, order: str, ids: bool
) -> None:
    file, by = write(tmp_path / "x.csv", lines(3, 400, ids=ids)), asked(tmp_path)
    ways = {"d": direct, "l": through_log}
    first, *others = (ways[way](home, [file], by) for way in order)
    rows = stored(home, "trades")
    assert len(rows) == first.fates.committed
    for again in others:
        assert again.read == first.read
        assert again.fates == Fates(duplicate=first.read)
    assert sums(home).committed == first.fates.committed


def test_a_file_has_the_bars_that_the_log_gives(home: Home, other: Home, tmp_path: Path) -> None:
    file, by = write(tmp_path / "x.csv", lines(5, 500)), asked(tmp_path)
    through_log(other, [file], by)
    direct(home, [file], by)
    answers = []
    for each in (home, other):
        with open_reader(each.folder) as reader:
            answers.append(reader.bars(Selection(("A", "B", "C")), "1h").table.to_pylist())
    assert answers[0] == answers[1]
    assert len(answers[0]) > 20


def test_a_large_day_is_settled_at_once(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SMALL_DAY", 200)
    found = [*lines(1, 400, days=1), *lines(2, 30, first=9_000, days=3)]
    direct(home, [write(tmp_path / "x.csv", found)], asked(tmp_path))
    partitions = home.lake.table("trades").snapshot().files.by_partition()
    buckets = {day: {of for on, of in partitions if on == day} for day, _ in partitions}
    large, *small = (buckets[day] for day in sorted(buckets, key=str))
    assert large == {Bucket(bucket(symbol), BUCKETS) for symbol in "ABC"}
    assert small == [{None}] * len(small)
    assert all(len(files) == 1 for files in partitions.values())
    before = stored(home, "trades")
    maintain(home.lake, "trades")
    assert stored(home, "trades") == before
    sums(home)


# ---------------------------------------------------------------------------- broken off


class KilledError(BaseException):
    """In place of SIGKILL: nothing is tidied up that an exception would not reach."""


def striking(step: str, nth: int) -> Callable[[str], None]:
    taken = dict.fromkeys(STEPS, 0)

    def strike(name: str) -> None:
        taken[name] += 1
        if (name, taken[name]) == (step, nth):
            raise KilledError

    return strike


@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_and_continued(
    home: Home, other: Home, tmp_path: Path, step: str, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "ROWS_AT_ONCE", 250)
    made = [lines(n, 100, first=1000 * n) for n in range(5)]
    files = [write(tmp_path / f"{n}.csv", found) for n, found in enumerate(made)]
    by = asked(tmp_path)
    whole = direct(other, files, by)
    strike, swap = striking(step, nth), Catalog.swap

    def swap_in_steps(self: Catalog, table: str, *rest: object) -> bool:
        if table == "trades":
            strike("before swap")
        done = swap(self, table, *rest)  # type: ignore[arg-type]
        if table == "trades":
            strike("after swap")
        return done

    monkeypatch.setattr(Catalog, "swap", swap_in_steps)
    struck = True
    try:
        direct(home, files, by, strike)
        struck = False
    except KilledError:
        pass
    monkeypatch.setattr(Catalog, "swap", swap)
    assert struck or nth > 1
    sums(home)

    again = direct(home, files, by)

    mine, wanted = all_of(home), all_of(other)
    if len(LoadBook.of(home.lake.folder).read().loads) == 2:
        # Nothing was left to be done: it was loaded once more.
        assert again.fates == Fates(duplicate=again.read)
        del mine["duplicates"], wanted["duplicates"]
    else:
        assert again == whole
    assert mine == wanted
    assert in_flight(home) == 0
    sums(home)


def _load_and_die(folder: Path, files: list[Path], step: str, nth: int) -> None:
    loading.ROWS_AT_ONCE = 100  # type: ignore[misc]
    taken = 0

    def strike(name: str) -> None:
        nonlocal taken
        taken += name == step
        if name == step and taken == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_home(folder) as home:
        direct(home, files, asked(folder), strike)


@pytest.mark.slow
def test_killed_for_good_again_and_again(home: Home, other: Home, tmp_path: Path) -> None:
    made = [lines(n, 100, first=1000 * n) for n in range(4)]
    files = [write(tmp_path / f"{n}.csv", found) for n, found in enumerate(made)]
    direct(other, files, asked(tmp_path))
    for step, nth in [("files", 1), ("commit", 1), ("answer", 1), ("note", 2), ("commit", 2)]:
        process = processes.Process(target=_load_and_die, args=(tmp_path, files, step, nth))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        sums(home)
    direct(home, files, asked(tmp_path))
    assert all_of(home) == all_of(other)
    assert len(LoadBook.of(home.lake.folder).read().loads) == 1


def test_stopped_it_goes_on_where_it_was(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "ROWS_AT_ONCE", 1)
    files = [write(tmp_path / f"{n}.csv", lines(n, 50, first=1000 * n)) for n in range(3)]
    by, steps = asked(tmp_path), [0]

    def step(name: str) -> None:
        steps[0] += name == "answer"

    part = direct(home, files, by, step, lambda: steps[0] >= 2)
    assert 0 < part.fates.committed < len([x for n in range(3) for x in lines(n, 50)])
    steps[0] = 0
    whole = direct(home, files, by, step)
    assert steps[0] > 0
    assert len(LoadBook.of(home.lake.folder).read().loads) == 1
    assert whole.fates == sums(home)
    # All of it is in: the same again is another load, of duplicates.
    assert direct(home, files, by).fates == Fates(duplicate=whole.read)
    assert len(LoadBook.of(home.lake.folder).read().loads) == 2


def test_one_that_was_broken_off_ends_where_another_begins(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "ROWS_AT_ONCE", 1)
    files = [write(tmp_path / f"{n}.csv", lines(n, 50, first=1000 * n)) for n in range(3)]
    by = asked(tmp_path)
    with pytest.raises(KilledError):
        direct(home, files, by, striking("note", 2))
    first = sums(home).committed
    more = write(tmp_path / "more.csv", lines(9, 20, first=5000))
    direct(home, [more], by)
    second = sums(home).committed
    assert second > first > 0
    direct(home, files, by)
    assert sums(home).committed > second
    rebuild(home.log, home.registry, home.lake, Wanted("trades"))
    sums(home)


# ---------------------------------------------------------------------------- beside others


def test_a_writer_that_commits_meanwhile(home: Home, tmp_path: Path) -> None:
    """Records of the same symbols: one is the same as one that is loaded, the others are not."""
    by = asked(tmp_path)
    found = lines(4, 200)
    same = next(line for line in found if line.split(",")[2] == "1.5" and line.split(",")[4])
    mine = write(tmp_path / "x.csv", found)
    live = write(tmp_path / "live.csv", lines(5, 60, first=100_000))
    both = write(tmp_path / "both.csv", [*lines(6, 30, first=200_000), same])
    waiting, steps = [both, live], Counter[str]()

    def meanwhile(name: str) -> None:
        steps[name] += 1
        if name == "commit" and waiting:
            through_log(home, [waiting.pop(0)], by)

    through_log(home, [write(tmp_path / "before.csv", lines(8, 30, first=300_000))], by)
    direct(home, [mine], by, meanwhile)
    assert not waiting
    # Decided anew because of the one, and not because of all the others: trades, then rejects.
    assert (steps["commit"], steps["answer"]) == (3, 2)
    sums(home)
    ids = [(row["symbol"], row["trade_id"]) for row in stored(home, "trades") if row["trade_id"]]
    assert len(set(ids)) == len(ids)


def test_two_at_once(home: Home, tmp_path: Path) -> None:
    file, by = write(tmp_path / "x.csv", lines(1, 50)), asked(tmp_path)
    refused: list[str] = []

    def meanwhile(name: str) -> None:
        if name == "files" and not refused:
            with pytest.raises(Unavailable, match="under way") as caught:
                direct(home, [file], by)
            refused.append(str(caught.value.hint))

    direct(home, [file], by, meanwhile)
    assert refused
    sums(home)


def test_what_waits_in_the_log_and_is_loaded_is_answered_once(home: Home, tmp_path: Path) -> None:
    by = asked(tmp_path)
    file = write(tmp_path / "x.csv", lines(2, 60))
    through_log(home, [write(tmp_path / "before.csv", lines(3, 5, first=900))], by)
    append(home, file, by)
    with open_reader(home.folder) as reader:

        def told() -> list[str]:
            table = reader.records("trades", Selection(("A", "B", "C"))).table
            return sorted(map(repr, table.select(["symbol", "trade_id", "price"]).to_pylist()))

        before = told()
        assert direct(home, [file], by).fates.committed > 20
        assert told() == before
        home.catch_up()
        assert told() == before
    sums(home)


def test_what_is_loaded_stands_before_what_came_live(home: Home, tmp_path: Path) -> None:
    """Of two records at one moment, in total order: bars open with the one and close with the
    other, whatever was committed first.
    """
    by = asked(tmp_path)
    live = write(tmp_path / "live.csv", [f"A,{START},3,1,8,\n"])
    past = write(tmp_path / "past.csv", [f"A,{START},2,1,7,\n"])
    through_log(home, [live], by)
    direct(home, [past], by)
    with open_reader(home.folder) as reader:
        rows = reader.records("trades", Selection(("A",))).table
        assert rows["trade_id"].to_pylist() == ["7", "8"]
        (bar,) = reader.bars(Selection(("A",)), "1m").table.to_pylist()
        assert (bar["open"], bar["close"]) == (2, 3)


# ------------------------------------------------------------------------- sources, manifests


def test_a_file_that_changes_while_it_is_read(home: Home, tmp_path: Path) -> None:
    file, by = write(tmp_path / "x.csv", lines(1, 50)), asked(tmp_path)

    def meanwhile(name: str) -> None:
        if name == "manifest":
            write(file, lines(2, 50))

    with pytest.raises(BadInput, match="changed"):
        direct(home, [file], by, meanwhile)
    assert not home.lake.has("trades") or stored(home, "trades") == []
    sums(home)
    assert direct(home, [file], by).fates.committed > 0
    sums(home)


def test_a_file_that_was_mended_is_another_load(
    home: Home, other: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "ROWS_AT_ONCE", 1)
    found, by = lines(1, 80), asked(tmp_path)
    files = [write(tmp_path / "x.csv", found), write(tmp_path / "y.csv", lines(2, 9, first=900))]
    with pytest.raises(KilledError):
        direct(home, files, by, striking("note", 2))
    mended = [line.replace("none", "3") for line in found]
    write(files[0], mended)
    direct(home, files, by)
    assert len(LoadBook.of(home.lake.folder).read().loads) == 2
    assert direct(other, files, by).fates.committed == sums(home).committed


def test_rows_are_made_again_from_the_same_files(home: Home, tmp_path: Path) -> None:
    by = asked(tmp_path)
    files = [write(tmp_path / f"{n}.csv", lines(n, 150, first=1000 * n)) for n in range(2)]
    through_log(home, [write(tmp_path / "log.csv", lines(7, 60, first=9000))], by)
    direct(home, files, by)
    before = stored(home, "trades")

    def lose() -> None:
        for file in home.lake.table("trades").snapshot().files.select():
            Path(file.path).unlink()
        assert not audit(home.log, home.lake).ok

    def again(folder: Path | None = None) -> None:
        rebuild(home.log, home.registry, home.lake, Wanted("trades"), sources=folder)

    lose()
    again()
    assert stored(home, "trades") == before
    sums(home)
    lose()
    (tmp_path / "made.toml").write_text("")  # the manifest has the mapping as it was
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files[1].rename(elsewhere / files[1].name)
    with pytest.raises(Refused, match="not there any more"):
        again()
    again(elsewhere)
    assert stored(home, "trades") == before
    lose()
    (elsewhere / files[1].name).write_text("symbol\n")
    with pytest.raises(Refused, match="another than the one") as caught:
        again(elsewhere)
    assert "SHA-256" in str(caught.value.expected)
    assert not audit(home.log, home.lake).ok


@pytest.mark.parametrize("harm", ["last", "first", "torn"])
def test_manifests_that_are_gone(home: Home, tmp_path: Path, harm: str) -> None:
    by = asked(tmp_path)
    files = [write(tmp_path / f"{n}.csv", lines(n, 30, first=1000 * n)) for n in range(2)]
    for file in files:
        direct(home, [file], by)
    folders = sorted(LoadBook.of(home.lake.folder).folder.iterdir())
    gone = {"last": folders[1], "first": folders[0], "torn": folders[0]}[harm] / "load.json"
    text = gone.read_text()
    gone.write_text(text[:-40]) if harm == "torn" else gone.unlink()
    if harm == "last":
        problems = [str(part.problem) for part in audit(home.log, home.lake).partitions]
        assert all("manifests ends here" in problem for problem in problems)
    else:
        with pytest.raises(Broken, match="manifest"):
            audit(home.log, home.lake)
    with pytest.raises(Broken, match="manifest"):
        direct(home, files, by)
    gone.write_text(text)
    sums(home)


def test_wrong_usage_leaves_no_load_behind(home: Home, tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", lines(1, 5))
    stores = (home.log, home.registry, home.lake)
    for by in (asked(tmp_path, None), asked(tmp_path, mapping=None), asked(tmp_path, "quotes")):
        with pytest.raises(BadInput):
            load_directly(stores, [file], by, OPTIONS, never)
    with pytest.raises(BadInput, match="no such file"):
        direct(home, [tmp_path / "nosuch.csv"], asked(tmp_path))
    assert LoadBook.of(home.lake.folder).read().loads == ()
    assert home.lake.tables() == []


def test_the_sample_of_real_files(asx: Path, tmp_path: Path) -> None:
    files = [asx / "trades" / "7181.csv", asx / "trades" / "3153.csv"]
    by = asked(tmp_path, mapping="asx")
    found = []
    for name, way in (("log", through_log), ("straight", direct)):
        with ExitStack() as stack:
            (tmp_path / name).mkdir()
            home = stack.enter_context(open_home(tmp_path / name))
            found.append((way(home, files, by), all_of(home), sums(home)))
    assert found[0] == found[1]
    assert found[0][0].read == 243
