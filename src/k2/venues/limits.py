"""What a client may ask of a venue's REST interface in a time; the clock is an argument."""

from typing import Final

MOST_WEIGHT: Final = 6_000
"""Weight that a client of Binance may use in a minute."""
_PATIENCE: Final = 20
"""Requests over that limit after which Binance bans."""
_BAN_SECONDS: Final = 120
_MINUTE: Final = 60_000_000


class Allowance:
    """So many requests at once, and a number of them given back each second."""

    def __init__(self, at_once: int, each_second: int) -> None:
        self._at_once, self._each_second = at_once, each_second
        self._used = 0
        """In millionths of a request, so that it stays whole."""
        self._asked = 0

    def take(self, now: int) -> bool:
        """Whether one more request is allowed at `now` (microseconds)."""
        passed = max(0, now - self._asked)
        self._used = max(0, self._used - passed * self._each_second)
        self._asked = now
        if self._used + 1_000_000 > self._at_once * 1_000_000:
            return False
        self._used += 1_000_000
        return True


class Weights:
    """How much of its weight a client has used in this minute, and whether it is banned."""

    def __init__(self) -> None:
        self._minute = self._used = self._over = self._banned_until = 0

    def take(self, weight: int, now: int) -> tuple[int, int, bool]:
        """The weight used with this request, the seconds to wait (0: go on), and if banned."""
        if now < self._banned_until:
            return self._used, -(-(self._banned_until - now) // 1_000_000), True
        if now // _MINUTE != self._minute:
            self._minute, self._used, self._over = now // _MINUTE, 0, 0
        self._used += weight
        if self._used <= MOST_WEIGHT:
            return self._used, 0, False
        self._over += 1
        if self._over > _PATIENCE:
            self._banned_until = now + _BAN_SECONDS * 1_000_000
            return self._used, _BAN_SECONDS, True
        return self._used, -(-(_MINUTE - now % _MINUTE) // 1_000_000), False
