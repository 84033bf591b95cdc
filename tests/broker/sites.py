"""A site: queues, results, cache and ledger of its own on servers that sites share, and the workers that serve them."""

import gc
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import kombu.pools
import redis
from celery import Celery
from celery.result import AsyncResult
from kombu import Connection, Exchange, Queue

from ledger.database import open_database
from ledger.dead import DeadLedger, ParkedLetter
from ledger.tags import StandingTags, TagLedger
from producers.app import make_app
from tagging.names import EXCHANGE, QUEUE_OF_TASK, TAG_TICKET
from tagging.settings import Settings, load
from tagging.wiring import exchange_type
from tests.processes import ROOT, Worker
from tests.servers import RabbitServer, RedisServer, wait_until

LABELS = ("billing", "login")
CANARY = "canary-4711"
"""Is part of every text that a test sends; must be found in no log, event or key."""
ANSWER_S = 30.0
_VHOSTS = 12
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker's server, which sites divide among themselves."""

    name: str
    redis: RedisServer
    rabbit: RabbitServer | None

    @classmethod
    def on(cls, redis_server: RedisServer, rabbit: RabbitServer | None) -> Self:
        """A broker on this RabbitMQ, or on Redis where there is none."""
        if rabbit is not None:
            rabbit.control("eval", _ADD_VHOSTS)
        return cls("rabbitmq" if rabbit else "redis", redis_server, rabbit)

    def site(self, folder: Path, *, ledger: str = "") -> "Site":
        """A site that nobody else has seen, with its ledger at this URL or in a file."""
        number = next(_numbers)
        first = 3 * number
        url = (
            self.redis_url(first)
            if self.rabbit is None
            else self.rabbit.url.removesuffix("//") + f"/v{number % _VHOSTS}"
        )
        environ = {
            "TAGMILL_BROKER__URL": url,
            "TAGMILL_RESULTS__URL": self.redis_url(first + 1),
            "TAGMILL_CACHE__URL": self.redis_url(first + 2),
            "TAGMILL_LEDGER__URL": ledger or f"sqlite:///{folder}/ledger.db",
            "TAGMILL_MODEL__NAME": "fake:failing=1",
            "TAGMILL_BATCHING__MAX_MESSAGES": "32",
            "TAGMILL_RETRIES__MAX_ATTEMPTS": "3",
            "TAGMILL_RETRIES__BACKOFF_S": "0.1",
            "TAGMILL_RETRIES__BACKOFF_MAX_S": "0.3",
        }
        return Site(broker=self, folder=folder, environ=environ)

    def redis_url(self, database: int) -> str:
        """The URL of one of Redis' databases."""
        return f"{self.redis.url.removesuffix('/0')}/{database}"

    def drop_connections(self, site: "Site") -> None:
        """Close every connection to the site's queues, as a restart of the broker or a firewall would."""
        site.close()
        self._drop(site)
        site.connect()

    def _drop(self, site: "Site") -> None:
        if self.rabbit is not None:
            vhost = site.settings.broker.url.rpartition("/")[2]
            self.rabbit.control("close_all_connections", "--vhost", vhost, "a test")
            return
        database = site.settings.broker.url.rpartition("/")[2]
        with redis.Redis.from_url(self.redis_url(0)) as client:
            for connection in client.client_list():
                if connection["db"] == database:
                    client.client_kill_filter(_id=connection["id"])


@dataclass(slots=True)
class Site:
    """Everything that a worker and its clients share."""

    broker: Broker
    folder: Path
    environ: dict[str, str]
    settings: Settings = field(init=False)
    client: Celery = field(init=False)

    def __post_init__(self) -> None:
        self.settings = load(environ=self.environ).settings
        self.connect()

    def connect(self) -> None:
        """Make the client that the test speaks through."""
        self.client = make_app(self.settings)
        # The next task of a chain may belong to another app.
        self.client.conf.task_queues.append(Queue("helpdesk", Exchange(""), routing_key="helpdesk", no_declare=True))

    def close(self) -> None:
        """Let the client's connections go while the servers are still there."""
        gc.collect()  # a result that is collected later would tell its server that nobody waits any more
        self.client.close()
        # The pools are shared by URL: a later client of this site must not find the closed ones.
        connection = self.client.connection_for_write()
        for group in (kombu.pools.producers, kombu.pools.connections):
            group[connection].force_close_all()
            del group[connection]

    def worker(self, *arguments: str, name: str = "w1@tests", **settings: object) -> Worker:
        """A worker, not started; settings as in ``model__name="fake:pass_s=1"``."""
        environ = {**self.environ, **{f"TAGMILL_{key.upper()}": str(value) for key, value in settings.items()}}
        arguments = arguments or ("--loglevel", "info", "--without-mingle")
        return Worker(self.folder, environ=environ, control=self.client, name=name, arguments=arguments)

    def send(self, text: str = "", /, *, task: str = TAG_TICKET, **options: Any) -> AsyncResult:
        """Send a text with two labels, or the whole ``body``; the other options are those of ``apply_async``."""
        return self.ask(text, task=task, **options.pop("fields", {})).apply_async(**options)

    def send_many(self, n: int) -> list[str]:
        """Send so many; their ids."""
        return [self.send().id for _ in range(n)]

    def ask(self, text: str = "", /, *, task: str = TAG_TICKET, **fields: Any) -> Any:
        """The signature of a task."""
        body = {"text": f"{text} {uuid.uuid4().hex} {CANARY}".strip(), "labels": list(LABELS), **fields}
        return self.client.signature(task, args=[body], queue=QUEUE_OF_TASK[task])

    def send_raw(self, body: bytes, *, headers: Mapping[str, Any], **properties: Any) -> None:
        """Put bytes on the queue of tickets as a stranger would."""
        queue = QUEUE_OF_TASK[TAG_TICKET]
        with self.client.connection_for_write() as connection, connection.channel() as channel:
            producer = connection.Producer(channel, exchange=Exchange(EXCHANGE, type=exchange_type(self.settings)))
            producer.publish(
                body, routing_key=queue, headers=dict(headers), **{"content_type": "application/json", **properties}
            )

    def dead(self, id_: str) -> ParkedLetter:
        """The dead letter of this id, once it is there."""
        with self._ledger(DeadLedger) as letters:
            wait_until(f"{id_} is parked", lambda: letters.get(id_) is not None, timeout_s=ANSWER_S)
            letter: ParkedLetter | None = letters.get(id_)
        assert letter is not None
        return letter

    def is_dead(self, id_: str) -> bool:
        """Whether there is a dead letter of this id now."""
        with self._ledger(DeadLedger) as letters:
            return letters.get(id_) is not None

    def tags(self, ref: str) -> list[StandingTags]:
        """What stands in the ledger for the document of this reference."""
        with self._ledger(TagLedger) as tags:
            found: list[StandingTags] = tags.by_ref(ref)
            return found

    def states(self, ids: Sequence[str]) -> list[str]:
        """The state of each result, ``PENDING`` where there is none."""
        with self.results() as client:
            stored = client.mget([f"celery-task-meta-{id_}" for id_ in ids])
        return [json.loads(value)["status"] if value else "PENDING" for value in stored]

    def done(self, ids: Sequence[str]) -> int:
        """How many of these are answered."""
        return self.states(ids).count("SUCCESS")

    def queued(self) -> int:
        """How many messages wait in the queues."""
        with Connection(self.settings.broker.url) as connection, connection.channel() as channel:
            return sum(_depth(channel, queue) for queue in QUEUE_OF_TASK.values())

    def results(self) -> redis.Redis:
        """A client of the results' database."""
        return redis.Redis.from_url(self.settings.results.url)

    def cache(self) -> redis.Redis:
        """A client of the cache's database."""
        return redis.Redis.from_url(self.settings.cache.url)

    def inspect(self) -> Any:
        """Celery's remote control."""
        return self.client.control.inspect(destination=["w1@tests"], timeout=5.0, limit=1)

    def revoke(self, task: AsyncResult) -> None:
        """Revoke it; returns once the worker knows."""
        options = {"destination": ["w1@tests"], "reply": True, "timeout": 5.0, "limit": 1}
        assert self.client.control.revoke(task.id, **options), "the worker did not answer"

    def wait_until_running(self, *tasks: AsyncResult) -> None:
        """Return once these tasks are in a batch on the device."""
        wanted = {task.id for task in tasks}
        wait_until(f"{wanted} are active", lambda: wanted <= self.shown("active"), timeout_s=ANSWER_S)

    def shown(self, state: str) -> set[str]:
        """The ids of the tasks that ``inspect`` shows as active, reserved or scheduled."""
        inspect = self.client.control.inspect(destination=["w1@tests"], timeout=2.0, limit=1)
        replies = getattr(inspect, state)() or {}
        return {(task.get("request") or task)["id"] for tasks in replies.values() for task in tasks}

    @contextmanager
    def _ledger(self, kind: Callable[..., Any]) -> Iterator[Any]:
        database = open_database(self.settings.ledger.url)
        try:
            yield kind(database)
        finally:
            database.close()


class Events:
    """What a worker tells the world, as Flower hears it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._seen: list[dict[str, Any]] = []

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Hear everything that is said inside the block."""
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self._seen.append})
            ready = threading.Event()
            receiver.on_consume_ready = lambda *_args, **_options: ready.set()
            thread = threading.Thread(target=self._listen, args=(receiver,), name="events", daemon=True)
            thread.start()
            assert ready.wait(ANSWER_S), "the event receiver does not consume"
            try:
                # On Redis the subscription is made some time after the consumer calls itself ready.
                wait_until("a worker is heard", self._hears_a_worker, timeout_s=ANSWER_S, every_s=0.1)
                yield self
            finally:
                receiver.should_stop = True
                thread.join(ANSWER_S)

    def of(self, id_: str) -> list[dict[str, Any]]:
        """The events of this task in the order in which the worker sent them."""
        return sorted(
            (event for event in list(self._seen) if event.get("uuid") == id_), key=lambda event: event["clock"]
        )

    def names_of(self, id_: str) -> list[str]:
        """The names of those events."""
        return [event["type"] for event in self.of(id_)]

    def wait_for(self, name: str, *ids: str) -> None:
        """Return once each of these tasks has had this event."""
        for id_ in ids:
            wait_until(f"{name} of {id_}", lambda id_=id_: name in self.names_of(id_), timeout_s=ANSWER_S)

    @property
    def heartbeats(self) -> int:
        """How many heartbeats were heard."""
        return sum(event["type"] == "worker-heartbeat" for event in list(self._seen))

    @property
    def text(self) -> str:
        """All of it."""
        return json.dumps(self._seen, default=str)

    def _hears_a_worker(self) -> bool:
        self._app.control.heartbeat()
        return bool(self._seen)

    @staticmethod
    def _listen(receiver: Any) -> None:
        for _ in receiver.consume(limit=None, timeout=None, safety_interval=0.1):
            pass


def helpdesk_worker(site: Site) -> Worker:
    """A worker of somebody else's app, which knows nothing of ours."""
    environ = {"HELPDESK_BROKER": site.settings.broker.url, "HELPDESK_RESULTS": site.settings.results.url}
    return Worker(
        site.folder,
        environ=environ,
        control=site.client,
        name="helpdesk@tests",
        app="tests.broker.helpdesk",
        arguments=("--pool", "solo", "--loglevel", "info", "--without-mingle"),
    )


def _depth(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except channel.connection.client.channel_errors:
        return 0


_ADD_VHOSTS = f"""
    [begin
        Name = list_to_binary("v" ++ integer_to_list(N)),
        rabbit_vhost:add(Name, <<"tests">>),
        rabbit_auth_backend_internal:set_permissions(<<"guest">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
    end || N <- lists:seq(0, {_VHOSTS - 1})].
"""

__all__ = ["ANSWER_S", "CANARY", "LABELS", "ROOT", "Broker", "Events", "Site", "helpdesk_worker"]
