"""Page tokens: where a page ended and the state that it was read from, as opaque text.

A token goes back to the same question only; one that was changed on its way is refused. It holds
nothing secret: whoever alters it knowingly gains no more than another page of the same answer.
"""

import base64
import binascii
import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any, Final

from k2.errors import BadInput
from k2.query.port import LogRange, Pin

_DIGEST_BYTES: Final = 12
_LIMIT_BYTES: Final = 1 << 20

NO_COMMIT: Final = Pin(0)
"""The state of a table that nothing was committed to."""


@dataclass(frozen=True)
class Page:
    """Where reading goes on: after the row whose order columns are `key`, in the state `pin`.

    Of trades, `corrections` is the state of their corrections; `known_at` (microseconds UTC) is
    the time of which only what was known by then counts. Of a join, `beside` is the state of its
    right.
    """

    pin: Pin
    key: tuple[int | str, ...]
    corrections: Pin = NO_COMMIT
    known_at: int | None = None
    beside: Pin | None = None


def to_token(page: Page, question: str) -> str:
    """The page as a token of this question (any text that tells questions apart)."""
    pins = [pin_to_json(pin) for pin in (page.pin, page.corrections)]
    beside = None if page.beside is None else pin_to_json(page.beside)
    return pack([*pins, list(page.key), page.known_at, beside], question)


def from_token(token: str, question: str) -> Page:
    """What `to_token` wrote. Raises `BadInput` for anything else, or another question's token."""
    try:
        pin, corrections, key, known_at, beside = unpack(token, question)
        right = None if beside is None else pin_from_json(beside)
        return Page(pin_from_json(pin), tuple(key), pin_from_json(corrections), known_at, right)
    except (ValueError, TypeError) as error:
        raise _foreign() from error


def pack(content: object, question: str) -> str:
    """Content that JSON can hold, as a token of this question."""
    packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    return base64.urlsafe_b64encode(_digest(packed, question) + packed).decode().rstrip("=")


def unpack(token: str, question: str) -> Any:
    """What `pack` was given. Raises `BadInput` for anything else, or another question's token."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _foreign() from error
    digest, packed = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
    if digest != _digest(packed, question):
        raise _foreign()
    try:
        return json.loads(zlib.decompressobj().decompress(packed, _LIMIT_BYTES))
    except (zlib.error, ValueError) as error:
        raise _foreign() from error


def pin_to_json(pin: Pin) -> list[Any]:
    """The pin as JSON can hold it."""
    return [pin.sequence, [[r.topic, r.log_id, r.partition, r.first, r.end] for r in pin.ranges]]


def pin_from_json(found: list[Any]) -> Pin:
    """What `pin_to_json` made."""
    sequence, ranges = found
    return Pin(sequence, tuple(LogRange(*each) for each in ranges))


def _digest(packed: bytes, question: str) -> bytes:
    made = hashlib.blake2b(packed, digest_size=_DIGEST_BYTES, person=b"k2.page")
    made.update(question.encode("utf-8", "surrogatepass"))
    return made.digest()


def _foreign() -> BadInput:
    return BadInput(
        "this page token belongs to another query, or was changed",
        expected="the `next` of the answer before, with every other argument as it was",
    )
