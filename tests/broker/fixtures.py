"""One server of each kind and one worker on each broker, which the tests share; and sites of their own for those that
stop, kill or disconnect."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.broker.intake_desk import Desk
from tests.broker.sites import CANARY, Broker, Events, Site, helpdesk_worker
from tests.processes import Worker
from tests.servers import RedisServer, launched, server_folder


class ManyDatabases(RedisServer):
    """A Redis with room for every site."""

    def command(self) -> list[str | Path]:
        return [*super().command(), "--databases", "512"]


@pytest.fixture(scope="session")
def many_databases() -> Iterator[RedisServer]:
    with launched(ManyDatabases) as server:
        yield server


@pytest.fixture(scope="session", params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest, many_databases: RedisServer) -> Broker:
    """A broker of each kind."""
    rabbit = request.getfixturevalue("rabbit_server") if request.param == "rabbitmq" else None
    return Broker.on(many_databases, rabbit)


@pytest.fixture(scope="session")
def site(broker: Broker) -> Iterator[Site]:
    """The site that most tests share."""
    with server_folder("site") as folder, closing(broker.site(folder)) as site:
        yield site


@pytest.fixture(scope="session")
def shared_worker(site: Site) -> Iterator[Worker]:
    """The worker that most tests share; whatever they did to it, its log shows no text."""
    with site.worker().running() as worker:
        yield worker
        assert worker.stop() == 0
        assert CANARY not in worker.text


@pytest.fixture
def worker(shared_worker: Worker, request: pytest.FixtureRequest) -> Iterator[Worker]:
    """The shared worker; the end of its log is shown if the test fails."""
    yield shared_worker
    print(f"--- {shared_worker.name}\n{shared_worker.last_lines()}")


@pytest.fixture(scope="session")
def helpdesk(site: Site, shared_worker: Worker) -> Iterator[Worker]:
    """A worker of another app on the same broker."""
    with helpdesk_worker(site).running() as worker:
        yield worker


@pytest.fixture
def events(site: Site, worker: Worker) -> Iterator[Events]:
    """Everything that the shared worker says during the test."""
    with Events(site.client).listening() as heard:
        yield heard


@pytest.fixture
def own_site(broker: Broker) -> Iterator[Site]:
    """A site for a test that does something to its worker or its broker's connections."""
    with server_folder("site") as folder, closing(broker.site(folder)) as site:
        yield site


@pytest.fixture
def intake_desk(site: Site, worker: Worker) -> Iterator[Desk]:
    """The intake of the site that most tests share."""
    with closing(Desk(site)) as desk:
        yield desk
