"""The file index kept beside the table, so that a start reads one file and not every manifest.

Comes in: the files of each manifest. Goes out: the same, by the manifest's path. Manifests never
change and no two have one path, so that what is kept can be incomplete, and never wrong.
"""

import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Final
from uuid import UUID

import numpy as np
import pyarrow as pa

from k2.lake.files import replace_file
from k2.lake.index import FileColumns

_SUM_BYTES: Final = 4
_NAMES: Final = tuple(field.name for field in fields(FileColumns))
_TEXTS: Final = frozenset(n for n in _NAMES if n.endswith(("_symbol", "_trade_id")))


def keep_index(folder: Path, columns: Mapping[str, FileColumns], unique: UUID) -> None:
    """Keep the files of these manifests in the table's folder, in place of what was kept before.
    Raises `Unavailable` where the disk fails.
    """
    if not columns:
        return
    whole = FileColumns.concatenated(list(columns.values()))
    arrays = {name: _to_arrow(name, getattr(whole, name)) for name in _NAMES}
    counts = [len(of.path) for of in columns.values()]
    codes = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    manifests = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(columns)))
    table = pa.table({"manifest": manifests, **arrays})
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    content = buffer.getvalue().to_pybytes()
    replace_file(_path(folder), _sum(content) + content, unique)


def read_index(folder: Path) -> dict[str, FileColumns]:
    """What was kept last, by the path of each manifest; nothing where it cannot be read."""
    with suppress(OSError, pa.ArrowException, KeyError, ValueError):
        kept = _path(folder).read_bytes()
        # A bound that is wrong by one bit would leave rows out of answers.
        if kept[:_SUM_BYTES] != _sum(kept[_SUM_BYTES:]):
            return {}
        table = pa.ipc.open_file(pa.py_buffer(kept)[_SUM_BYTES:]).read_all()
        if table.num_rows == 0:
            return {}
        manifests = table["manifest"].chunk(0)
        codes = manifests.indices.to_numpy()
        arrays = {name: _to_numpy(name, table[name]) for name in _NAMES}
        borders = np.flatnonzero(np.diff(codes)) + 1
        found = {}
        for start, end in zip([0, *borders.tolist()], [*borders.tolist(), len(codes)], strict=True):
            path = manifests.dictionary[int(codes[start])].as_py()
            found[path] = FileColumns(**{n: array[start:end] for n, array in arrays.items()})
        return found
    return {}


def _sum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_SUM_BYTES, "little")


def _path(folder: Path) -> Path:
    return folder / "index.arrow"


def _to_arrow(name: str, values: np.ndarray) -> pa.Array:
    if name in _TEXTS:
        return pa.array(values.tolist(), pa.binary())
    return pa.array(values)


def _to_numpy(name: str, column: pa.ChunkedArray) -> np.ndarray:
    if name in _TEXTS:
        return np.array(column.to_pylist(), dtype=np.bytes_)
    if name == "path":
        found = np.empty(len(column), dtype=np.object_)
        found[:] = column.to_pylist()
        return found
    return np.array(column.to_numpy())
