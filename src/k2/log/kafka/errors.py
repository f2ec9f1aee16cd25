"""Kafka's errors as K2's: what a reader can do about each."""

import re
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from k2.errors import BadInput, Broken, K2Error, NotFound, Refused
from k2.log.causes import Cause, away

_NOT_FOUND: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._AUTO_OFFSET_RESET,
    }
)
_NOT_ALLOWED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SECURITY_DISABLED,
    }
)
_REFUSED: Final = _NOT_ALLOWED | {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_REQUEST,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_DELETION_DISABLED,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
    KafkaError._UNSUPPORTED_FEATURE,
}
_BROKEN: Final = frozenset(
    {
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError._BAD_MSG,
        KafkaError._BAD_COMPRESSION,
        KafkaError._INCONSISTENT,
    }
)
_GIVEN: Final = frozenset({KafkaError._INVALID_ARG, KafkaError._UNKNOWN_PROTOCOL})

_SIGN_IN: Final = Cause(
    "the broker refuses the name or the password",
    "mend K2_LOG_USERNAME and K2_LOG_PASSWORD, or the way of signing in: `mechanism` in K2_LOG",
)
_NOT_LET_IN: Final = {
    KafkaError._AUTHENTICATION: _SIGN_IN,
    KafkaError.SASL_AUTHENTICATION_FAILED: _SIGN_IN,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: Cause(
        "the broker does not know this way of signing in", "`mechanism` in K2_LOG names another"
    ),
    KafkaError._SSL: Cause(
        "no trusted connection to the broker",
        "K2_LOG_CA names the PEM file of those who vouch for its certificate",
    ),
}


def is_final(error: KafkaError) -> bool:
    """Whether waiting for the broker cannot mend it: who signs in, whom to trust."""
    return error.code() in _NOT_LET_IN


def is_gone(error: KafkaError) -> bool:
    """Whether a client says that it is at a place which is not there."""
    return error.code() in _NOT_FOUND


def translate(error: KafkaError, place: str, reason: KafkaError | None = None) -> K2Error:
    """The K2 error that stands for one of Kafka's.

    `reason` is what the client told of its connections meanwhile: "timed out" alone says little.
    """
    code = error.code()
    if code == KafkaError.INVALID_REPLICATION_FACTOR and "fenced" in _text(error):
        # A broker that was just started, or is too busy to be heard: no fault of the number.
        return away("Kafka", _text(error), place)
    for each in (reason, error):
        if each is not None and is_final(each):
            why = _NOT_LET_IN[each.code()]
            return Refused(why.what, place=place, found=_text(each), hint=why.step)
    if code in _NOT_FOUND:
        return NotFound(_text(error), place=place)
    if code in _NOT_ALLOWED:
        hint = "the broker's rules have to allow it to this user"
        return Refused("the broker does not allow this", place=place, found=_text(error), hint=hint)
    if code in _REFUSED:
        return Refused("the broker refused this", place=place, found=_text(error))
    if code in _BROKEN:
        return Broken("the broker gave bytes that nobody wrote", place=place, found=_text(error))
    if code in _GIVEN:
        return BadInput(_text(error), place=place)
    told = _text(reason) if reason is not None else _text(error)
    return away("Kafka", told, place)


def cause(error: KafkaException) -> KafkaError:
    """The error that an exception of the client carries."""
    found = error.args[0] if error.args else None
    return found if isinstance(found, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


def _text(error: KafkaError) -> str:
    """Its own words, in one line, without the client's notes on itself."""
    words = " ".join((error.str() or error.name()).split())
    words = re.sub(r" \(after \d+ms in state .*", "", words)
    # Its advice names settings of its own.
    return re.sub(r", verify that ssl\.ca\.location.*", "", words)
