"""Files of rows that cite places in the log: each read once, and then asked span by span."""

from collections import Counter
from collections.abc import Mapping
from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.ingest.verified import Place

Offsets = npt.NDArray[np.int64]


class CitingFile:
    """A file of rows that cite places in the log; read when first asked, and then span by span.

    Of rows that say which commit brought them in, those of commits after `since` are meant.
    """

    def __init__(self, fate: str, path: str, *, of_records: bool = False, since: int = 0) -> None:
        self.fate = fate
        self.problem: str | None = None
        self.rows: Mapping[tuple[str, str], int] = {}
        """By topic and identity of the log, how many rows came from there."""
        self._path = path
        self._since = since
        self._hint = " (`k2 rebuild` makes its rows again)" if of_records else ""
        self._bounds: dict[Place, tuple[int, int]] | None = None
        self._cited: dict[Place, Offsets] | None = None

    def offsets(self, place: Place, low: int, high: int) -> Offsets:
        """Offsets of one partition within [low, high) that rows cite, each as often as cited."""
        if self._bounds is not None:
            first, last = self._bounds.get(place, (0, -1))
            if last < low or first >= high:
                return _NO_OFFSETS
        if self._cited is None:
            self._cited = self._read()
        found = self._cited.get(place, _NO_OFFSETS)
        return found[(found >= low) & (found < high)]

    def release(self) -> None:
        """Forget the rows; where they lie stays known, so that other spans may leave them out."""
        self._cited = None

    def _read(self) -> dict[Place, Offsets]:
        try:
            table = self._table()
        except FileNotFoundError:
            # Its rows are missed one by one; this says why.
            self.problem = f"the file {self._path} is gone{self._hint}"
            table = _CITED.empty_table()
        except (OSError, pa.ArrowException) as error:
            self.problem = f"the file {self._path} cannot be read{self._hint}: {error}"
            table = _CITED.empty_table()
        found = table.group_by(_PLACE).aggregate([([], "count_all")])
        counts = Counter[tuple[str, str]]()
        cited: dict[Place, Offsets] = {}
        for row in found.to_pylist():
            topic, log_id, partition = (row[name] for name in _PLACE)
            counts[topic, log_id] += row["count_all"]
            mine = table
            if found.num_rows > 1:
                tests = (pc.equal(table[name], row[name]) for name in _PLACE)
                mine = table.filter(reduce(pc.and_, tests))
            cited[topic, log_id, partition] = mine["log_offset"].to_numpy()
        self.rows = counts
        self._bounds = {place: (int(o.min()), int(o.max())) for place, o in cited.items()}
        return cited

    def _table(self) -> pa.Table:
        """The places of its rows, of those that commits after `since` brought in."""
        file = pq.ParquetFile(self._path, read_dictionary=["log_topic", "log_id"])
        columns = [name for name in (*_CITED.names, _COMMIT) if name in file.schema_arrow.names]
        if not self._since or _COMMIT not in columns:
            found = file.read(columns=_CITED.names)
        else:
            found = file.read_row_groups(self._later_groups(file), columns=columns)
            of = found[_COMMIT]
            found = found.filter(
                pc.or_(of.is_null(), pc.fill_null(pc.greater(of, self._since), True))
            )
        return found.select(_CITED.names).cast(_CITED).unify_dictionaries().combine_chunks()

    def _later_groups(self, file: pq.ParquetFile) -> list[int]:
        """The row groups that may have such rows."""
        at = file.schema_arrow.names.index(_COMMIT)
        found = []
        for number in range(file.num_row_groups):
            of = file.metadata.row_group(number).column(at).statistics
            known = of is not None and of.has_min_max and of.has_null_count and not of.null_count
            if not known or of.max > self._since:
                found.append(number)
        return found


_NO_OFFSETS: Final = np.zeros(0, np.int64)
_COMMIT: Final = "commit_sequence"
_PLACE: Final = ["log_topic", "log_id", "log_partition"]
_ENCODED: Final = pa.dictionary(pa.int32(), pa.string())
_CITED: Final = pa.schema(
    [
        ("log_topic", _ENCODED),
        ("log_id", _ENCODED),
        ("log_partition", pa.int32()),
        ("log_offset", pa.int64()),
    ]
)
