"""How much a question reads, at most: quick ones need not wait behind those that read a lot.

Who asks says how much may be read in place; an engine weighs what it is about to read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_most: ContextVar[int | None] = ContextVar("k2_most_rows", default=None)


class Heavy(Exception):
    """The question reads more than it may here: it is asked again where there is time for it."""


@contextmanager
def at_most(rows: int) -> Iterator[None]:
    """What is asked within this block raises `Heavy` rather than read files with more rows.

    Holds for the thread (or task) that enters the block.
    """
    token = _most.set(rows)
    try:
        yield
    finally:
        _most.reset(token)


def weigh(rows: int) -> None:
    """Say that so many rows are about to be read, at most. Raises `Heavy`."""
    most = _most.get()
    if most is not None and rows > most:
        raise Heavy
