"""The log on Apache Kafka."""

from k2.log.kafka.log import KafkaLog, open_log

__all__ = ["KafkaLog", "open_log"]
