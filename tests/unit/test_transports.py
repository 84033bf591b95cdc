"""A worker fetches by our transports, whichever of several hosts it is connected to."""

import pytest
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES

from workers.consuming import TRANSPORTS, use_our_transports
from workers.rabbitmq import SSLTransport
from workers.rabbitmq import Transport as RabbitTransport
from workers.transport import SentinelTransport

URLS = {
    "amqp": ("amqp://a;amqp://b", RabbitTransport),
    "amqps": ("amqps://a;amqps://b", SSLTransport),
    "sentinel": ("sentinel://a;sentinel://b", SentinelTransport),
}


@pytest.fixture(autouse=True)
def _ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, transport in TRANSPORT_ALIASES.items():
        monkeypatch.setitem(TRANSPORT_ALIASES, scheme, transport)  # so that they are put back
    use_our_transports()


@pytest.mark.parametrize("scheme", URLS)
def test_after_a_change_to_the_next_host_as_well(scheme: str) -> None:
    url, ours = URLS[scheme]
    connection = Connection(url, transport=TRANSPORTS[scheme])
    assert isinstance(connection.transport, ours)
    connection.maybe_switch_next()
    assert connection.hostname == "b"
    assert isinstance(connection.transport, ours)
