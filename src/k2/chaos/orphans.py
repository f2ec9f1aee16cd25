"""Files of a lake that no snapshot and no outbox names: what killed writers and lost races left."""

from pathlib import Path

from k2.lake import Lake, LakeTable
from k2.lake.index import local
from k2.lake.manifest import list_from_bytes, live


def orphans(lake: Lake) -> list[Path]:
    """Data files and metadata that nothing leads to, sorted. Nobody may write meanwhile."""
    used: set[str] = set()
    for name in lake.tables():
        used |= _named(lake.table(name))
    every = (
        *lake.folder.glob("tables/*/data/**/*.parquet"),
        *lake.folder.glob("tables/*/metadata/*"),
    )
    return sorted(path for path in every if str(path) not in used)


def _named(table: LakeTable) -> set[str]:
    head = table.head()
    used = {local(head.location), *(entry.path for entry in head.snapshot.outbox)}
    used |= {local(entry["metadata-file"]) for entry in head.metadata.get("metadata-log", ())}
    for snapshot in head.metadata["snapshots"]:
        listed = local(snapshot["manifest-list"])
        used.add(listed)
        for manifest in list_from_bytes(Path(listed).read_bytes(), listed):
            path = local(manifest["manifest_path"])
            entries = live(Path(path).read_bytes(), manifest)
            used |= {path, *(local(entry["data_file"]["file_path"]) for entry in entries)}
    return used
