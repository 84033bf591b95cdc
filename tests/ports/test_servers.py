"""A test's server comes back on the same port with the same data, also after it was killed."""

import amqp
import psycopg
import pytest
import redis

from tests.servers import HOST, PostgresServer, RabbitServer, RedisServer, launched, server_folder


def test_redis():
    with server_folder("redis") as folder:
        server = RedisServer(folder, options=["--appendonly", "yes", "--appendfsync", "always"])
        try:
            with redis.Redis.from_url(server.start().url) as client:
                client.set("a", "b")
            server.kill()
            assert not server.answers()
            with redis.Redis.from_url(server.start().url) as client:
                assert client.get("a") == b"b"
        finally:
            server.stop()


def test_postgres():
    with launched(PostgresServer) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE a (b int)")
        server.kill()
        assert not server.answers()
        with psycopg.connect(server.start().url) as connection:
            assert connection.execute("SELECT * FROM a").fetchall() == []


@pytest.mark.slow
def test_rabbitmq():
    with launched(RabbitServer) as server:
        with amqp.Connection(f"{HOST}:{server.port}", userid="guest", password="guest") as connection:
            channel = connection.channel()
            channel.queue_declare("kept", durable=True, auto_delete=False)
        server.kill()
        assert not server.answers()
        server.start()
        with amqp.Connection(f"{HOST}:{server.port}", userid="guest", password="guest") as connection:
            channel = connection.channel()
            assert channel.queue_declare("kept", passive=True).queue == "kept"
