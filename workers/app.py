"""The worker's Celery app: ``celery -A workers.app worker``, or ``tagmill worker``."""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from celery import Celery
from kombu import Exchange, Queue

from tagging import logs
from tagging.labels import LabelBook
from tagging.messages import Decoder
from tagging.names import QUEUE_OF_TASK, TAG_COMMENT, TAG_MANY, TAG_TICKET, TAGGING_QUEUES
from tagging.settings import REDIS_SCHEMES, Loaded, Settings, load
from workers.pipeline import Pipeline
from workers.pool import BatchTask
from workers.ports import DeadLetters, Engine, ResultCache, TagStore

EXCHANGE: Final = "tag"


class WorkerApp(Celery):  # type: ignore[misc]  # celery ships no types
    """A Celery app that carries the settings and can build the pipeline its pool needs."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__("tagmill", set_as_current=False)
        self.loaded = loaded
        self.settings: Settings = loaded.settings
        self._pipeline: Pipeline | None = None
        self._dead_letters: DeadLetters | None = None

    @property
    def dead_letters(self) -> DeadLetters:
        """Where what cannot be done waits."""
        if self._dead_letters is None:
            self._open_ledger()
        assert self._dead_letters is not None
        return self._dead_letters

    def build_pipeline(self) -> Pipeline:
        """Load the model and connect the stores; returns when the first batch can be taken, the same one each time.

        Raises:
            ModelRefused: The checkpoint cannot be served.
            StoreUnavailable: The ledger cannot be opened.
        """
        if self._pipeline is None:
            store = self._open_ledger()
            engine = build_engine(self.loaded)
            self._pipeline = Pipeline(
                engine=engine,
                decoder=_decoder(self.loaded, engine),
                cache=build_cache(self.settings),
                store=store,
                dead_letters=self.dead_letters,
                max_attempts=self.settings.retries.max_attempts,
                pepper=self.settings.cache.pepper.get_secret_value(),
            )
        return self._pipeline

    def _open_ledger(self) -> TagStore:
        from workers.stores.ledger_store import open_ledger

        store, self._dead_letters = open_ledger(self.settings.ledger.url)
        return store


def make_app(loaded: Loaded | None = None) -> WorkerApp:
    """The app of this process; settings are read from ``config/`` and the environment unless given."""
    loaded = loaded or load()
    logs.configure(loaded.settings.log.level)
    app = WorkerApp(loaded)
    app.conf.update(celery_config(loaded.settings))
    retries = loaded.settings.retries
    for name in (TAG_TICKET, TAG_COMMENT, TAG_MANY):
        app.register_task(BatchTask(name, backoff_s=retries.backoff_s, backoff_max_s=retries.backoff_max_s))
    return app


def celery_config(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for a tagging worker; the defaults that hurt are set, each for a reason in docs/adr."""
    return {
        "broker_url": settings.broker.url,
        "broker_transport_options": _transport_options(settings),
        "broker_heartbeat": settings.broker.heartbeat_s or None,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "result_backend": _result_backend(settings.results.url),
        "result_expires": settings.results.expires_s,
        "result_backend_always_retry": True,
        "result_backend_max_retries": 10,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_queues": queues(settings, TAGGING_QUEUES),
        "task_default_queue": TAGGING_QUEUES[0],
        "task_routes": {name: {"queue": queue} for name, queue in QUEUE_OF_TASK.items()},
        "task_create_missing_queues": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_send_sent_event": True,
        "worker_pool": "workers.pool:TaskPool",
        "worker_consumer": "workers.lifecycle:Consumer",
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": settings.prefetch,
        "worker_send_task_events": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": True,
    }


def queues(settings: Settings, names: Sequence[str]) -> list[Queue]:
    """The queues as both sides must declare them.

    RabbitMQ: quorum queues, whose delayed retries need a topic exchange. Redis: plain lists, direct.
    """
    if settings.uses_redis_broker:
        return [Queue(name, Exchange(EXCHANGE, type="direct"), routing_key=name) for name in names]
    exchange = Exchange(EXCHANGE, type="topic")
    return [Queue(name, exchange, routing_key=name, queue_arguments={"x-queue-type": "quorum"}) for name in names]


def build_engine(loaded: Loaded) -> Engine:
    """The engine that the settings ask for, in its own process where ``model.isolate`` says so."""
    from workers.engines.build import build_engine as build

    return build(loaded)


def build_cache(settings: Settings) -> ResultCache:
    """The worker's own memory before the shared Redis."""
    from workers.stores.tiered import build_cache as build

    return build(settings.cache)


def _decoder(loaded: Loaded, engine: Engine) -> Decoder:
    settings = loaded.settings
    return Decoder(
        book=LabelBook.load(loaded.config_dir / "labels", max_labels=settings.labels.max_per_set),
        model=engine.info.name,
        default_template=engine.info.template,
        limits=settings.limits,
        policy=settings.policy,
    )


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.uses_redis_broker:
        return {
            "visibility_timeout": settings.broker.visibility_timeout_s,
            "queue_order_strategy": "priority",
            "priority_steps": [0],
            "sep": ":",
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
    return {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10}


def _result_backend(url: str) -> str:
    if urlsplit(url).scheme in REDIS_SCHEMES:
        return f"workers.results:BatchedRedisBackend+{url}"
    return url
