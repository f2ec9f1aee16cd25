"""A batch of Avro messages while it is read, and which of them are broken."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from k2.model.plan import Step
from k2.model.words import (
    FIRST_BYTES,
    TAIL_BYTES,
    WINDOW_BYTES,
    Ints,
    Mask,
    U,
    Window,
    unpack_varints,
    unzigzag,
    varint_ends,
)

CUT: Final = "the message ends inside it"


class Messages:
    """A batch of messages while it is read: where each stands, and which are broken.

    In front of the bytes stands a run of zeros: what is null or broken reads there, and so yields
    zeros without leaving the loop-free path.
    """

    def __init__(self, values: pa.BinaryArray, zero_bytes: int) -> None:
        self.count = len(values)
        _, offsets_buffer, content = values.buffers()
        wide = pa.types.is_large_binary(values.type)
        stored = np.frombuffer(offsets_buffer, np.int64 if wide else np.int32)
        offsets: Ints = stored[values.offset : values.offset + self.count + 1].astype(np.int64)
        low, high = int(offsets[0]), int(offsets[-1])
        zeros = zero_bytes + 2 * WINDOW_BYTES
        self.data = np.empty(zeros + high - low + TAIL_BYTES, np.uint8)
        self.data[:zeros] = 0
        self.data[-TAIL_BYTES:] = 0
        if high > low:
            self.data[zeros:-TAIL_BYTES] = np.frombuffer(content, np.uint8)[low:high]
        offsets += zeros - low
        self.end: Ints = offsets[1:]
        self.window = Window(self.data, offsets[:-1].copy(), self.end)
        self.errors: dict[int, str] = {}
        self._broken: list[Ints] = []
        if values.null_count:
            self.fail("message", values.is_null().to_numpy(zero_copy_only=False), "has no value")
            self._drop_broken()

    def fail(self, name: str, which: Mask, why: str, window: Window | None = None) -> None:
        """Mark messages as broken.

        With a window: it has moved past the bytes that gave the reason; where they lie behind
        the message's end, the reason is that it ends.
        """
        rows = np.flatnonzero(which)
        cut = window.position() > self.end if window else np.zeros(self.count, np.bool_)
        for row in rows.tolist():
            self.errors.setdefault(row, f"{name}: {CUT if cut[row] else why}")
        self._broken.append(rows)

    def _drop_broken(self) -> None:
        for rows in self._broken:
            self.window.drop(rows)
        self._broken.clear()

    def finish(self) -> None:
        """Mark messages that go on behind their last field."""
        rest = self.end - self.window.position()
        for row in np.flatnonzero(rest).tolist():
            self.errors.setdefault(row, f"{rest[row]} bytes are left over after the last field")

    def read(self, step: Step, reader: "Reader") -> pa.Array:
        """Read one field of every message: by `reader`, from those that have a value."""
        present = self._branch(step)
        if present is None:
            column = reader(self, step, self.window, None)
        elif not present.any():
            return pa.nulls(self.count, step.arrow)
        else:
            here = self.window.position()
            aside = Window(self.data, np.where(present, here, 0), self.end)
            column = reader(self, step, aside, present)
            self.window.go(np.where(present, aside.position(), here))
        beyond = self.window.beyond()
        if beyond is not None:
            self.fail(step.source.name, beyond, CUT)
        self._drop_broken()
        return column

    def _branch(self, step: Step) -> Mask | None:
        """Which messages have a value; None where all have. Steps over the union's number."""
        null = step.source.null_branch
        if null is None:
            return None
        number = self.window.byte()
        present = number == 2 - 2 * null
        if present.all():
            self.window.move(1)
            return None
        absent = number == 2 * null
        if (present | absent).all():
            self.window.move(1)
        else:
            branch = self.varint(step.source.name, self.window)
            present, absent = branch == 1 - null, branch == null
            strange = ~(present | absent)
            if strange.any():
                self.fail(step.source.name, strange, "no such branch of the union", self.window)
        if step.target.null_branch is None and absent.any():
            self.fail(step.source.name, absent, "is null, and may not be", self.window)
        self._drop_broken()
        return None if present.all() else present

    def varint(self, name: str, window: Window) -> Ints:
        """The next signed number of each message; moves over it."""
        byte = window.byte()
        if (byte < 0x80).all():
            window.move(1)
            return unzigzag(byte.astype(np.uint64))
        word = window.word()
        ends = varint_ends(word)
        if ends[0] and (ends == ends[0]).all():
            size = int(ends[0]).bit_length() // 8
            window.move(size)
            return unzigzag(unpack_varints(word & FIRST_BYTES[size], size))
        taken = ends ^ (ends - U(1))
        number = unpack_varints(taken & word)
        sizes = (np.bitwise_count(taken) >> 3).astype(np.int64)
        endless = None
        if not ends.all():
            endless = self._finish_varints(np.flatnonzero(ends == 0), number, sizes, window)
        window.move(sizes)
        if endless is not None and endless.any():
            self.fail(name, endless, "a number of more than 64 bits", window)
        return unzigzag(number)

    def _finish_varints(self, rows: Ints, number: Any, sizes: Ints, window: Window) -> Mask:
        """Add the ninth and tenth bytes of numbers; which are longer than 64 bits."""
        place = window.position()[rows]
        ninth = self.data[place + 8].astype(np.uint64)
        tenth = self.data[place + 9].astype(np.uint64)
        more = ninth >= 0x80
        sizes[rows] = np.where(more, 10, 9)
        number[rows] |= (ninth & U(0x7F)) << U(56)
        number[rows] |= np.where(more, tenth & U(1), U(0)) << U(63)
        endless = np.zeros(self.count, np.bool_)
        endless[rows] = more & (tenth > 1)
        return endless

    def sized(self, name: str, window: Window) -> tuple[Ints, Ints]:
        """Start and size of bytes that follow their length, all of them there; moves over them."""
        size = self.varint(name, window)
        start = window.position()
        wrong = (size < 0) | (size > self.end - start)
        if wrong.any():
            negative = wrong & (size < 0)
            self.fail(name, negative, "its length is negative", window)
            self.fail(name, wrong & ~negative, CUT)
            size[wrong] = 0
            start[wrong] = 0
        window.move(size)
        return start, size


Reader = Callable[[Messages, Step, Window, Mask | None], pa.Array]
"""Reads a field at the window, for the messages of the mask (None: all), and moves on over it."""
