"""A Redis transport for kombu whose fetch loses nothing, and takes as many messages at once as there is room for.

The stock transport removes a message with ``BRPOP`` and registers it as unacknowledged in a second round trip: a
worker that dies, or a connection that breaks, between the two loses it without a trace (celery/kombu#305). Here one
server-side script pops and registers, by the server's clock, any number of messages; and since a script cannot block,
an empty queue is waited for with ``BLMOVE queue queue RIGHT RIGHT``, which moves the last element onto itself: a
blocking peek.

A connection that goes silent takes every other with it: what waited for it gives up after ``socket_timeout``, and all
that are open by then are opened anew instead of being waited for one after the other.

What a living worker holds stays with it: its messages are renewed three times in a visibility timeout, so that this can
be short and still no longer than it takes to notice a death.

Everything else is the stock transport's: names of keys, envelopes, priorities, restoring, publishing, so that stock
clients and workers share the queues. ADR-0003.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import Empty
from typing import Any, Final

import structlog
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as AnswerTimeout

from tagging.names import QUEUE_DEAD

log = structlog.get_logger()

_PEEK_S: Final = 0.1
"""How long a peek waits on one queue before all are looked at again."""
_REFUSED_S: Final = 0.05
_OVERDUE_S: Final = 1.0
"""A fetch or a peek that is so late comes from a server that is slow, or from none."""
_MOST: Final = 256
"""Messages in one fetch when no prefetch limit is set."""
_LAST_FIRST_EVERY: Final = 8
"""One fetch in so many looks at the queues in reverse, so that the last one never starves."""

# KEYS: unacked index, unacked, quarantine, then the lists in order of preference. ARGV: how many.
# Returns raw message, list, raw message, list, …
_FETCH: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local room, got = tonumber(ARGV[1]), {}
for i = 4, #KEYS do
  while #got < 2 * room do
    local raw = redis.call('LINDEX', KEYS[i], -1)
    if not raw then break end
    local ok, message = pcall(cjson.decode, raw)
    local properties = ok and type(message) == 'table' and message.properties
    local tag = type(properties) == 'table' and properties.delivery_tag
    if type(tag) == 'string' then
      local info = type(properties.delivery_info) == 'table' and properties.delivery_info or {}
      local exchange = type(info.exchange) == 'string' and info.exchange or ''
      local key = type(info.routing_key) == 'string' and info.routing_key or ''
      local entry = '[' .. raw .. ',' .. cjson.encode(exchange) .. ',' .. cjson.encode(key) .. ']'
      redis.call('HSET', KEYS[2], tag, entry)
      redis.call('ZADD', KEYS[1], now, tag)
      got[#got + 1] = raw
      got[#got + 1] = KEYS[i]
    else
      redis.call('LPUSH', KEYS[3], raw)
    end
    redis.call('RPOP', KEYS[i])
  end
end
return got
"""
# KEYS: unacked index. ARGV: the tags, of which only those are renewed that nobody has restored meanwhile.
_RENEW: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
for i = 1, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', now, ARGV[i])
end
"""
# From Redis 7 a script may say that it runs even when memory is full: fetching and acknowledging is what frees it.
_WHEN_FULL: Final = "#!lua flags=allow-oom"
_RENEWALS: Final = 3
"""How often a message is renewed within its visibility timeout: one may be late and another fail."""
_TAGS_A_RENEWAL: Final = 500


class QoS(stock.QoS):  # type: ignore[misc]  # kombu is not checked
    """Unacknowledged messages: registered by the fetch, removed many at a time, restored by the server's clock."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._together: list[str] | None = None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Remember a delivered message; one that the script fetched is registered in Redis already."""
        if self.channel.delivers_registered:
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge, at once or with the others of ``together``."""
        if self._together is None:
            self._forget([delivery_tag])
        else:
            self._together.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Acknowledge everything that is acknowledged inside in one round trip, when the block ends.

        A connection that breaks here costs a second run of work that is stored already, never a message.
        """
        self._together = []
        try:
            yield
        finally:
            tags, self._together = self._together, None
            try:
                self._forget(tags)
            except self.channel.connection_errors as e:
                log.warning("acks.lost", n=len(tags), cause=repr(e))

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what is held, as a channel closes; where its connection is gone, the visibility timeout does so.

        kombu takes a broken connection apart twice, and the second time asks it for its address: an AttributeError that
        ends the worker instead of letting it reconnect.
        """
        if self.channel.connection is None or self.channel.connection.client is None:
            self._delivered.clear()
            return
        super().restore_unacked(client)

    def renew(self) -> None:
        """Let the visibility timeout of everything that is held begin anew."""
        held = [tag for tag in self._delivered if tag not in self._dirty]
        index = self.channel.global_keyprefix + self.unacked_index_key
        with self.channel.conn_or_acquire() as client:
            for i in range(0, len(held), _TAGS_A_RENEWAL):
                client.eval(self.channel.as_script(_RENEW), 1, index, *held[i : i + _TAGS_A_RENEWAL])

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Put back what was fetched longer ago than the visibility timeout and never acknowledged."""
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client:
            try:
                seconds, microseconds = client.time()
                before = seconds + microseconds / 1e6 - self.visibility_timeout
                with stock.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire):
                    overdue = client.zrange(
                        self.unacked_index_key, before, 0, desc=True, byscore=True, offset=num and start, num=num
                    )
                    for tag in overdue:
                        self.restore_by_tag(tag, client)
            except stock.MutexHeld:
                pass  # another worker is at it
            except ResponseError as e:
                log.warning("restore.refused", cause=str(e))  # a full Redis; the next sweep tries again

    def _forget(self, tags: Sequence[str]) -> None:
        if not tags:
            return
        # No MULTI: a Redis whose memory is full refuses every command queued in one, and these two free memory.
        # The index last: where only the first command arrives, the next restore finds the tag and clears it away.
        with self.channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.hdel(self.unacked_key, *tags)
            pipe.zrem(self.unacked_index_key, *tags)
            pipe.execute()


class Channel(stock.Channel):  # type: ignore[misc]  # kombu is not checked
    """Fetches by script, waits by peeking."""

    QoS = QoS

    delivers_registered = False
    """Whether the message being delivered came out of the script."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._peeking = False
        self._found_nothing = False
        self._fetches = 0
        self._prologue: str | None = None
        super().__init__(*args, **options)

    def as_script(self, body: str) -> str:
        """The script as this server takes it: from Redis 7 on allowed even when memory is full."""
        if self._prologue is None:
            with self.conn_or_acquire() as client:
                major = int(str(client.info("server")["redis_version"]).partition(".")[0])
            self._prologue = _WHEN_FULL if major >= 7 else ""
        return self._prologue + body

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """As kombu's; an answer that does not come makes the transport's other connections suspect."""
        try:
            with super().conn_or_acquire(client) as acquired:
                yield acquired
        except AnswerTimeout:
            self.connection.distrust_connections()
            raise

    def reconnect(self) -> None:
        """Close what is idle or waits for an answer that is overdue; each is opened anew when it is needed."""
        for pool in (self._pool, self._async_pool):
            if pool is not None:
                pool.disconnect(inuse_connections=False)
        if self._fetch_is_overdue():
            self._in_poll.disconnect()
        subscriber = self.__dict__.get("subclient")  # kombu makes one where it is only looked at
        if subscriber is not None and subscriber.connection is not None:
            subscriber.connection.disconnect()

    def _fetch_is_overdue(self) -> bool:
        if not self._in_poll or time.monotonic() - self._brpop_sent_at < _PEEK_S + _OVERDUE_S:
            return False
        sock = self._in_poll._sock
        # The answer may lie there unread, since whoever calls has kept the loop waiting.
        return sock is not None and not stock._socket_readable(sock)

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002  # kombu's signature
        """Ask for messages: by the script, or by a peek when the last look found none."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        self._fetches += 1
        keys = self._lists(queues)
        self._peeking = self._found_nothing
        if self._peeking:
            key = keys[self._fetches % len(queues)]
            command: list[Any] = ["BLMOVE", key, key, "RIGHT", "RIGHT", _PEEK_S]
        else:
            registers = [self.global_keyprefix + k for k in (self.unacked_index_key, self.unacked_key, QUEUE_DEAD)]
            command = ["EVAL", self.as_script(_FETCH), len(registers) + len(keys), *registers, *keys, self._room()]
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        """Deliver what came.

        Raises:
            Empty: Nothing did.
        """
        try:
            got = self._read_reply(**options)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if self._peeking or not got:
            self._found_nothing = not self._peeking
            raise Empty
        self._found_nothing = False
        self.delivers_registered = True
        try:
            for raw, key in zip(got[::2], got[1::2], strict=True):
                self.connection._deliver(loads(bytes_to_str(raw)), self._queue_of(bytes_to_str(key)))
        finally:
            self.delivers_registered = False
        return True

    def _read_reply(self, **options: Any) -> Any:
        command = "BLMOVE" if self._peeking else "EVAL"
        try:
            return self.client.parse_response(self.client.connection, command, **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # the next round connects again
            raise
        except ResponseError as e:
            # A full Redis refuses the peek, a full disk both; it must neither end the worker nor be asked in a spin.
            log.warning("broker.refused", command=command, cause=str(e))
            time.sleep(_REFUSED_S)
            return None

    def _lists(self, queues: Sequence[str]) -> list[str]:
        """The Redis lists of the queues, each with its priorities, in the order in which they are served."""
        if self._fetches % _LAST_FIRST_EVERY == 0:
            queues = queues[::-1]
        return [self.global_keyprefix + self._q_for_pri(q, step) for step in self.priority_steps for q in queues]

    def _queue_of(self, key: str) -> str:
        return key.removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]

    def _room(self) -> int:
        room = self.qos.can_consume_max_estimate()
        return _MOST if room is None else max(1, min(room, _MOST))


class Transport(stock.Transport):  # type: ignore[misc]  # kombu is not checked
    """``broker_transport = "workers.transport:Transport"`` beside a ``redis://`` or ``rediss://`` URL."""

    Channel = Channel

    _renewal: Any = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """As kombu's, at each connect; from now on what is held is renewed as well."""
        super().register_with_event_loop(connection, loop)
        if self._renewal is not None:
            self._renewal.cancel()
        timeout_s = connection.client.transport_options.get("visibility_timeout", Channel.visibility_timeout)
        self._renewal = loop.call_repeatedly(timeout_s / _RENEWALS, self._renew)

    def distrust_connections(self) -> None:
        """One connection was silent for as long as is waited: let go of all that were open then.

        The loop would otherwise wait for each of them in turn: half a minute and more until it fetches again.
        """
        log.warning("connections.distrusted", channels=len(self.channels))
        for channel in self.channels:
            channel.reconnect()

    def _renew(self) -> None:
        for channel in list(self.cycle._channels):
            try:
                channel.qos.renew()
            except (*channel.connection_errors, ResponseError) as e:
                log.warning("renewal.failed", cause=repr(e))  # the next one comes before the time is up


class SentinelChannel(Channel, stock.SentinelChannel):  # type: ignore[misc]  # kombu is not checked
    """The same on whichever Redis Sentinel names as the master."""


class SentinelTransport(Transport, stock.SentinelTransport):  # type: ignore[misc]  # kombu is not checked
    """``broker_transport = "workers.transport:SentinelTransport"`` beside ``sentinel://`` URLs."""

    Channel = SentinelChannel


def acks_together(message: Any) -> AbstractContextManager[None]:
    """Inside, acknowledgements on the message's channel are gathered where the transport can do so."""
    channel = message.channel
    return channel.qos.together() if isinstance(channel, Channel) else nullcontext()
