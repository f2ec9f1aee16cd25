"""Benchmarks: each prints a table of figures and of ratios to a named baseline in the same run."""
