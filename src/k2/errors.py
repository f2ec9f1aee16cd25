"""Every error that K2 raises, sorted by what its reader can do about it.

    K2Error
    ├── BadInput      mend what was given: a file, an argument, a request
    ├── Unavailable   wait and try again (`retry_after`): a server, a disk, a lock
    ├── Conflict      somebody else committed first: read again, decide again
    │   └── Fenced    this writer lost its offsets to another: read them again
    ├── Refused       not allowed, or a limit is reached
    │   └── NotFound  there is no such thing
    └── Broken        an invariant of K2 does not hold: stop and look

Each carries `message`, `place` (file, line, topic, offset), `found`, `expected` and `hint`; the
command line and the HTTP interface print these same fields.
"""


class K2Error(Exception):
    """The root: `message` says what is wrong, the fields say where, what was expected, what to
    do.
    """

    code = "ERROR"

    def __init__(
        self,
        message: str,
        *,
        place: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.found = found
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        """One line: place, then message, then what was found."""
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text} (found {self.found})" if self.found else text


class BadInput(K2Error):
    """What was given cannot be used; mend it."""

    code = "VALIDATION_ERROR"


class Unavailable(K2Error):
    """Something that K2 needs is away; `retry_after` (seconds) says when to try again."""

    code = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        place: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, place=place, hint=hint)
        self.retry_after = retry_after


class Conflict(K2Error):
    """Somebody else committed in between; read again and decide again."""

    code = "CONFLICT"


class Fenced(Conflict):
    """The table's offsets are not those that this batch began at: another writer owns them."""


class Refused(K2Error):
    """Not allowed, or a limit was reached."""

    code = "FORBIDDEN"


class NotFound(Refused):
    """There is no such table, symbol, snapshot, tag or offset."""

    code = "NOT_FOUND"


class Broken(K2Error):
    """An invariant of K2 does not hold. Nothing may go on from here by itself."""

    code = "BROKEN"


def fields_of(error: K2Error) -> dict[str, str | None]:
    """The error as the interfaces' JSON tells it."""
    return {
        "code": error.code,
        "message": error.message,
        "place": error.place,
        "found": error.found,
        "expected": error.expected,
        "hint": error.hint,
    }
