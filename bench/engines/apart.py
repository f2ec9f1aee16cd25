"""An engine in a process of its own, so that neither its threads nor its memory are another's."""

import multiprocessing
import traceback
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.engines import engine
from bench.questions import Question
from bench.report import Timing, timed
from k2.errors import Broken, Unavailable

_PATIENCE_SECONDS = 30


class Apart:
    """An engine over a home, loaded and open; whoever makes it closes it.

    Raises `Unavailable` where a part that it needs cannot be loaded, `Broken` when it fails.
    """

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.title: str = engine(name).TITLE
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, home, theirs), daemon=True)
        self._process.start()
        # Only the process itself holds that end then: when it dies, this one hears of it.
        theirs.close()
        self._receive()

    def answer(self, question: Question) -> pa.Table | None:
        """The answer, with the question's columns; None where the engine cannot be asked that."""
        self._pipe.send((question, None))
        found: pa.Table | None = self._receive()
        return found

    def timed(self, question: Question, seconds: float) -> Timing:
        """How long answers take, asked again and again for so long."""
        self._pipe.send((question, seconds))
        found: Timing = self._receive()
        return found

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._pipe.send(None)
        self._process.join(_PATIENCE_SECONDS)
        self._process.kill()
        self._pipe.close()

    def _receive(self) -> Any:
        try:
            kind, found = self._pipe.recv()
        except EOFError as error:
            self._process.join(_PATIENCE_SECONDS)
            raise Broken(
                "the engine's process died", place=self.title, found=f"{self._process.exitcode}"
            ) from error
        if kind == "found":
            return found
        self.close()
        raise (Unavailable if kind == "missing" else Broken)(found, place=self.title)


def _serve(name: str, home: Path, pipe: Connection) -> None:
    """Load, then answer until told to end."""
    try:
        opened = engine(name).open_engine(home)
    except ImportError as error:
        pipe.send(("missing", f"{error}"))
        return
    except Exception:  # noqa: BLE001 - told to whoever waits, who raises it
        pipe.send(("failed", traceback.format_exc()))
        return
    with closing(opened):
        pipe.send(("found", None))
        while (asked := pipe.recv()) is not None:
            try:
                pipe.send(("found", _done(opened, *asked)))
            except Exception:  # noqa: BLE001 - as above
                pipe.send(("failed", traceback.format_exc()))


def _done(opened: Any, question: Question, seconds: float | None) -> pa.Table | Timing | None:
    run: Callable[[], Any] | None = opened.asking(question)
    if run is None:
        return None
    if seconds is None:
        return opened.to_table(run(), question)
    # Where only a moment is to be spent, slow answers are asked for a few times.
    return timed(run, seconds=seconds, at_least=15 if seconds >= 1 else 3)
