"""Files of rows that cite places in the log: each read once, and then asked span by span."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.ingest.verified import Place

Offsets = npt.NDArray[np.int64]


class CitingFile:
    """A file of rows that cite places in the log; read when first asked, and then span by span."""

    def __init__(self, fate: str, path: str, *, of_records: bool = False) -> None:
        self.fate = fate
        self.problem: str | None = None
        self.rows: Mapping[tuple[str, str], int] = {}
        """By topic and identity of the log, how many rows came from there."""
        self._path = path
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
        cited: dict[Place, Offsets] = {}
        try:
            table = pq.ParquetFile(self._path).read(columns=_CITED.names).cast(_CITED)
        except FileNotFoundError:
            # Its rows are missed one by one; this says why.
            self.problem = f"the file {self._path} is gone{self._hint}"
            table = _CITED.empty_table()
        except (OSError, pa.ArrowException) as error:
            self.problem = f"the file {self._path} cannot be read{self._hint}: {error}"
            table = _CITED.empty_table()
        logs = table.group_by(["log_topic", "log_id"]).aggregate([([], "count_all")])
        rows: list[dict[str, Any]] = logs.to_pylist()
        self.rows = {(row["log_topic"], row["log_id"]): row["count_all"] for row in rows}
        for topic, log_id in self.rows:
            mine = table.filter((pc.field("log_topic") == topic) & (pc.field("log_id") == log_id))
            partitions = mine["log_partition"].to_numpy()
            offsets = mine["log_offset"].to_numpy()
            for partition in np.unique(partitions).tolist():
                cited[topic, log_id, partition] = offsets[partitions == partition]
        self._bounds = {place: (int(o.min()), int(o.max())) for place, o in cited.items()}
        return cited


_NO_OFFSETS: Final = np.zeros(0, np.int64)
_CITED: Final = pa.schema(
    [
        ("log_topic", pa.string()),
        ("log_id", pa.string()),
        ("log_partition", pa.int32()),
        ("log_offset", pa.int64()),
    ]
)
