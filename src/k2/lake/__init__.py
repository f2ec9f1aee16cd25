"""The Iceberg tables: made, committed to, evolved, indexed, expired."""
