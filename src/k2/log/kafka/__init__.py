"""The log on Apache Kafka."""

from typing import Final

from k2.log.kafka.log import KafkaLog, open_log

__all__ = ["IS_SERVER", "KafkaLog", "open_log"]

IS_SERVER: Final = True
"""It may be away while this machine works on: feeds keep a spool."""
