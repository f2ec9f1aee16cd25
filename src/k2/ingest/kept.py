"""What is kept beside a table, so that a start reads only the files committed since.

Comes in: bytes that cover the table up to a commit. Goes out: the newest that cover no more than a
snapshot has. A cache and never the truth: whoever reads it passes over what cannot be read, and the
table knows better.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from k2.lake import LakeTable, Snapshot
from k2.lake.files import replace_file, unwritable

_KEPT: Final = 8
"""States that stay, since each of several writers keeps its own."""


class Kept:
    """States of one sort, named `name`, in a folder beside the table."""

    def __init__(self, table: LakeTable, name: str) -> None:
        self.folder: Path = table.metadata_folder.parent / name
        self._table = table

    def newest(self, snapshot: Snapshot) -> Iterator[tuple[int, bytes]]:
        """The states of this very table that are not ahead of the snapshot, newest first, each with
        the commit that it covers.
        """
        mine = f"-{self._identity()}.state"
        for path in sorted(self.folder.glob(f"*{mine}"), reverse=True):
            number = path.name.removesuffix(mine)
            if not number.isdecimal() or int(number) > snapshot.sequence:
                continue
            try:
                found = path.read_bytes()
            except OSError:
                continue  # it was replaced meanwhile
            yield int(number), found

    def keep(self, sequence: int, state: bytes) -> list[Path]:
        """Keep a state that covers the table up to the commit `sequence`; all that are kept now.
        Raises `Unavailable` where the disk fails.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        path = self.folder / f"{sequence:020d}-{self._identity()}.state"
        replace_file(path, state, self._table.unique())
        every = sorted(self.folder.glob("*.state"))
        for old in every[:-_KEPT]:
            old.unlink(missing_ok=True)
        return every[-_KEPT:]

    def _identity(self) -> str:
        # A table of the same name may have been here before.
        return str(self._table.head().metadata["table-uuid"])
