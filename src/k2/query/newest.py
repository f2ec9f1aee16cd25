"""The newest rows of each symbol, looking back no further than needed.

Comes in: a question that can be asked from any time on. Goes out: the newest rows of each.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from k2.query.selection import Selection

Ask = Callable[[Selection, datetime | None], pa.Table]
"""The newest rows of each symbol that are whole if nothing before a time (None: all) is read."""

_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Newest:
    """`count` rows of each that `by` tells apart (symbol, or symbol and exchange); `exchanges` are
    those that rows may be of. Rows come in the order of `by` and `time`.
    """

    count: int
    by: tuple[str, ...]
    time: str
    exchanges: tuple[str, ...]

    def of(self, ask: Ask, starts: Iterable[datetime | None], selection: Selection) -> pa.Table:
        """The rows. `starts` are ever earlier times to read from, the last one None.

        What has enough is done; the others are looked for over ever wider times.
        """
        done: list[pa.Table] = []
        complete: set[tuple[str, ...]] = set()
        for start in starts:
            found = self._without(ask(selection, start), complete)
            if start is None:
                return self._joined([*done, found])
            enough = self._with_enough(found)
            done.append(self._without(found, set(self._keys(found)) - enough))
            complete |= enough
            if selection.symbols:
                left = self._left(selection, complete)
                if left is None:
                    break
                selection = left
        return self._joined(done)

    def _left(self, selection: Selection, complete: set[tuple[str, ...]]) -> Selection | None:
        """The selection without those that are complete; None if all are."""
        if len(self.by) == 1:
            symbols = tuple(s for s in selection.symbols if (s,) not in complete)
            return replace(selection, symbols=symbols) if symbols else None
        left = [
            (symbol, exchange)
            for symbol in selection.symbols
            for exchange in selection.exchanges or self.exchanges
            if (symbol, exchange) not in complete
        ]
        if not left:
            return None
        return replace(
            selection,
            symbols=tuple(dict.fromkeys(symbol for symbol, _ in left)),
            exchanges=tuple(dict.fromkeys(exchange for _, exchange in left)),
        )

    def _keys(self, rows: pa.Table) -> list[tuple[str, ...]]:
        unique = rows.group_by(list(self.by)).aggregate([])
        return list(zip(*(unique[name].to_pylist() for name in self.by), strict=True))

    def _with_enough(self, rows: pa.Table) -> set[tuple[str, ...]]:
        counted = rows.group_by(list(self.by)).aggregate([([], "count_all")])
        counted = counted.filter(pc.greater_equal(counted["count_all"], self.count))
        return set(self._keys(counted))

    def _without(self, rows: pa.Table, keys: set[tuple[str, ...]]) -> pa.Table:
        if not keys or not rows.num_rows:
            return rows
        joined = pc.binary_join_element_wise(*(rows[name] for name in self.by), _SEPARATOR)
        gone = pa.array([_SEPARATOR.join(key) for key in keys], pa.string())
        return rows.filter(pc.invert(pc.is_in(joined, value_set=gone)))

    def _joined(self, parts: Sequence[pa.Table]) -> pa.Table:
        if len(parts) == 1:
            return parts[0]
        joined = pa.concat_tables(parts)
        # Rows of one key come from one part alone, and stand in order there.
        order = [(name, "ascending") for name in (*self.by, self.time)]
        return joined.sort_by(order)
