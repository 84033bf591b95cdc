"""What a broker must not be: looked at before a worker starts, and by ``tagmill check``.

    name            what would happen
    eviction        Redis throws queued messages away when its memory is full
    no-aof          a crash of Redis loses everything that is queued
    commands        Redis refuses what the transport fetches with, so nothing would ever be fetched
    classic-queue   RabbitMQ keeps the queue on one node, and refuses workers that declare it as a quorum queue

All but ``commands`` can be allowed by name: ``broker.allow_unsafe``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import redis
import structlog
from amqp.exceptions import AMQPError, NotFound, PreconditionFailed
from kombu import Connection, Queue
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from tagging.errors import BrokerRefused, BrokerUnreachable
from tagging.names import TAGGING_QUEUES
from tagging.settings import Settings, Unsafe
from tagging.urls import mask_url
from tagging.wiring import tls_options

log = structlog.get_logger()

_TIMEOUT_S: Final = 3.0
_BRIEFLY: Final[dict[str, Any]] = {
    "socket_timeout": _TIMEOUT_S,
    "socket_connect_timeout": _TIMEOUT_S,
    "retry": Retry(NoBackoff(), 0),
}
_SENTINEL_PORT: Final = 26379


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that is wrong with a broker."""

    name: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        """All of it, for the person who has to mend it."""
        allow = ""
        if self.name in get_args(Unsafe):
            allow = f'\n    Or accept the loss: broker.allow_unsafe = ["{self.name}"] in config/app.toml.'
        return f"{self.found}; expected {self.expected}.\n    {self.remedy}{allow}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """What a look at Redis showed; None where it did not let us look."""

    policy: str | None
    append_only: bool | None
    refused_commands: tuple[str, ...]


def refuse_unsafe_broker(settings: Settings, queues: Sequence[Queue]) -> None:
    """Return where the broker may carry messages.

    Args:
        settings: Name the broker and what is allowed all the same.
        queues: As a worker declares them.

    Raises:
        BrokerRefused: It would lose messages; every reason with its remedy.
        BrokerUnreachable: It did not answer within a few seconds.
    """
    found = _look_at_redis(settings) if settings.uses_redis_broker else _look_at_rabbitmq(settings, queues)
    refusals = list(found)
    allowed = [refusal for refusal in refusals if refusal.name in settings.broker.allow_unsafe]
    for refusal in allowed:
        log.warning("broker.unsafe", name=refusal.name, found=refusal.found)
    if wrong := [refusal for refusal in refusals if refusal not in allowed]:
        raise BrokerRefused("\n".join(f"{mask_url(settings.broker.url)}: {refusal}" for refusal in wrong))


def redis_refusals(facts: RedisFacts) -> Iterator[Refusal]:
    """What is wrong with a Redis that looks like this."""
    # A volatile-* policy evicts what has a time to live: results and cached answers, never a queue.
    if facts.policy is not None and facts.policy.startswith("allkeys"):
        yield Refusal(
            name="eviction",
            found=f"maxmemory-policy {facts.policy} evicts queued messages",
            expected="noeviction",
            remedy="CONFIG SET maxmemory-policy noeviction, and the same in redis.conf; put caches on another Redis.",
        )
    if facts.append_only is False:
        yield Refusal(
            name="no-aof",
            found="no append-only file, so that a crash of Redis loses what is queued",
            expected="appendonly yes",
            remedy="CONFIG SET appendonly yes, and the same in redis.conf.",
        )
    if facts.refused_commands:
        names = ", ".join(facts.refused_commands)
        yield Refusal(
            name="commands",
            found=f"{names} refused to this user",
            expected="Redis 6.2 or newer, and a user who may use eval, blmove and time on the queues",
            remedy="ACL SETUSER <user> +eval +evalsha +script +blmove +time, or a newer Redis.",
        )


def _look_at_redis(settings: Settings) -> Iterator[Refusal]:
    try:
        with _master(settings) if settings.uses_sentinel else _redis(settings) as client:
            client.ping()
            return redis_refusals(_facts(client))
    except (redis.ConnectionError, redis.TimeoutError, OSError) as e:
        raise BrokerUnreachable(f"{mask_url(settings.broker.url)} cannot be reached: {e}") from e


def _redis(settings: Settings) -> redis.Redis:
    return redis.Redis.from_url(settings.broker.url.replace("redis+socket://", "unix://", 1), **_BRIEFLY)


@contextmanager
def _master(settings: Settings) -> Iterator[redis.Redis]:
    """The Redis that Sentinel names now; credentials and database are those of the first URL, as kombu has it."""
    urls = [urlsplit(url) for url in settings.broker.url.split(";")]
    hosts = [(url.hostname, url.port or _SENTINEL_PORT) for url in urls]
    database = {"username": urls[0].username, "password": urls[0].password, "db": int(urls[0].path.strip("/") or 0)}
    sentinel = Sentinel(hosts, sentinel_kwargs=_BRIEFLY, **_BRIEFLY)  # type: ignore[no-untyped-call]  # redis ships none for it
    try:
        with sentinel.master_for(settings.broker.sentinel_master, **database) as client:  # type: ignore[no-untyped-call]  # nor for it
            yield client
    finally:
        for one in sentinel.sentinels:
            one.close()


def _facts(client: redis.Redis) -> RedisFacts:
    memory, persistence = _info(client, "memory"), _info(client, "persistence")
    aof = persistence.get("aof_enabled")
    return RedisFacts(
        policy=memory.get("maxmemory_policy"),
        append_only=None if aof is None else bool(aof),
        refused_commands=tuple(_refused_commands(client)),
    )


def _info(client: redis.Redis, section: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.info(section)
    except redis.ResponseError as e:
        log.warning("broker.not_inspected", reason=f"INFO {section}: {e}")
        return {}
    return found


def _refused_commands(client: redis.Redis) -> Iterator[str]:
    queue = TAGGING_QUEUES[0]
    tries = {
        "EVAL": ("return redis.call('TIME')", 0),
        # As the transport peeks: the last element is put where it was.
        "BLMOVE": (queue, queue, "RIGHT", "RIGHT", 0.01),
    }
    for name, arguments in tries.items():
        try:
            client.execute_command(name, *arguments)  # type: ignore[no-untyped-call]  # redis ships none for it
        except redis.ResponseError as e:
            # Anything else, such as a full memory, says nothing about rights.
            if isinstance(e, redis.exceptions.NoPermissionError) or "unknown command" in str(e).lower():
                yield name


def _look_at_rabbitmq(settings: Settings, queues: Sequence[Queue]) -> Iterator[Refusal]:
    options = {"read_timeout": _TIMEOUT_S, "write_timeout": _TIMEOUT_S}
    try:
        with Connection(
            settings.broker.url,
            ssl=tls_options(settings) or False,
            connect_timeout=_TIMEOUT_S,
            transport_options=options,
        ) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_TIMEOUT_S)
            return iter([refusal for queue in queues if (refusal := _look_at_queue(connection, queue)) is not None])
    except (OperationalError, AMQPError, OSError) as e:
        raise BrokerUnreachable(f"{mask_url(settings.broker.url)} cannot be reached: {e}") from e


def _look_at_queue(connection: Connection, queue: Queue) -> Refusal | None:
    """What is wrong with the queue, where it exists: declared once more as a worker does it, nothing is changed."""
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue.name, passive=True)
            queue(channel).queue_declare()
    except NotFound:
        return None
    except PreconditionFailed as e:
        return Refusal(
            name="classic-queue",
            found=f"the queue {queue.name} exists and is declared otherwise ({e.reply_text})",
            expected=f"it to be declared with {queue.queue_arguments}",
            remedy=f"Let its workers empty it, then `rabbitmqctl delete_queue {queue.name}`; a worker makes it anew.",
        )
    return None
