"""What a question is answered with, whichever file answers it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import pyarrow as pa

from k2.query.gaps import Gap
from k2.query.page import Page
from k2.query.port import Engine
from k2.query.selection import Past, Selection
from k2.query.sessions import Sessions
from k2.query.view import View

PRICE_NOTE: Final = "only trades that form prices; --all-trades (all_trades) takes the others in"


class Viewing(Protocol):
    """Gives the view of a kind that a question is to be answered from (`Reader._view`)."""

    def __call__(
        self, kind: str, past: Past, selection: Selection, *, page: Page | None = None
    ) -> View:
        """The view, of trades with what corrections made of those selected; as `page` saw it."""


@dataclass(frozen=True)
class Asking:
    """The engine, the views, the gaps that a view's answer touches, the declared sessions, and the
    clock.
    """

    engine: Engine
    view: Viewing
    gaps: Callable[[View, Selection, pa.Table], list[Gap]]
    sessions: Callable[[], Sessions]
    clock: Callable[[], datetime]
