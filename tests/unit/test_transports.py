"""A worker fetches by our transports, whichever of several hosts it is connected to."""

from types import SimpleNamespace

import pytest
from celery import Celery, signals
from kombu import Connection, transport

from workers.app import app as tagging
from workers.consuming import TRANSPORTS, use_our_transports
from workers.pool import TaskPool
from workers.rabbitmq import SSLTransport
from workers.rabbitmq import Transport as RabbitTransport
from workers.transport import SentinelTransport
from workers.writeback.app import make_app as write_back

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


@pytest.mark.parametrize("scheme", URLS)
def test_after_a_change_to_the_next_host_as_well(scheme: str) -> None:
    use_our_transports()
    url, ours = URLS[scheme]
    connection = Connection(url, transport=TRANSPORTS[scheme])
    assert isinstance(connection.transport, ours)
    connection.maybe_switch_next()
    assert connection.hostname == "b"
    assert isinstance(connection.transport, ours)


@pytest.mark.parametrize(
    ("app", "knows"),
    [(tagging, True), (write_back(), True), (Celery("somebody else's"), False)],
    ids=["a tagging worker", "a write-back worker", "another"],
)
def test_a_worker_of_another_app_keeps_its_own_though_we_are_imported_beside_it(app: Celery, knows: bool) -> None:
    begun = SimpleNamespace(app=app)
    signals.celeryd_init.send("w1", instance=begun, conf=app.conf, options={"pool": TaskPool, "concurrency": 1})
    assert (transport.TRANSPORT_ALIASES["redis"] == TRANSPORTS["redis"]) is knows
