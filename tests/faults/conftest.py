"""Servers that a fault may break, and the site that suffers it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.broker.sites import Site
from tests.children import need
from tests.faults.desk import Desk
from tests.faults.proxy import Proxy
from tests.faults.trial import site_on
from tests.servers import PostgresServer, RabbitServer, RedisServer, server_folder, wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the site's ledger and logs lie."""
    with server_folder("faults") as folder:
        yield folder


@pytest.fixture
def stores(redis_server: RedisServer) -> RedisServer:
    """The Redis of results and cache, which outlives the faults of the broker."""
    return redis_server


@pytest.fixture
def site(breakable_site: Site) -> Site:
    """The site of these tests, unless they name another."""
    return breakable_site


@pytest.fixture
def pg_site(folder: Path, queues: RedisServer, stores: RedisServer, postgres_server: PostgresServer) -> Iterator[Site]:
    """A site whose ledger is PostgreSQL."""
    with closing(site_on(folder, queues=queues, stores=stores, ledger=postgres_server)) as site:
        yield site


@pytest.fixture
def desk(site: Site) -> Iterator[Desk]:
    """The intake of that site."""
    with closing(Desk(site)) as desk:
        yield desk


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder on a disk of 6 MB; skipped where this user may not mount one."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    need("mount", "umount")
    with server_folder("small-disk") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=755", "tmpfs", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def rabbit(rabbit_server: RabbitServer) -> RabbitServer:
    """A RabbitMQ with nothing in our queues. A test may kill it; the next one finds it up again."""
    if not rabbit_server.running:
        rabbit_server.start()
    rabbit_server.resume()
    _empty_queues(rabbit_server)
    return rabbit_server


@pytest.fixture
def rabbit_proxy(rabbit: RabbitServer) -> Iterator[Proxy]:
    """The network before RabbitMQ."""
    with Proxy(rabbit.port) as proxy:
        yield proxy


@pytest.fixture
def rabbit_site(folder: Path, rabbit: RabbitServer, stores: RedisServer) -> Iterator[Site]:
    """A site on that RabbitMQ."""
    with closing(site_on(folder, queues=rabbit, stores=stores)) as site:
        yield site


def _empty_queues(rabbit: RabbitServer) -> None:
    """Leave our queues, empty: RabbitMQ 3 that is killed soon after a queue was deleted and declared anew comes back
    with a queue of that name that never elects a leader, which no site would do to itself.
    """
    from kombu import Connection

    from tagging.names import QUEUE_DEAD, QUEUE_OF_TASK

    with Connection(rabbit.url) as connection:
        for name in (*QUEUE_OF_TASK.values(), QUEUE_DEAD):
            wait_until(f"{name} is empty", lambda name=name: _is_emptied(connection, name))


def _is_emptied(connection: Any, name: str) -> bool:
    """Whether the queue has no consumer left, whose messages would come back, and is empty; or was never declared."""
    try:
        with connection.channel() as channel:
            consumers = channel.queue_declare(queue=name, passive=True).consumer_count
            return not consumers and not channel.queue_purge(name)
    except connection.channel_errors:
        return True
