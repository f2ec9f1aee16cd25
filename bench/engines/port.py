"""What an engine of the comparison is. Its module has `TITLE`, `NEEDS` (the package that must be
there), `NOTE` (what a reader of its figures must know; empty: nothing) and `open_engine(home)`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from bench.questions import Question


class Engine(Protocol):
    """An engine that holds the trades and quotes of a home (see `bench.home.settled`), open.

    Whoever opened it closes it; one thread asks. What it keeps is below the home, in a folder of
    its own, loaded before it is opened and left alone from then on.
    """

    def asking(self, question: Question) -> Callable[[], Any] | None:
        """What answers the question each time that it is called, in the form in which the engine's
        users get answers; None where the engine does not hold what is asked for.

        What can be prepared once is: only the call is timed.
        """

    def to_table(self, answer: Any, question: Question) -> pa.Table:
        """The answer with the question's columns, by name; not timed.

        Times are zoned or UTC. Records are in time order, everything else in any order.
        """

    def close(self) -> None:
        """Let go of memory and files."""
