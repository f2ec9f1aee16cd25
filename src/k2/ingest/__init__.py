"""From the log to the lake: decode, validate, deduplicate, commit exactly once."""
