"""Servers that tests share. Each is started by the first test that needs it and stopped at the end of the run.

What a test measures it prints as a line that begins with ``FAULT`` or ``FIGURE``; those of all tests stand at the end.
"""

from collections.abc import Iterator
from itertools import chain

import pytest

from tests.servers import PostgresServer, RabbitServer, RedisServer, launched

pytest_plugins = ["tests.broker.fixtures", "tests.faults.fixtures", "tests.http.fixtures"]
"""A plugin and no folder's conftest, because ``tests/guarantees`` needs them as well, and a server is started once."""


@pytest.fixture(scope="session")
def _redis_process() -> Iterator[RedisServer]:
    with launched(RedisServer) as server:
        yield server


@pytest.fixture
def redis_server(_redis_process: RedisServer) -> RedisServer:
    """An empty Redis. A test may kill or pause it; the next one finds it up again."""
    import redis

    if _redis_process.running:
        _redis_process.resume()
    else:
        _redis_process.start()
    with redis.Redis.from_url(_redis_process.url) as client:
        client.flushall()
    return _redis_process


@pytest.fixture(scope="session")
def _postgres_process() -> Iterator[PostgresServer]:
    with launched(PostgresServer) as server:
        yield server


@pytest.fixture
def postgres_server(_postgres_process: PostgresServer) -> PostgresServer:
    """A PostgreSQL whose database is empty. A test may kill or pause it; the next one finds it up again."""
    import psycopg

    if _postgres_process.running:
        _postgres_process.resume()
    else:
        _postgres_process.start()
    with psycopg.connect(_postgres_process.url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return _postgres_process


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """A RabbitMQ that keeps what tests leave in it: use queue names of your own."""
    with launched(RabbitServer) as server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured, of tests that passed too, whichever process they ran in."""
    reports = chain.from_iterable(terminalreporter.getreports(outcome) for outcome in ("passed", "failed"))
    printed = [line for report in reports if report.when == "call" for line in report.capstdout.splitlines()]
    if measured := [line for line in printed if line.startswith(("FAULT ", "FIGURE "))]:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(measured))
