"""The fixture that users load as a plugin, and clients made from the venues' documents alone."""

from k2.venues.pytest import venue

__all__ = ["venue"]
