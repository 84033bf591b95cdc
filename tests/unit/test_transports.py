"""A worker fetches by our transports, whichever of several hosts it is connected to."""

import pytest
from kombu import Connection, transport

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
    # As in a process that has connected somewhere with kombu's own; both are put back.
    monkeypatch.setattr(transport, "TRANSPORT_ALIASES", {**transport.TRANSPORT_ALIASES})
    monkeypatch.setattr(transport, "_transport_cache", {})
    for url, _ in URLS.values():
        assert Connection(url).transport
    use_our_transports()


@pytest.mark.parametrize("scheme", URLS)
def test_after_a_change_to_the_next_host_as_well(scheme: str) -> None:
    url, ours = URLS[scheme]
    connection = Connection(url, transport=TRANSPORTS[scheme])
    assert isinstance(connection.transport, ours)
    connection.maybe_switch_next()
    assert connection.hostname == "b"
    assert isinstance(connection.transport, ours)
