"""Three venues with faults, a real broker and registry, two writers: what was made is what is held.

Broker and writers are killed meanwhile. What no venue could give again stands in the gap ledger.
`K2_TEST_SEEDS`, `K2_TEST_SECONDS` and `K2_TEST_RATE` (messages a second, together) make it longer.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from k2.errors import K2Error
from k2.query import Selection, open_reader
from k2.venues import Fault, Trading, Venue, open_venue, random_script, symbols_of
from tests.cli.conftest import K2
from tests.journeys.test_writers import wait_for
from tests.servers.kafka import Kafka
from tests.servers.registry import Registry

SECONDS = float(os.environ.get("K2_TEST_SECONDS", "30"))
RATE = int(os.environ.get("K2_TEST_RATE", "600"))
SEEDS = [int(seed) for seed in os.environ.get("K2_TEST_SEEDS", "1,2,3").split(",")]
FAULTS_EACH = max(5, int(SECONDS / 40))
BROKER_KILLS, WRITER_KILLS = (2, 5) if SECONDS > 300 else (1, 3)
NAMES = ("binance", "coinbase", "kraken")

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Played:
    """A venue and the faults that its script has."""

    venue: Venue
    script: tuple[Fault, ...]


@contextmanager
def opened(seed: int) -> Iterator[dict[str, Played]]:
    with ExitStack() as stack:
        found = {}
        for number, name in enumerate(NAMES):
            script = random_script(1_000 * seed + number, FAULTS_EACH, SECONDS)
            if name == "coinbase":
                # Its books have neither numbers nor checksums: that one was old, nobody can know.
                script = tuple(
                    replace(fault, fault="unknown") if fault.fault == "stale_snapshot" else fault
                    for fault in script
                )
            trading = Trading(symbols_of(name)[:2], rate=RATE // len(NAMES), seed=seed)
            venue = stack.enter_context(open_venue(name, trading, script))
            found[name] = Played(venue, script)
        yield found


class Parts:
    """Processes of `k2` on one home; all have ended when the block ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """One more; what it says goes into a file beside the others."""
        with (self._folder / f"{words[0]}-{len(self._running)}.log").open("wb") as talk:
            process = subprocess.Popen([sys.executable, "-m", "k2", *words], stderr=talk)
        self._running.append(process)
        return process

    def end(self, *processes: "subprocess.Popen[bytes]") -> None:
        """Ask them to end, as an operator does, and wait until they have."""
        for process in processes:
            process.terminate()
        assert [process.wait(60) for process in processes] == [0] * len(processes)

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(180 + 2 * SECONDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_venues_made_is_held_or_named(
    k2: K2,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kafka: Kafka,
    registry_server: Registry,
    capsysbinary: pytest.CaptureFixture[bytes],
    seed: int,
) -> None:
    chance = random.Random(seed)
    settings = {
        "K2_LOG": f"kafka:{kafka.bootstrap}?prefix=venues-{seed}.&timeout=30",
        "K2_REGISTRY": f"confluent:{registry_server.url}",
        "K2_LOG_PARTITIONS": "2",
        "K2_COMMIT_INTERVAL_SECONDS": "0.5",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with opened(seed) as played, Parts(tmp_path) as parts:
        urls = [
            f"{name}:{','.join(symbols_of(name)[:2])}?ws={each.venue.ws}&rest={each.venue.rest}"
            for name, each in played.items()
        ]
        feed = parts.start("feed", *urls)
        writers = [parts.start("ingest") for _ in range(2)]
        wait_for(lambda: all_held(tmp_path / "home", settings), "all three venues", 60)
        begin = time.monotonic()
        for moment, blow in blows(chance):
            supervise(parts, writers, begin + moment)
            if blow == "broker":
                kafka.kill()
                time.sleep(1)
                kafka.start()
            else:
                victim = chance.choice(writers)
                victim.kill()
                victim.wait()
        supervise(parts, writers, begin + SECONDS)
        for each in played.values():
            each.venue.stop_trading()
        end = time.monotonic() + 60 + SECONDS / 4
        while complaints := looked_at(tmp_path / "home", settings, played):
            supervise(parts, writers, time.monotonic() + 1)
            if time.monotonic() > end:
                break
        parts.end(feed, *writers)
        assert k2("ingest", "--until-caught-up").code == 0
        assert not complaints, "\n".join(complaints)
        assert looked_at(tmp_path / "home", settings, played) == []
        found = k2("audit", "--json")
        assert found.code == 0, found.out
        parts_of_log = json.loads(found.out)["partitions"]
        assert sum(part["in_flight"] for part in parts_of_log) == 0
        with capsysbinary.disabled():
            print(f"\nseed {seed}: {figures(played, parts_of_log)}")  # noqa: T201


def blows(chance: random.Random) -> list[tuple[float, str]]:
    """When what is killed, in order of time, after all have started."""
    names = ["broker"] * BROKER_KILLS + ["writer"] * WRITER_KILLS
    chance.shuffle(names)
    return sorted((chance.uniform(5, SECONDS), name) for name in names)


def supervise(parts: Parts, writers: list["subprocess.Popen[bytes]"], until: float) -> None:
    """Start a writer in the place of each that has ended, until then."""
    while True:
        for number, writer in enumerate(writers):
            code = writer.poll()
            # Killed, or started while the broker was away: then it says so and ends.
            assert code in (None, -signal.SIGKILL, 3)
            if code is not None:
                writers[number] = parts.start("ingest")
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, 0.2))


def all_held(home: Path, settings: Mapping[str, str]) -> bool:
    """Whether there are trades of every venue."""
    try:
        with open_reader(home, log=settings["K2_LOG"], registry=settings["K2_REGISTRY"]) as reader:
            return all(
                reader.records("trades", Selection(exchanges=(name,)), limit=1).table.num_rows
                for name in NAMES
            )
    except K2Error:
        return False  # nothing at all yet


def looked_at(home: Path, settings: Mapping[str, str], played: Mapping[str, Played]) -> list[str]:
    """Whatever is not as it has to be, in words."""
    with open_reader(home, log=settings["K2_LOG"], registry=settings["K2_REGISTRY"]) as reader:
        gaps = reader.ledger("gaps", limit=100_000).table.to_pylist()
        complaints = [f"a gap without a cause: {gap}" for gap in gaps if not gap["cause"]]
        for name, each in played.items():
            asked = Selection(exchanges=(name,))
            mine = [gap for gap in gaps if gap["exchange"] == name]
            trades = reader.records("trades", asked).table
            complaints += [f"{name}: {text}" for text in compare_trades(each, trades, mine)]
            quotes = reader.records("quotes", asked).table
            complaints += [f"{name}: {text}" for text in compare_quotes(each, quotes, mine)]
    return complaints


def compare_trades(played: Played, held: pa.Table, gaps: list[dict[str, Any]]) -> Iterator[str]:
    """Every trade is held once as it was made, or no venue could give it and the ledger says so."""
    found = to_rows(held, "trade_id", "price", "quantity", "side", "timestamp")
    made = to_rows(played.venue.truth.trades(), "number", "price", "quantity", "side", "time")
    yield from doubled_or_invented(found, made)
    # A feed that never ran begins with what it is told first.
    first = first_of(found)
    missing = {(s, i) for s, i, *_ in set(made) - set(found) if i >= first.get(s, 0)}
    lost = {
        (symbol, number)
        for symbol, ranges in played.venue.truth.lost().items()
        for part in ranges
        for number in part
    }
    if kept := sorted(missing - lost):
        yield f"{len(kept)} trades are missing, and the venue has them: {kept[:5]}"
    named = {
        (gap["symbol"], number)
        for gap in gaps
        if gap["kind"] == "trades"
        for number in range(gap["first_missing"], gap["last_missing"] + 1)
    }
    if unnamed := sorted(missing - named):
        yield f"{len(unnamed)} trades are missing, and no gap names them: {unnamed[:5]}"
    if named_in_vain := sorted(named - missing):
        yield f"{len(named_in_vain)} trades are named as missing, and held: {named_in_vain[:5]}"


def compare_quotes(played: Played, held: pa.Table, gaps: list[dict[str, Any]]) -> Iterator[str]:
    """Every quote is one that the venue made; what a cut connection missed is named.

    Only Binance numbers them. What it skips without a word, nobody can notice.
    """
    prices = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    truth = played.venue.truth.quotes()
    if "binance" not in pc.unique(held["exchange"]).to_pylist():
        made = {tuple(row.values()) for row in truth.select(["symbol", *prices]).to_pylist()}
        rows = held.select(["symbol", *prices]).to_pylist()
        if invented := [row for row in rows if tuple(row.values()) not in made]:
            yield f"{len(invented)} of {len(rows)} quotes that the venue never made: {invented[:3]}"
        return
    found = to_rows(held, "source_sequence", *prices)
    yield from doubled_or_invented(found, to_rows(truth, "number", *prices))
    first, had = first_of(found), {row[:2] for row in found}
    holes = [gap for gap in gaps if gap["kind"] == "quotes"]
    named = list(numbers_between(holes, to_rows(held, "source_sequence", "timestamp")))
    unnamed = [
        row
        for row in truth.select(["symbol", "number", "time"]).to_pylist()
        if row["number"] > first.get(row["symbol"], 0)
        and (row["symbol"], row["number"]) not in had
        and not any(symbol == row["symbol"] and row["number"] in part for symbol, part in named)
    ]
    if len(unnamed) > unnoticed(played.script):
        yield f"{len(unnamed)} quotes are missing, and no gap names them: {unnamed[:3]}"


def numbers_between(
    holes: Sequence[Mapping[str, Any]], held: Sequence[Row]
) -> Iterator[tuple[str, range]]:
    """The numbers that lie between the quotes at both ends of each hole.

    Its times are those of these quotes, which may be when a client got them: the venue's own time
    of a quote that it lost may lie before.
    """
    at: dict[tuple[str, datetime], list[int]] = defaultdict(list)
    for symbol, number, when in held:
        at[symbol, when].append(number)
    for gap in holes:
        symbol = gap["symbol"]
        before, after = at[symbol, gap["from_timestamp"]], at[symbol, gap["to_timestamp"]]
        yield symbol, range(min(before) + 1, max(after))


def unnoticed(script: Sequence[Fault]) -> int:
    """How many quotes at most these faults keep from a client that cannot know of them."""
    found = 0.0
    for fault in script:
        if fault.fault in ("skip", "malformed") and fault.kind == "quotes":
            found += fault.count
        elif fault.fault == "silence":
            found += fault.seconds * RATE
    return int(found)


def doubled_or_invented(found: list[Row], made: list[Row]) -> Iterator[str]:
    if doubled := [row for row, times in Counter(found).items() if times > 1]:
        yield f"{len(doubled)} rows are held twice: {doubled[:3]}"
    if invented := sorted(set(found) - set(made)):
        yield f"{len(invented)} rows that the venue never made: {invented[:3]}"


def first_of(rows: list[Row]) -> dict[str, int]:
    """The least number of each symbol."""
    return {row[0]: row[1] for row in reversed(rows)}


def to_rows(table: pa.Table, number: str, *names: str) -> list[Row]:
    """Symbol, number as an integer, and other columns of each record, sorted."""
    columns = (table[name].to_pylist() for name in ("symbol", number, *names))
    return sorted((s, int(i), *others) for s, i, *others in zip(*columns, strict=True))


def figures(played: Mapping[str, Played], partitions: list[dict[str, Any]]) -> str:
    """What a run was like, for whoever reads the output of a long one."""
    names = ("committed", "duplicate", "rejected", "absent")
    counts = {name: sum(part[name] for part in partitions) for name in names}
    made = sum(each.venue.truth.trades().num_rows for each in played.values())
    quotes = sum(each.venue.truth.quotes().num_rows for each in played.values())
    faults = sum(len(each.venue.truth.faults()) for each in played.values())
    return f"{made} trades and {quotes} quotes made, {faults} faults; {counts}"
