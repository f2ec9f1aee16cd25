"""A file's content: plain, or out of gzip, zip or Zstandard; and positions in it."""

import gzip
import hashlib
import os
import re
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

    def read_fully(self, size: int) -> bytes:
        """As many bytes as asked for, fewer only at the end: decompressors give what they have."""
        parts, left = [], size
        while left and (part := self.read(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

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


def verify(path: Path) -> bool:
    """Whether a file's SHA-256 is the one that `<its name>.CHECKSUM` beside it tells; False where
    no such file is. Raises `BadInput` with both where they differ.
    """
    beside = path.with_name(f"{path.name}.CHECKSUM")
    try:
        told = beside.read_bytes()[:4096].decode("latin-1").split()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadInput(
            f"the checksum cannot be read: {error.strerror}", place=str(beside)
        ) from error
    if not told or not re.fullmatch(r"[0-9a-fA-F]{64}", told[0]):
        raise BadInput(
            "this is no SHA-256 checksum", place=str(beside), expected="64 hexadecimal digits"
        )
    found = sha256_of(path)
    if found != told[0].lower():
        raise BadInput(
            f"the file is not the one that {beside.name} was made for",
            place=str(path),
            found=f"SHA-256 {found}",
            expected=f"SHA-256 {told[0].lower()}",
            hint="fetch both again: archives are replaced at times; nothing of it was read",
        )
    return True


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as it lies on the disk, 64 hexadecimal digits. Raises `Unavailable`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unavailable(f"reading failed: {error.strerror}", place=str(path)) from error


def print_of(path: Path) -> str:
    """What tells one state of a file from another."""
    found = path.stat()
    return f"{found.st_size}-{found.st_mtime_ns}"


def place_of(position: str | None, what: str, print_: str) -> int:
    """The number of the line or record (`what`) after which reading goes on, from `<what> 12 of
    3456-789`; 0, the start, if the file is not as it was. Raises `BadInput` for another text.
    """
    if position is None:
        return 0
    match = re.fullmatch(rf"{what} ([0-9]+) of ([0-9]+-[0-9]+)", position)
    if match is None:
        raise BadInput(
            "this is no position in such a file",
            found=position,
            expected=f"what the feed gave, `{what} 12 of 3456-789`",
        )
    return int(match[1]) if match[2] == print_ else 0
