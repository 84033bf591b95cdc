"""A Redis of its own for the queues, which a test may break: for the faults, and for the promises that they show."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.broker.sites import Site
from tests.faults.proxy import Proxy
from tests.faults.trial import site_on
from tests.servers import RedisServer, launched, server_folder


@pytest.fixture
def queues() -> Iterator[RedisServer]:
    """A Redis of its own for the queues, which the test may break."""
    with launched(RedisServer) as server:
        yield server


@pytest.fixture
def proxy(queues: RedisServer) -> Iterator[Proxy]:
    """The network before that Redis."""
    with Proxy(queues.port) as proxy:
        yield proxy


@pytest.fixture
def breakable_site(queues: RedisServer, redis_server: RedisServer) -> Iterator[Site]:
    """A site on that Redis, whose results and cache are elsewhere."""
    with server_folder("faults") as folder, closing(site_on(folder, queues=queues, stores=redis_server)) as site:
        yield site
