"""The Python client of a K2 server."""

from k2.client.client import Client
from k2.client.replay import Batch

__all__ = ["Batch", "Client"]
