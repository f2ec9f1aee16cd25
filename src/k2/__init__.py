"""K2: an open market-data lakehouse."""
