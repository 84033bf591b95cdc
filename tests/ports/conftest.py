"""What the port suites share: a migrated database of each kind, and a Redis that is searched for leaks afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from ledger.database import Database, open_database
from ledger.upgrade import upgrade
from tests.answers import LABELS, TEXT
from tests.servers import PostgresServer, RedisServer


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that is not there yet, nor is its folder."""
    return f"sqlite:///{tmp_path}/ledger/tagmill.db"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """An empty PostgreSQL database."""
    return postgres_server.url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """A SQLite file with the newest schema."""
    with migrated(sqlite_url) as database:
        yield database


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    """A PostgreSQL database with the newest schema."""
    with migrated(postgres_url) as database:
        yield database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of each kind, with the newest schema."""
    with migrated(database_url) as database:
        yield database


@contextmanager
def migrated(url: str) -> Iterator[Database]:
    """The database at this URL with the newest schema."""
    upgrade(url)
    opened = open_database(url)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def cache_server(redis_server: RedisServer) -> Iterator[RedisServer]:
    """A Redis in which, after the test, every key has a time to live and shows nothing of a text or a label."""
    yield redis_server
    if not redis_server.running:
        return
    with redis.Redis.from_url(redis_server.url) as client:
        leaks = [leak for key in client.scan_iter() for leak in _leaks(client, key)]
    assert not leaks, leaks


def _leaks(client: redis.Redis, key: bytes) -> Iterator[str]:
    if client.ttl(key) < 0:
        yield f"{key!r} has no time to live"
    stored = key + (client.dump(key) or b"")
    for word in (TEXT, *LABELS):
        if word.encode() in stored:
            yield f"{key!r} shows {word!r}"
