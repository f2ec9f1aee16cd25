"""Compacted topics as mappings, each read to its end once and then kept up to date."""

import threading
from collections.abc import Mapping
from typing import Final

from k2.log.kafka.cluster import Cluster
from k2.log.kafka.cursor import Cursor

_CHUNK_MESSAGES: Final = 10_000


class Latest:
    """The latest value of each key of one compacted topic, which has one partition."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._lock = threading.Lock()
        self._cursor = Cursor(cluster, topic, 0)
        self._identity = ""
        self._offset = 0
        self._values: dict[str, str] = {}

    def values(self) -> Mapping[str, str]:
        """All that was put before this call."""
        with self._lock:
            if (identity := self._cluster.identity(self._topic)) != self._identity:
                self._identity, self._values = identity, {}
                self._offset = 0
                self._cursor.forget()
            while taken := self._cursor.begin(self._offset, _CHUNK_MESSAGES, keys=True):
                self._offset = self._cursor.next_offset
                for key, value in zip(taken.keys, taken.values, strict=True):
                    self._take(key or b"", value)
            return dict(sorted(self._values.items()))

    def _take(self, key: bytes, value: bytes | None) -> None:
        # Anybody may write there: what is no text is shown as far as it is.
        name = key.decode(errors="replace")
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value.decode(errors="replace")

    def close(self) -> None:
        """Let go of the connection."""
        self._cursor.close()
