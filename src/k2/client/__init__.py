"""The Python client of a K2 server."""

from k2.client.client import Client

__all__ = ["Client"]
