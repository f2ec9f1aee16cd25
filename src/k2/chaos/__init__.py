"""Faults as a tool: short runs of all of K2, with faults at every seam drawn from one seed.

For its developers: it works in a folder of its own, and proves after each run that every record has
one fate.
"""

from k2.chaos.faults import Tally
from k2.chaos.runs import SQLITE, Played, play, play_many

__all__ = ["SQLITE", "Played", "Tally", "play", "play_many"]
