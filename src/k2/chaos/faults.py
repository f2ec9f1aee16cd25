"""Where faults strike: a seam is armed beforehand, and strikes when it is used.

Everything is drawn by the caller, so that one seed makes one run.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from k2.errors import Unavailable

Tally: TypeAlias = Counter[tuple[str, str]]
"""How often a fault struck, by seam and kind."""


class Killed(BaseException):
    """The process ends here as if it was killed: nobody may catch this and go on."""


def away(what: str) -> Unavailable:
    """The error of something that does not answer now; whoever waits may try again at once."""
    return Unavailable(f"{what} does not answer (chaos)", retry_after=0.0)


@dataclass
class _Armed:
    kind: str
    points: Collection[str]
    after: int
    times: int
    is_told: bool = False


@dataclass
class Seam:
    """One seam of one process. Faults that struck are counted in `tally` under `name`."""

    name: str
    tally: Tally
    _armed: list[_Armed] = field(default_factory=list)

    def arm(self, kind: str, points: Collection[str], *, after: int = 0, times: int = 1) -> None:
        """Have `kind` strike at these points: `times` times, once they were passed `after` times.

        That counts as one fault.
        """
        self._armed.append(_Armed(kind, points, after, times))

    def go_on_with(self, kind: str, points: Collection[str]) -> None:
        """Have `kind` strike next as a part of the fault that strikes now."""
        self._armed.append(_Armed(kind, points, 0, 1, is_told=True))

    def strikes(self, point: str) -> str | None:
        """The kind of fault that strikes now, if one does."""
        for armed in self._armed:
            if point not in armed.points:
                continue
            if armed.after:
                armed.after -= 1
                continue
            if not armed.is_told:
                armed.is_told = True
                self.tally[self.name, armed.kind] += 1
            armed.times -= 1
            if not armed.times:
                self._armed.remove(armed)
            return armed.kind
        return None

    def calm(self) -> None:
        """Have nothing more strike."""
        self._armed.clear()
