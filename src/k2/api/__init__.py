"""The HTTP interface and the page."""

from k2.api.answers import Entry
from k2.api.app import Server, check_host, create_app
from k2.api.work import DEFAULT_LIMITS, Limits

__all__ = ["DEFAULT_LIMITS", "Entry", "Limits", "Server", "check_host", "create_app"]
