"""Databento's binary encoding (DBN): its bytes to records, and records to tables."""
