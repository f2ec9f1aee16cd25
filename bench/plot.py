"""A plot as SVG, by hand: panels below each other that share the time, lines or steps in each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

_WIDTH: Final = 900
_HEIGHT: Final = 130
_LEFT: Final = 90
_RIGHT: Final = _WIDTH - 20
_COLOURS: Final = ("#1f6feb", "#cf222e")


@dataclass(frozen=True)
class Line:
    """Values over seconds; `steps`: each holds until the next."""

    name: str
    seconds: Sequence[float]
    values: Sequence[float]
    steps: bool = False


@dataclass(frozen=True)
class Panel:
    """One line or two that share an axis, which begins at 0."""

    title: str
    lines: Sequence[Line]


def write_svg(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Write the plot: time goes to the last second of any line."""
    last = max(line.seconds[-1] for panel in panels for line in panel.lines if line.seconds)
    height = 60 + len(panels) * (_HEIGHT + 34)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        _text(_LEFT, 22, title, "start"),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, 50 + number * (_HEIGHT + 34), last)
    step = _round_up(last / 10)
    for tick in range(int(last / step) + 1):
        at = _LEFT + tick * step / last * (_RIGHT - _LEFT)
        parts.append(_text(at, height - 22, f"{tick * step:g} s", "middle"))
    path.write_text("\n".join([*parts, "</svg>"]), "utf-8")


def _panel(panel: Panel, top: float, last: float) -> list[str]:
    most = _round_up(max((value for line in panel.lines for value in line.values), default=1.0))
    parts = [_text(_LEFT, top - 6, panel.title, "start")]
    for part in (0.0, 0.5, 1.0):
        y = top + (1 - part) * _HEIGHT
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#d0d7de"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{most * part:,.{0 if most > 5 else 2}f}", "end"))
    for number, (line, colour) in enumerate(zip(panel.lines, _COLOURS, strict=False)):
        drawn = "M"
        for second, value in zip(line.seconds, line.values, strict=True):
            x = _LEFT + second / last * (_RIGHT - _LEFT)
            y = top + (1 - value / most) * _HEIGHT
            drawn += f"H{x:.1f}V{y:.1f}" if line.steps and drawn != "M" else f"{x:.1f} {y:.1f} "
        if line.seconds:
            parts.append(f'<path d="{drawn}" fill="none" stroke="{colour}"/>')
        parts.append(_text(_RIGHT - 170 * number, top - 6, line.name, "end", colour))
    return parts


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#24292f") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(text)}</text>'


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 …"""
    unit = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(unit * step for step in (1, 2, 5, 10) if value <= unit * step * 1.000001)
