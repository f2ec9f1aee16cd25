"""The append-only, partitioned, replayable log, and the schema registry."""
