"""Figures of the evidence: each with what it stands beside, its aim, and whether that is held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.report import Timing

# Wider than the others: an engine's figures are a column.
_console: Final = Console(width=220)

MEASURES: Final[Mapping[str, str]] = {
    "figure": "",
    "p99": "p99 ",
    "ratio": "ratio ",
    "tail": "p99/p50 ",
}
"""What an aim may be about, and how it is spelt: `tail` is p99 over p50."""


@dataclass(frozen=True)
class Aim:
    """A bound on one of the `MEASURES` of a line: at most, or at least."""

    measure: str
    most: float | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        assert self.measure in MEASURES
        assert (self.most is None) != (self.least is None)

    def holds(self, value: float) -> bool:
        """Whether the value is within."""
        if self.most is not None:
            return value <= self.most
        return self.least is not None and value >= self.least

    def __str__(self) -> str:
        sign, bound = ("<=", self.most) if self.most is not None else (">=", self.least)
        return f"{MEASURES[self.measure]}{sign} {bound:,g}"


@dataclass(frozen=True)
class Line:
    """A figure of K2's.

    `figure` (of what was timed the median) and `p99` are in `unit`; `peers` took so many seconds
    for the same, by their names. `beside` is what the ratio is to, its name and its figure: by
    default the quickest of the peers.
    """

    what: str
    figure: float
    p99: float | None = None
    unit: str = "ms"
    peers: Mapping[str, Timing] = field(default_factory=dict)
    beside: tuple[str, float] | None = None
    aims: tuple[Aim, ...] = ()

    @classmethod
    def of(
        cls,
        what: str,
        took: Timing,
        *aims: Aim,
        peers: Mapping[str, Timing] | None = None,
        beside: tuple[str, Timing] | None = None,
    ) -> "Line":
        """What was timed, in milliseconds."""
        against = (beside[0], beside[1].p50 * 1e3) if beside else None
        p50, p99 = took.p50 * 1e3, took.p99 * 1e3
        return cls(what, p50, p99, peers=peers or {}, beside=against, aims=aims)

    @property
    def against(self) -> tuple[str, float] | None:
        """Name and figure of what the ratio is to; None where there is nothing."""
        if self.beside is not None or not self.peers:
            return self.beside
        name = min(self.peers, key=lambda each: self.peers[each].p50)
        return name, self.peers[name].p50 * 1e3

    def value(self, measure: str) -> float | None:
        """One of the `MEASURES`; None where there is none."""
        if measure == "figure":
            return self.figure
        if measure == "p99":
            return self.p99
        if measure == "tail":
            return None if self.p99 is None else self.p99 / self.figure
        return None if self.against is None else self.figure / self.against[1]

    def is_held(self, aim: Aim) -> bool:
        """Whether an aim is: one without a figure is not."""
        value = self.value(aim.measure)
        return value is not None and aim.holds(value)


def show_lines(title: str, lines: Sequence[Line], notes: Sequence[str] = ()) -> None:
    """Print one table of all lines, what a reader must know of it, and how many aims are held."""
    peers = list(dict.fromkeys(name for line in lines for name in line.peers))
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("", "K2", "p99/p50", *peers, "ratio", "to", "aim", "held"):
        table.add_column(column, justify="left" if column in ("", "to", "aim") else "right")
    for line in lines:
        table.add_row(
            line.what if line.unit == "ms" else f"{line.what}, {line.unit}",
            _pair(line.figure, line.p99),
            _told(line.value("tail")),
            *(_took(line.peers.get(name)) for name in peers),
            _told(line.value("ratio")),
            _named(line),
            ", ".join(map(str, line.aims)),
            ", ".join("yes" if line.is_held(aim) else "NO" for aim in line.aims),
        )
    _console.print(table)
    held = [line.is_held(aim) for line in lines for aim in line.aims]
    notes = [
        "ms are p50 / p99; a ratio of p50s below 1 is quicker, one of requests/s above 1",
        *notes,
    ]
    for note in [*notes, f"held: {sum(held)} of {len(held)} aims"]:
        _console.print(note, style="dim", highlight=False)


def _named(line: Line) -> str:
    """What the ratio is to; where no column has its figure, with that."""
    if line.against is None:
        return ""
    name, figure = line.against
    return name if name in line.peers else f"{name}: {_told(figure)}"


def _took(timing: Timing | None) -> str:
    return "-" if timing is None else _pair(timing.p50 * 1e3, timing.p99 * 1e3)


def _pair(figure: float, p99: float | None) -> str:
    return _told(figure) if p99 is None else f"{_told(figure)} / {_told(p99)}"


def _told(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
