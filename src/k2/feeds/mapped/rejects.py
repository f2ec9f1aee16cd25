"""Records of a file that cannot be taken, as records of kind `rejects`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.feeds.mapped.records import constant
from k2.model import TIMESTAMP_TYPE, latest

Mask = npt.NDArray[np.bool_]
Why = tuple[str | None, str, str | None]
"""Column (None: the whole record), reason, and what was expected."""


@dataclass(frozen=True)
class Origin:
    """Where rejected records come from: what they would have been, by which source, which file."""

    exchange: str
    kind: str
    source: str
    file: str


def to_rejects(
    origin: Origin, lines: Any, why: Sequence[Why], raw: Sequence[bytes], now: datetime
) -> pa.Table:
    """A row each, kept whole: `lines` are line or record numbers, counted from 1, `now` a time
    with its zone.
    """
    schema = latest("rejects").arrow
    n = len(why)
    if n == 0:
        return schema.empty_table()
    columns = {
        "exchange": constant(origin.exchange, n),
        "kind": constant(origin.kind, n),
        "source": constant(origin.source, n),
        "file": constant(origin.file, n),
        "line": pa.array(lines, pa.int64()),
        "column": pa.array([column for column, _, _ in why], pa.string()),
        "reason": pa.array([reason for _, reason, _ in why], pa.string()),
        "expected": pa.array([expected for _, _, expected in why], pa.string()),
        "raw": pa.array(raw, pa.binary()),
        "ingestion_timestamp": pa.repeat(pa.scalar(now, TIMESTAMP_TYPE), n),
    }
    return pa.Table.from_arrays([columns[f.name].cast(f.type) for f in schema], schema=schema)


class Verdicts:
    """Why rows are refused: for each the first reason, or none."""

    def __init__(self, n: int) -> None:
        self.codes = np.zeros(n, np.int32)
        self.reasons: list[tuple[str | None, str, str | None]] = []
        """Column, reason, and what was expected; a row's code counts them from 1."""

    def refuse(
        self, bad: Mask, column: str | None, reason: str, expected: str | None = None
    ) -> None:
        """Refuse the rows of the mask, but for those that are."""
        bad = bad & (self.codes == 0)
        if bad.any():
            self.reasons.append((column, reason, expected))
            self.codes[bad] = len(self.reasons)

    @property
    def good(self) -> Mask:
        """The rows that are not refused."""
        found: Mask = self.codes == 0
        return found
