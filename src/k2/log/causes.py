"""Why a server does not answer, and what to do about it, told from the words of a client."""

import re
from dataclasses import dataclass
from typing import Final

from k2.errors import Unavailable

_RETRY_AFTER_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Cause:
    """What is wrong, and the next step."""

    what: str
    step: str


_CAUSES: Final = (
    (
        r"Failed to resolve|Name or service not known|nodename nor servname|Name resolution",
        Cause("nobody knows the host's name", "mend the address, or this machine's DNS"),
    ),
    (
        r"Connection refused",
        Cause("nothing listens there", "start the server, or mend the address"),
    ),
    (
        r"No route to host|Network is unreachable",
        Cause("no way leads there", "mend the address, or this machine's network"),
    ),
    (
        r"connecting to a PLAINTEXT|wrong version number|record layer failure",
        Cause("what listens there does not speak TLS", "name its TLS port, or turn TLS off"),
    ),
    (
        r"certificate verify failed",
        Cause("its certificate is not trusted", "whom this machine trusts, SSL_CERT_FILE can say"),
    ),
    (
        r"alert bad certificate|certificate required",
        Cause("it asks for a certificate", "the settings …_CERTIFICATE and …_KEY name K2's own"),
    ),
    (
        # After the causes that say more: a port without TLS that drops what it cannot read, and
        # a TLS port that wants a certificate and does not say so, look the same from here.
        r"SSL connection closed by peer|SSL handshake failed: Disconnected",
        Cause(
            "it closes the connection before TLS is agreed",
            "is it a TLS port (name that one, or turn TLS off)? Does it want a certificate of"
            " K2's own (…_CERTIFICATE and …_KEY)?",
        ),
    ),
    (
        r"[Tt]imed out|transport failure|Disconnected",
        Cause(
            "it does not answer",
            "is it the right port, does it want TLS or a login, is a firewall between?",
        ),
    ),
)


def away(who: str, told: str, place: str) -> Unavailable:
    """The error for `who` ("Kafka") not answering at `place`; `told`: what a client said of it."""
    cause = next((cause for pattern, cause in _CAUSES if re.search(pattern, told)), None)
    return Unavailable(
        f"{who} is away: {cause.what} ({told})" if cause else f"{who} is away: {told}",
        retry_after=_RETRY_AFTER_SECONDS,
        place=place,
        hint=cause.step if cause else "is the address right, and does it run?",
    )
