"""One state of a kind, named once and looked at again and again while it is read.

It is looked at anew each time, since its files are compacted and removed meanwhile.
"""

from dataclasses import replace

from k2.query.corrections import corrected
from k2.query.page import NO_COMMIT, Page
from k2.query.port import Engine, Pin
from k2.query.position import Key
from k2.query.selection import NOW, Past, Selection
from k2.query.state import State
from k2.query.view import View
from k2.query.zones import from_us, to_us


def newest_page(state: State, kind: str, past: Past = NOW) -> Page:
    """The state of a kind now, or in the past, and that of the corrections that go with it."""
    view = state.view(kind, as_of=past.as_of)
    known_at = None
    if past.as_known_at is not None:
        known_at = to_us(state.known_at(kind, past.as_known_at))
    beside = state.corrections(as_of=past.as_of) if kind == "trades" else None
    pin = NO_COMMIT if beside is None else beside.pinned
    return Page(view.pinned, (), pin, known_at)


def look(
    state: State,
    engine: Engine,
    kind: str,
    page: Page,
    selection: Selection | None,
    *,
    asked: Selection,
    beyond: Pin | None = None,
    history: bool = False,
) -> View:
    """The state of a kind, beyond an earlier one; as corrections left the selection's trades
    (None: as they came). Raises `Refused` where that state had rows of the selection, or else of
    all that is `asked`, that were retired since.
    """
    known_at = None if page.known_at is None else from_us(page.known_at)
    # What an earlier state told is not needed again.
    wanted = (selection or asked) if beyond is None else None
    view = state.view(kind, page=page, beyond=beyond, selection=wanted)
    view = replace(view, known_at=known_at, history=history)
    if selection is not None:
        view = view.of_symbols(selection.symbols)
    if kind == "trades" and selection is not None:
        beside = state.corrections(pin=page.corrections)
        if beside is not None:
            beside = replace(beside, known_at=known_at)
        view = corrected(engine, view, beside, selection)
    return view


def rest_of(selection: Selection, key: Key | None) -> Selection:
    """What of a selection may lie behind the row of that key (None: all)."""
    return selection if key is None else replace(selection, start=from_us(int(key[0])))
