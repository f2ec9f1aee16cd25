"""ITCH messages as the specification lays them out, made by `struct`, and files of them."""

import gzip
import struct
from pathlib import Path

Message = bytes

SECOND = 10**9
OPEN = 34_200 * SECOND
"""Half past nine."""


def head(kind: str, locate: int, time: int) -> bytes:
    return struct.pack(">cHH", kind.encode(), locate, 0) + time.to_bytes(6, "big")


def name(stock: str) -> bytes:
    return stock.encode().ljust(8)


def directory(locate: int, stock: str, time: int = OPEN) -> Message:
    rest = struct.pack(">cc I ccc".replace(" ", ""), b"Q", b"N", 100, b"N", b"C", b"Z")
    return head("R", locate, time) + name(stock) + rest + b" " + b"PNN1N" + bytes(4) + b"N"


def add(locate: int, time: int, order: int, side: str, shares: int, stock: str, price: int,
        by: str | None = None) -> Message:  # fmt: skip
    kind, rest = ("A", b"") if by is None else ("F", by.encode().ljust(4))
    body = struct.pack(">QcI8sI", order, side.encode(), shares, name(stock), price)
    return head(kind, locate, time) + body + rest


def executed(locate: int, time: int, order: int, shares: int, match: int) -> Message:
    return head("E", locate, time) + struct.pack(">QIQ", order, shares, match)


def executed_at(
    locate: int, time: int, order: int, shares: int, match: int, printable: str, price: int
) -> Message:
    body = struct.pack(">QIQcI", order, shares, match, printable.encode(), price)
    return head("C", locate, time) + body


def canceled(locate: int, time: int, order: int, shares: int) -> Message:
    return head("X", locate, time) + struct.pack(">QI", order, shares)


def deleted(locate: int, time: int, order: int) -> Message:
    return head("D", locate, time) + struct.pack(">Q", order)


def replaced(locate: int, time: int, old: int, new: int, shares: int, price: int) -> Message:
    return head("U", locate, time) + struct.pack(">QQII", old, new, shares, price)


def hidden(locate: int, time: int, shares: int, stock: str, price: int, match: int) -> Message:
    body = struct.pack(">QcI8sIQ", 0, b"B", shares, name(stock), price, match)
    return head("P", locate, time) + body


def cross(
    locate: int, time: int, shares: int, stock: str, price: int, match: int, kind: str
) -> Message:
    body = struct.pack(">Q8sIQc", shares, name(stock), price, match, kind.encode())
    return head("Q", locate, time) + body


def broken(locate: int, time: int, match: int) -> Message:
    return head("B", locate, time) + struct.pack(">Q", match)


def event(code: str, time: int) -> Message:
    return head("S", 0, time) + code.encode()


def framed(messages: list[Message]) -> bytes:
    return b"".join(struct.pack(">H", len(each)) + each for each in messages)


def write(path: Path, messages: list[Message], rest: bytes = b"") -> Path:
    content = framed(messages) + rest
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
