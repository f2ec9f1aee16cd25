"""Three and ten times what a writer sustains, on a real Kafka: what is shed, does it come in?"""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from servers.install import place

from bench.home import k2
from bench.kafka import Stores, stores
from bench.plot import Line, Panel, write_svg
from bench.report import Parts, audited, console, show
from bench.torrent import FIRST_SHARE, Source, Torrent
from bench.witness import Ages, Witness, committed, shed_totals
from k2.ingest import Level
from k2.ingest.line import Line as WritersLine
from k2.ingest.options import WriterOptions
from k2.ingest.shed import Shedding
from k2.ingest.tiers import TierFile
from k2.lake import open_lake
from k2.log import open_log, open_registry
from k2.settings import SETTINGS

_PLOTS: Final = Path("build/overload")
_LOOK_SECONDS: Final = 0.05
_PERIOD: Final = 0.25
"""Seconds in which a slowed writer runs once and rests once."""
_SHARE: Final = 0.1
"""Of its time that the writer is given, so that ten times what it sustains then can be made. In
turns of a few milliseconds it comes to next to nothing.
"""
_STRUCK: Final = (Level.GRACEFUL, Level.AGGRESSIVE, Level.CIRCUIT_BREAK)
"""The least level at which a run's writer is killed, by the run's seed."""
_PATIENCE: Final = 30
"""What is shed in a minute may take half an hour to come in."""


@dataclass(frozen=True)
class _Scale:
    """How large a run is: seconds of overload, records that are measured before, and settings of
    the writer's.
    """

    seconds: float
    records: int
    settings: Mapping[str, str]


_DEFAULTS: Final = {s.name: s.default for s in SETTINGS if s.name.startswith("K2_OVERLOAD")}
_FULL: Final = _Scale(60.0, 1_500_000, _DEFAULTS)
_SMALL: Final = {
    "K2_OVERLOAD_LAG": "2000 5000 10000 40000",
    "K2_OVERLOAD_CALM_SECONDS": "2",
    "K2_OVERLOAD_BREAK_SECONDS": "2",
}
_QUICK: Final = _Scale(5.0, 50_000, {**_DEFAULTS, **_SMALL})


def run(*, quick: bool = False, seeds: int = 1, kill: bool = False) -> None:
    """Print the rates, then for each factor and seed one table: what tier 1 felt, how all came in.

    `kill`: the writer is killed, and started again, once it has shed at level 2, at level 3 for the
    second seed, and amid level 4 for the third. What stands in the log then is backlog to it, and
    sheds no more: so once a run.
    """
    if not place("kafka").is_dir():
        console.print("Kafka is not installed: `make servers` installs it")
        return
    scale, parts = _QUICK if quick else _FULL, Parts()
    with stores() as at:
        _shedding_beside_processing(at, scale)
    parts.end("shedding beside processing")
    with stores() as at:
        made, sustained = _sustained(at, scale)
    parts.end("what the writer sustains")
    show(
        "What is overloaded",
        ["", "records/s"],
        [
            ["the producer makes, alone", f"{made:,.0f}"],
            [f"the writer sustains, running {_SHARE:.0%} of the time", f"{sustained:,.0f}"],
            *([f"seconds: {name}", seconds] for name, seconds in parts),
        ],
    )
    for factor in (3, 10):
        for seed in range(1, seeds + 1):
            with stores() as at:
                _Overload(at, scale, seed).run(factor, sustained, kill=kill)


def _source(at: Stores, seed: int) -> Source:
    return Source(at.environment["K2_LOG"], at.environment["K2_REGISTRY"], seed)


# ------------------------------------------------------------------ how fast without it


def _shedding_beside_processing(at: Stores, scale: _Scale) -> None:
    """The same records of tier 3, read from Kafka: peeked and shed, and decoded and committed."""
    source = _source(at, 1)
    torrent = Torrent(source, source.declare(), first_share=0.0)
    torrent.send(scale.records)
    under = Shedding("bench", Level.AGGRESSIVE, TierFile(None).tiers(), datetime.now(UTC))
    shed, processed = (torrent.sent / _seconds_worked(at, source, how) for how in (under, None))
    show(
        "Shedding beside processing, both with reading from Kafka; the aim is 5 x",
        ["", "records/s", "ratio"],
        [
            ["decoded, decided, committed", f"{processed:,.0f}", 1.0],
            ["peeked and shed", f"{shed:,.0f}", shed / processed],
        ],
    )


def _seconds_worked(at: Stores, source: Source, under: Shedding | None) -> float:
    with ExitStack() as stack:
        log = stack.enter_context(closing(open_log(source.log)))
        registry = stack.enter_context(closing(open_registry(source.registry)))
        folder = at.home / f"lake-{'processed' if under is None else 'shed'}"
        lake = stack.enter_context(closing(open_lake(folder)))
        line = WritersLine("trades", log, registry, lake, WriterOptions(), lambda step: None)
        stack.enter_context(closing(line))
        began = time.perf_counter()
        while line.step(None, at_once=True, shedding=under):
            pass
        line.finish()
        return time.perf_counter() - began


def _sustained(at: Stores, scale: _Scale) -> tuple[float, float]:
    """Records a second that the producer makes, and that a slowed writer sustains."""
    source = _source(at, 1)
    made = Torrent(source, source.declare()).send(scale.records)
    return made, _drained(at, source)


def _drained(at: Stores, source: Source) -> float:
    """Records a second of a backlog, from the writer's first commit to its last."""
    with (
        closing(open_log(source.log)) as log,
        closing(open_lake(at.home / "lake")) as lake,
        _writer(at, {}) as writer,
    ):
        witness = Witness(log, lake.table("trades"))
        while not witness.lag or witness.lag[-1]:
            writer.look(witness)
            time.sleep(_LOOK_SECONDS)
    steps = np.flatnonzero(np.diff(witness.lag))
    # Too few commits to count between: then the start of the process counts as well.
    first = int(steps[0]) + 1 if len(steps) > 2 else 0
    return (witness.lag[first] - witness.lag[-1]) / (witness.seconds[-1] - witness.seconds[first])


class _Writer:
    """A writer's process that runs for `_SHARE` of each `_PERIOD` alone, by a thread of this one.

    From when it is first seen at work: to start would take a minute at such a share.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def _run(self) -> None:
        while not self._ended.wait(_SHARE * _PERIOD):
            self._process.send_signal(signal.SIGSTOP)
            self._ended.wait((1 - _SHARE) * _PERIOD)
            self._process.send_signal(signal.SIGCONT)

    def check(self) -> None:
        """It lives."""
        assert self._process.poll() is None, "the writer has ended"

    def look(self, witness: Witness) -> None:
        """Have the witness look at it."""
        self.check()
        witness.look(self._process.pid)
        if witness.is_at_work and self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def let_go(self) -> None:
        """Let it run all the time."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def _writer(at: Stores, settings: Mapping[str, str]) -> Iterator[_Writer]:
    with k2(at.home, "ingest", environment={**at.environment, **settings}) as process:
        writer = _Writer(process)
        try:
            yield writer
        finally:
            writer.let_go()


# ------------------------------------------------------------------------- overloaded


class _Overload:
    """One run: a writer, and more than it can take."""

    def __init__(self, at: Stores, scale: _Scale, seed: int) -> None:
        self._at, self._scale, self._seed = at, scale, seed
        self._struck: Level | None = None
        self._parts = Parts()

    def run(self, factor: int, sustained: float, *, kill: bool) -> None:
        """Overload the writer, wait until all has come in, and print what was seen."""
        source, rate = _source(self._at, self._seed), factor * sustained
        torrent = Torrent(source, source.declare())
        with ExitStack() as stack:
            log = stack.enter_context(closing(open_log(source.log)))
            lake = stack.enter_context(closing(open_lake(self._at.home / "lake")))
            table = lake.table("trades")
            writer = stack.enter_context(self._start())
            while not committed(table.snapshot()):
                writer.check()
                time.sleep(_LOOK_SECONDS)
            self._parts.end("start")
            process = stack.enter_context(torrent.running(rate, self._scale.seconds))
            witness = Witness(log, table)
            patience = time.monotonic() + _PATIENCE * self._scale.seconds
            while time.monotonic() < patience:
                if not process.is_alive() and "overload" not in dict(self._parts):
                    self._parts.end("overload")
                is_over = not process.is_alive()
                writer.look(witness)
                if is_over and witness.is_calm:
                    break
                if is_over and not witness.level[-1]:
                    # What was shed would take ten minutes to come in at such a share.
                    writer.let_go()
                if kill and self._is_to_strike(witness):
                    writer.kill()
                    writer = stack.enter_context(self._start())
                time.sleep(_LOOK_SECONDS)
            self._parts.end("until all was in and calm")
            shed = shed_totals(lake)
        killed = ", killed" if kill else ""
        title = f"{factor} x what it sustains, seed {self._seed}{killed}"
        self._tell(title, witness, (rate, torrent.sent), shed)

    def _start(self) -> AbstractContextManager[_Writer]:
        return _writer(self._at, self._scale.settings)

    def _is_to_strike(self, witness: Witness) -> bool:
        level, least = Level(witness.level[-1]), _STRUCK[(self._seed - 1) % len(_STRUCK)]
        # Level 4 sheds at its end, and is level 3 by then.
        has_shed = witness.waiting[-1] or level is Level.CIRCUIT_BREAK
        if self._struck is not None or level < least or not has_shed:
            return False
        self._struck = level
        return True

    def _tell(
        self, title: str, witness: Witness, made: tuple[float, int], shed: tuple[int, int]
    ) -> None:
        rate, sent = made
        asked = rate * self._scale.seconds
        bounded = ", all that it could" if sent < 0.95 * asked else ""
        audit = audited(self._at.home, self._at.environment)
        self._parts.end("audit")
        ages, filled, points = witness.freshness()
        self._plot(title, witness, points)
        self._parts.end("freshness and plot")
        felt = [(f"at level {level.value}, {level.name}", of) for level, of in ages.items()]
        felt += [("shed whole at level 4, brought in later", filled)] if len(filled) else []
        late: list[list[object]] = [
            [f"tier 1 ({FIRST_SHARE:.0%}), {name}: visible after, s, p99", _late(of)]
            for name, of in felt
        ]
        shown: list[list[object]] = [
            ["records/s asked of the producer", f"{rate:,.0f}"],
            [f"records/s produced{bounded}", f"{sent / self._scale.seconds:,.0f}"],
            ["levels, in order", " ".join(map(str, _turns(witness.level)))],
            ["writer killed at", "no level" if self._struck is None else self._struck.name],
            *late,
            ["most lag, records", f"{max(witness.lag):,}"],
            ["records shed", f"{shed[0]:,}"],
            ["… brought in again", f"{shed[1]:,}"],
            ["… most of them at once", f"{max(witness.waiting):,}"],
            ["from the last record until level 0", _seconds(witness.after(witness.level))],
            [
                "… until all that was shed is in, no longer slowed",
                _seconds(witness.after(witness.waiting)),
            ],
            ["audit", audit],
            *([f"seconds: {name}", seconds] for name, seconds in self._parts),
        ]
        show(title, ["", ""], shown)

    def _plot(self, title: str, witness: Witness, points: list[tuple[float, float]]) -> None:
        at = witness.seconds
        fresh = Line("freshness", [p[0] for p in points], [p[1] for p in points])
        panels = [
            Panel("records produced a second", [Line("produced", at, witness.rate())]),
            Panel(
                "records",
                [Line("lag", at, witness.lag), Line("shed and not in yet", at, witness.waiting)],
            ),
            Panel("level", [Line("level", at, witness.level, steps=True)]),
            Panel("tier 1: seconds from produced to visible, p99 of each commit", [fresh]),
        ]
        _PLOTS.mkdir(parents=True, exist_ok=True)
        killed = "-killed" if title.endswith("killed") else ""
        path = _PLOTS / f"{title.split()[0]}x-seed{self._seed}{killed}.svg"
        write_svg(path, title, panels)
        console.print(f"plot: {path}")


def _late(ages: Ages) -> str:
    p50, p99 = np.percentile(ages, [50, 99])
    return f"{p99:,.3g} (p50 {p50:,.3g}, of {len(ages):,})"


def _seconds(value: float | None) -> str:
    return "not within the time" if value is None else f"{value:,.1f} s"


def _turns(values: list[int]) -> list[int]:
    """The values without repetitions that follow each other."""
    return [value for n, value in enumerate(values) if n == 0 or value != values[n - 1]]
