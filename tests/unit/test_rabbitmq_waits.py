"""A wait for RabbitMQ ends, whether it says nothing or nothing but that it lives."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from workers.consuming import TRANSPORTS
from workers.rabbitmq import Connection

HEARTBEAT, ANSWER = None, True


def connection(frames: Callable[[], Any], *, read_timeout: float | None) -> Connection:
    """One that is not connected and reads what ``frames`` says."""
    connection = Connection(read_timeout=read_timeout)
    connection.blocking_read = lambda timeout: frames()
    return connection


def heartbeats() -> None:
    time.sleep(0.005)  # what a read costs; without it a loop for ever would look the same as one that ends
    return HEARTBEAT


def test_an_answer_among_heartbeats_is_taken_in() -> None:
    frames = iter([HEARTBEAT, HEARTBEAT, ANSWER])
    connection(lambda: next(frames), read_timeout=5).drain_events()
    assert next(frames, "all were read") == "all were read"


def test_heartbeats_alone_end_the_wait_at_the_read_timeout() -> None:
    with pytest.raises(TimeoutError, match=r"heartbeats and no answer for 0\.05 s"):
        connection(heartbeats, read_timeout=0.05).drain_events()


def test_a_time_limit_of_the_callers_own_counts() -> None:
    with pytest.raises(TimeoutError, match=r"for 0\.02 s"):
        connection(heartbeats, read_timeout=60).drain_events(timeout=0.02)


def test_the_worker_uses_it_with_and_without_tls() -> None:
    from kombu.transport import resolve_transport

    assert {resolve_transport(TRANSPORTS[scheme]).Connection for scheme in ("amqp", "pyamqp", "amqps")} == {Connection}
