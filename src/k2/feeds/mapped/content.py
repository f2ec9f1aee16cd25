"""A file's content: plain, or out of gzip, zip or Zstandard."""

import gzip
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from k2.errors import BadInput, Unavailable


class Bytes:
    """A file's content, decompressed, and how far its reading has come in the file itself.

    Raises `BadInput` for what is no such file and for broken compression, `Unavailable` where the
    disk fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: Any = None
        try:
            self._file: IO[bytes] = path.open("rb")
            self.total = os.fstat(self._file.fileno()).st_size
            self._stream = self._open()
        except (IsADirectoryError, FileNotFoundError, PermissionError) as error:
            raise BadInput(
                f"the file cannot be opened: {error.strerror}", place=str(path)
            ) from error
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        head = self._file.read(4)
        self._file.seek(0)
        suffix = self._path.suffix.lower()
        if not head:
            return self._file
        if suffix == ".gz" or head[:2] == b"\x1f\x8b":
            return gzip.GzipFile(fileobj=self._file)
        if suffix == ".zst" or head == b"\x28\xb5\x2f\xfd":
            return pa.CompressedInputStream(pa.PythonFile(self._file, "r"), "zstd")
        if suffix == ".zip" or head in (b"PK\x03\x04", b"PK\x05\x06"):
            return self._open_zip()
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise BadInput("the text is UTF-16", place=str(self._path), expected="UTF-8")
        return self._file

    def _open_zip(self) -> Any:
        try:
            archive = zipfile.ZipFile(self._file)
            members = [m for m in archive.infolist() if not m.is_dir()]
            if len(members) == 1:
                return archive.open(members[0])
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise self._broken(error) from error
        raise BadInput(
            f"the archive holds {len(members)} files", place=str(self._path), expected="one file"
        )

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        try:
            data: bytes = self._stream.read(size)
        except (
            EOFError,
            gzip.BadGzipFile,
            zlib.error,
            zipfile.BadZipFile,
            pa.ArrowInvalid,
        ) as error:
            raise self._broken(error) from error
        except OSError as error:
            if error.errno is None:
                raise self._broken(error) from error
            raise Unavailable(f"reading failed: {error.strerror}", place=str(self._path)) from error
        return data

    def _broken(self, error: Exception) -> BadInput:
        return BadInput(
            f"the compressed file is broken: {error}",
            place=f"{self._path}, about byte {self.done():,} of {self.total:,}",
            hint="fetch the file again; what was read before is not repeated by another load",
        )

    def done(self) -> int:
        """Bytes of the file (compressed, if it is) that are read."""
        return min(self._file.tell(), self.total)

    def close(self) -> None:
        """Let go of the file."""
        for opened in (self._stream, getattr(self, "_file", None)):
            if opened is not None:
                opened.close()
