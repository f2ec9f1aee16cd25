"""Mapped files from bytes to columns: lines, the values in them, times. Used by `k2.feeds.csv`."""
