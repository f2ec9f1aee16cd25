"""What a record is: the schemas, everything derived from them, columns to Avro and back. No I/O."""

from k2.model.columns import (
    exchange_dates,
    micros,
    plain_schema,
    plain_type,
    start_of_day,
    utc_offsets,
)
from k2.model.decode import Decoded, decode
from k2.model.encode import encode
from k2.model.exchange import ASSET_CLASSES, LOADED_PARTITION, Exchange, Topic
from k2.model.peek import Peeked, peek
from k2.model.schema import (
    DICTIONARY_TYPE,
    PRICE_TYPE,
    TIMESTAMP_TYPE,
    Schema,
    kinds,
    latest,
    to_arrow,
    versions,
)
from k2.model.validate import CLOCK_SKEW, Failures, validate

__all__ = [
    "ASSET_CLASSES",
    "CLOCK_SKEW",
    "DICTIONARY_TYPE",
    "LOADED_PARTITION",
    "PRICE_TYPE",
    "TIMESTAMP_TYPE",
    "Decoded",
    "Exchange",
    "Failures",
    "Peeked",
    "Schema",
    "Topic",
    "decode",
    "encode",
    "exchange_dates",
    "kinds",
    "latest",
    "micros",
    "peek",
    "plain_schema",
    "plain_type",
    "start_of_day",
    "to_arrow",
    "utc_offsets",
    "validate",
    "versions",
]
