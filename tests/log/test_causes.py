"""What a client says when a server does not answer becomes a cause and a next step."""

import pytest

from k2.log.causes import away


@pytest.mark.parametrize(
    ("told", "cause", "step"),
    [
        ("Failed to resolve 'x:9092': Name or service not known", "the host's name", "DNS"),
        ("Connect to ipv4#127.0.0.1:1 failed: Connection refused", "nothing listens", "start"),
        (
            "SSL handshake failed: connecting to a PLAINTEXT broker?",
            "not speak TLS",
            "turn TLS off",
        ),
        ("Disconnected: SSL connection closed by peer", "before TLS is agreed", "turn TLS off"),
        ("SSL handshake failed: Disconnected", "before TLS is agreed", "_KEY"),
        ("tlsv13 alert certificate required", "asks for a certificate", "_KEY"),
        ("Disconnected while requesting ApiVersion", "does not answer", "right port"),
    ],
)
def test_each_way_of_failing_is_told_with_a_step(told: str, cause: str, step: str) -> None:
    error = away("Kafka", told, "kafka:somewhere")
    assert cause in str(error)
    assert told in str(error)
    assert error.hint is not None
    assert step in error.hint
