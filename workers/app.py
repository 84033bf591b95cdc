"""The worker's Celery app: ``celery -A workers.app worker``, or ``tagmill worker``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from celery import Celery, signals
from kombu import Exchange, Queue

import workers.remote  # noqa: F401  # Celery knows its commands once it is imported
from tagging import logs
from tagging.labels import LabelBook
from tagging.messages import Decoder
from tagging.names import EXCHANGE, QUEUE_DEAD, TAG_COMMENT, TAG_MANY, TAG_TICKET, TAGGING_QUEUES
from tagging.settings import Loaded, Settings, load
from tagging.urls import REDIS_SCHEMES
from tagging.wiring import dead_queue_arguments, exchange_type, queue_arguments
from workers.consuming import consumer_settings, open_meter, run_worker, use_our_transports
from workers.exits import Exit
from workers.lifecycle import end_outside_signal_handlers
from workers.memory import MemoryCeiling
from workers.pipeline import Pipeline
from workers.pool import BatchTask, TaskPool
from workers.ports import Crashes, DeadLetters, Engine, Meter, PairCache, TagStore
from workers.recall import Recall
from workers.stores.local_pairs import LocalPairCache
from workers.watchdog import LoopWatchdog, Pulse

log = structlog.get_logger()

POOL_HINT: Final = (
    "the pool is fixed, since gathering messages into batches is its work, and its concurrency is 1: children that "
    "prefork forks could not use CUDA, which does not survive a fork, and each would load the model. Leave the option "
    "out; `tagmill worker --devices all` runs a process for each GPU, `--workers-per-device N` several."
)


class WorkerApp(Celery):  # type: ignore[misc]  # celery ships no types
    """A Celery app that carries the settings and can build the pipeline its pool needs."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__("tagmill", set_as_current=False, amqp="workers.routing:AMQP", events="workers.events:Events")
        self.loaded = loaded
        self.settings: Settings = loaded.settings
        self._pipeline: Pipeline | None = None
        self._dead_letters: DeadLetters | None = None
        self._crashes: Crashes | None = None
        self._meter: Meter | None = None
        cache = self.settings.cache
        self._memory = LocalPairCache(max_entries=cache.local_entries, ttl_s=cache.ttl_s)
        self.pulse = Pulse()
        """Whether the hub thread works."""
        self.steps["worker"].update((LoopWatchdog, MemoryCeiling))

    @property
    def meter(self) -> Meter:
        """Where figures go: to whoever scrapes ``metrics.port``, which is open from the first use on.

        Raises:
            SettingsError: The port cannot be opened.
        """
        if self._meter is None:
            self._meter = open_meter(self.settings)
        return self._meter

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
            BrokerRefused: The broker would lose messages.
            BrokerUnreachable: The broker does not answer.
            ModelRefused: The checkpoint cannot be served.
            StoreUnavailable: The ledger cannot be opened.
            SettingsError: The port for metrics cannot be opened.
        """
        if self._pipeline is None:
            from workers.refusals import refuse_unsafe_broker

            refuse_unsafe_broker(self.settings, queues(self.settings))
            store = self._open_ledger()
            assert self._crashes is not None
            engine = build_engine(self.loaded)
            self._pipeline = Pipeline(
                engine=engine,
                decoder=_decoder(self.loaded, engine),
                recall=build_recall(self.settings, local=self._memory, meter=self.meter),
                store=store,
                dead_letters=self.dead_letters,
                crashes=self._crashes,
                max_attempts=self.settings.retries.max_attempts,
                meter=self.meter,
                pepper=self.settings.cache.pepper.get_secret_value(),
                turn_s=self.settings.batching.bulk_turn_ms / 1000,
            )
        return self._pipeline

    def forget_texts(self, digests: Sequence[str]) -> int:
        """Remember nothing of the texts of these digests in this worker's own memory; how many were known."""
        return self._memory.forget_texts(digests)

    def serve(self, options: Sequence[str]) -> int:
        """Run `celery worker` with these options until it has ended; how, as one of ``workers.exits``."""
        return run_worker(self, options)

    def _open_ledger(self) -> TagStore:
        from ledger.crashes import CrashLedger
        from ledger.database import open_database
        from ledger.dead import DeadLedger
        from ledger.tags import TagLedger
        from ledger.upgrade import upgrade
        from workers.stores.ledger_store import LedgerDeadLetters, LedgerTagStore

        if newer := upgrade(self.settings.ledger.url):
            log.warning("ledger.newer", schema=newer)
        database = open_database(self.settings.ledger.url)
        self._dead_letters = LedgerDeadLetters(DeadLedger(database), meter=self.meter)
        self._crashes = CrashLedger(database)
        return LedgerTagStore(TagLedger(database))


def make_app(loaded: Loaded | None = None) -> WorkerApp:
    """The app of this process; settings are read from ``config/`` and the environment unless given."""
    loaded = loaded or load()
    logs.configure(loaded.settings.log.level)
    app = WorkerApp(loaded)
    app.conf.update(celery_config(loaded.settings))
    signals.celeryd_init.connect(_refuse_other_pools, weak=False)
    signals.celeryd_init.connect(_know_our_transports, weak=False)
    signals.worker_ready.connect(_say_consuming, weak=False)
    signals.worker_ready.connect(end_outside_signal_handlers, weak=False)
    retries = loaded.settings.retries
    for name in (TAG_TICKET, TAG_COMMENT, TAG_MANY):
        app.register_task(BatchTask(name, backoff_s=retries.backoff_s, backoff_max_s=retries.backoff_max_s))
    return app


def celery_config(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for a tagging worker; where its defaults would hurt, docs/adr says why."""
    return {
        **consumer_settings(settings),
        "result_backend": _result_backend(settings.results.url),
        "result_backend_always_retry": True,
        "result_backend_max_retries": 10,
        "task_queues": queues(settings),
        "task_default_queue": TAGGING_QUEUES[0],
        "worker_pool": "workers.pool:TaskPool",
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": settings.prefetch,
    }


def queues(settings: Settings) -> list[Queue]:
    """The queues that a tagging worker consumes, live ones first; last what RabbitMQ gives up, which is parked."""
    exchange = Exchange(EXCHANGE, type=exchange_type(settings))
    arguments = queue_arguments(settings)
    tagging = [Queue(name, exchange, routing_key=name, queue_arguments=arguments) for name in TAGGING_QUEUES]
    if settings.uses_redis_broker:
        return tagging
    given_up = Exchange(QUEUE_DEAD, type="fanout")
    return [*tagging, Queue(QUEUE_DEAD, given_up, routing_key=QUEUE_DEAD, queue_arguments=dead_queue_arguments())]


def build_engine(loaded: Loaded) -> Engine:
    """The engine that the settings ask for, in its own process where ``model.isolate`` says so.

    Raises:
        ModelRefused: The checkpoint cannot be served.
    """
    from workers.engines.build import build_engine as build
    from workers.engines.options import options_of

    model = loaded.settings.model
    return build(
        model.name,
        device=model.device,
        precision=None if model.precision == "auto" else model.precision,
        max_tokens=model.max_tokens_per_pass or None,
        max_length=model.max_length or None,
        threads=model.threads or None,
        backend=model.backend,
        options=options_of(model),
        exact=not model.protect_special_tokens,
        cache_dir=Path(model.cache_dir).expanduser(),
        catalogue=loaded.config_dir / "models.toml",
        in_process=not model.isolate,
        check=model.self_test,
        timeout_s=model.timeout_s,
        log_level=loaded.settings.log.level,
    )


def build_recall(settings: Settings, *, local: PairCache, meter: Meter) -> Recall:
    """The worker's own memory before the shared Redis."""
    from workers.stores.redis_pairs import RedisPairCache

    cache = settings.cache
    if settings.cache_can_be_guessed:
        log.warning("cache.unpeppered", remedy="set cache.pepper, the same for every worker")
    return Recall(
        local=local,
        shared=RedisPairCache.connect(cache.url, ttl_s=cache.ttl_s, timeout_ms=cache.timeout_ms, meter=meter)
        if cache.url
        else None,
        wait_ms=cache.single_flight_wait_ms,
        meter=meter,
    )


def _decoder(loaded: Loaded, engine: Engine) -> Decoder:
    settings = loaded.settings
    return Decoder(
        book=LabelBook.load(loaded.config_dir / "labels", max_labels=settings.labels.max_per_set),
        model=engine.info.name,
        default_template=engine.info.template,
        limits=settings.limits,
        policy=settings.policy,
    )


def _result_backend(url: str) -> str:
    if urlsplit(url).scheme in REDIS_SCHEMES:
        return f"workers.results:BatchedRedisBackend+{url}"
    return url


def _refuse_other_pools(instance: Any, options: Mapping[str, Any], **_: Any) -> None:
    """End a `celery worker` of ours that would bypass our pool, before it connects or loads anything."""
    if not isinstance(instance.app, WorkerApp):
        return  # somebody else's, in whose process this module happens to be imported
    pool, concurrency = options.get("pool"), options.get("concurrency") or 1
    if pool is TaskPool and concurrency == 1 and not options.get("autoscale"):
        return
    named = getattr(pool, "__module__", pool)
    log.error("worker.refused", pool=named, concurrency=concurrency, autoscale=options.get("autoscale"), hint=POOL_HINT)
    raise SystemExit(Exit.WRONG_USAGE)


def _know_our_transports(instance: Any, **_: Any) -> None:
    if isinstance(instance.app, WorkerApp):  # as above: another app's worker keeps its own
        use_our_transports()


def _say_consuming(sender: Any, **_: Any) -> None:
    log.info(
        "worker.consuming", node=sender.hostname, queues=",".join(sorted(q.name for q in sender.task_consumer.queues))
    )


app = make_app()
