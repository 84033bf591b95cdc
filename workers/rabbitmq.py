"""A RabbitMQ transport for kombu on which every wait for an answer ends, heartbeats or not.

py-amqp's time limit is on one read of the socket, so the broker's own heartbeats start it anew: a call that RabbitMQ
never answers is waited for until RabbitMQ gives up the channel. That happens after each restart of the broker: it
accepts connections while its quorum queues elect their leaders, and a consumer that registers in between may wait for
thirty seconds, then for thirty more. ADR-0012.
"""

import time

from kombu.transport import pyamqp as stock


class Connection(stock.Connection):  # type: ignore[misc]  # kombu ships no types
    """A connection on which ``read_timeout`` bounds the wait for whatever is no heartbeat."""

    def drain_events(self, timeout: float | None = None) -> None:
        """Take in what the broker sends, until one frame of it means something.

        Raises:
            TimeoutError: Nothing but heartbeats came for ``timeout`` seconds, or ``read_timeout`` without one.
        """
        limit_s = self.read_timeout if timeout is None else timeout
        if not limit_s:
            super().drain_events(timeout)
            return
        deadline = time.monotonic() + limit_s
        while not self.blocking_read(max(deadline - time.monotonic(), 0.001)):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"RabbitMQ sent heartbeats and no answer for {limit_s:g} s")


class Transport(stock.Transport):  # type: ignore[misc]  # kombu ships no types
    """kombu's ``amqp://`` with that connection."""

    Connection = Connection


class SSLTransport(stock.SSLTransport):  # type: ignore[misc]  # kombu ships no types
    """kombu's ``amqps://`` with that connection."""

    Connection = Connection
