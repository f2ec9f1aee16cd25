"""A TOML table that knows where it stands, so that every complaint names file and key."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from k2.errors import BadInput


class Section:
    """One table: `found` in it, `place` is the file, `path` the keys that lead to it."""

    def __init__(self, found: Mapping[str, Any], place: str, path: str) -> None:
        self.found = found
        self.place = place
        self.path = path

    def bad(
        self,
        key: str,
        message: str,
        *,
        found: object = None,
        expected: str | None = None,
        one_of: Sequence[str] = (),
    ) -> NoReturn:
        """Raise `BadInput` for `key` of this table."""
        where = ".".join(part for part in (self.path, key) if part)
        near = get_close_matches(str(found or key), one_of, 1)
        raise BadInput(
            message,
            place=f"{self.place}, {where}" if where else self.place,
            found=None if found is None else str(found),
            expected=expected or ("one of " + ", ".join(one_of) if one_of else None),
            hint=f"did you mean {near[0]}?" if near else None,
        )

    def only(self, *keys: str) -> None:
        """Complain of a key that is none of these."""
        for key in self.found:
            if key not in keys:
                self.bad(key, "there is no such key here", one_of=keys)

    def table(self, key: str, otherwise: Mapping[str, Any] | None = None) -> "Section":
        """The table under `key`; `otherwise`, if it is not there and that is given."""
        found = self.found.get(key, otherwise)
        if not isinstance(found, Mapping):
            self.bad(key, "a table is missing here" if found is None else "this is no table")
        return Section(found, self.place, ".".join(part for part in (self.path, key) if part))

    def text(self, key: str) -> str | None:
        """The text under `key`, if there is one."""
        found = self.found.get(key)
        if found is not None and not isinstance(found, str):
            self.bad(key, "this is no text", found=found, expected="a text in quotes")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts under `key`: a list, or one alone."""
        found = self.found.get(key, [])
        found = [found] if isinstance(found, str) else found
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            self.bad(key, "this is no list of texts", found=found)
        return tuple(found)

    def boolean(self, key: str) -> bool:
        """The boolean under `key`; false if it is not there."""
        found = self.found.get(key, False)
        if not isinstance(found, bool):
            self.bad(key, "this is neither true nor false", found=found)
        return found

    def integer(self, key: str, otherwise: int) -> int:
        """The whole number under `key`."""
        found = self.found.get(key, otherwise)
        if not isinstance(found, int) or isinstance(found, bool):
            self.bad(key, "this is no whole number", found=found)
        return found

    def zone(self, key: str) -> str | None:
        """The IANA time zone under `key`, if there is one."""
        found = self.text(key)
        if found is None:
            return None
        try:
            return ZoneInfo(found).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.bad(key, "this is no time zone", found=found, expected="such as Australia/Sydney")
