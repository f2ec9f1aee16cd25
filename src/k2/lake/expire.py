"""Which snapshots a table lets go of, and the metadata files that nothing names any more.

Data files are never deleted here, and neither is a snapshot that the commits ledger lacks.
"""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from k2.lake.files import delete
from k2.lake.index import local
from k2.lake.manifest import list_from_bytes
from k2.lake.metadata import Metadata

if TYPE_CHECKING:
    from k2.lake.table import LakeTable

KEEP_SNAPSHOTS: Final = 100
CLEAN_AFTER: Final = timedelta(minutes=10)
"""Age of a metadata file before it may go: readers and strangers may still be at it, while they
plan. A commit a second writes four of them."""


def expired(metadata: Metadata, absorbed: int, keep: int, before: int = 0) -> set[int]:
    """Ids of the snapshots to expire with the next commit, so that `keep` are left with it, and
    none of a commit `before` that one: they name files of rows that were retired. Those that a tag
    or branch holds stay. Those after commit `absorbed` stay in any case.
    """
    held = {ref["snapshot-id"] for ref in metadata.get("refs", {}).values()}
    held.add(metadata["current-snapshot-id"])
    oldest_first = sorted(metadata["snapshots"], key=lambda s: int(s["sequence-number"]))
    most = max(len(oldest_first) + 1 - keep, 0)
    return {
        s["snapshot-id"]
        for number, s in enumerate(oldest_first)
        if (number < most or s["sequence-number"] < before)
        and s["sequence-number"] <= absorbed
        and s["snapshot-id"] not in held
    }


def clean(table: "LakeTable", older_than: timedelta = CLEAN_AFTER) -> int:
    """Delete metadata files, older than that, that no snapshot of the table names; their number.

    These are what expired snapshots, lost races and killed writers left behind. A commit that is
    under way meanwhile either is seen here or finds its files gone and writes them anew.
    """
    known: dict[str, set[str]] = {}
    with suppress(FileNotFoundError):  # another cleaner was faster, for a list just expired
        _named(table, known)
    before = table.now_ms() / 1000 - older_than.total_seconds()
    old = [path for path in table.metadata_folder.iterdir() if _is_older(path, before)]
    # Under the catalog's lock no commit can swap in a document that names a file of `old`, and
    # nearly all lists have been read above, so that it is held for moments only.
    with table.catalog.exclusive():
        named = _named(table, known)
        gone = [str(path) for path in old if str(path) not in named]
        delete(gone)
    return len(gone)


def _is_older(path: Path, before: float) -> bool:
    """Statistics files of other engines stand in the same folder and are none of ours."""
    if not path.name.endswith((".avro", ".metadata.json")):
        return False
    with suppress(FileNotFoundError):
        return path.stat().st_mtime < before
    return False


def _named(table: "LakeTable", known: dict[str, set[str]]) -> set[str]:
    """Local paths of all metadata files that the present document leads to. `known` remembers
    the manifests of each manifest list.
    """
    head = table.head()
    named = {local(head.location)}
    named |= {local(e["metadata-file"]) for e in head.metadata.get("metadata-log", ())}
    for snapshot in head.metadata["snapshots"]:
        uri = snapshot["manifest-list"]
        if uri not in known:
            listed = list_from_bytes(Path(local(uri)).read_bytes(), uri)
            known[uri] = {local(m["manifest_path"]) for m in listed}
        named |= known[uri] | {local(uri)}
    return named
