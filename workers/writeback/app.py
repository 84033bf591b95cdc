"""The write-back worker's Celery app: ``celery -A workers.writeback.app worker``, or ``tagmill writeback run``."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from celery import Celery, Task, signals
from celery.exceptions import Reject
from kombu import Exchange, Queue

from ledger.database import Database, open_database
from ledger.dead import DeadLedger
from ledger.upgrade import upgrade
from ledger.writebacks import WriteBackLedger
from tagging import logs
from tagging.errors import StoreUnavailable
from tagging.messages import body_of
from tagging.names import EXCHANGE, QUEUE_WRITEBACK, WRITE_BACK
from tagging.settings import Loaded, Settings, load
from tagging.wiring import exchange_type, queue_arguments
from workers.consuming import consumer_settings, open_meter, run_worker, use_our_transports
from workers.lifecycle import end_outside_signal_handlers
from workers.ports import DeadLetters, Meter
from workers.stores.ledger_store import LedgerDeadLetters
from workers.watchdog import Pulse
from workers.writeback.connections import Connect, connect_accounts
from workers.writeback.writer import Outcome, Writer

log = structlog.get_logger()

_STORE_RETRY_S: Final = 1.0


class WriteBackApp(Celery):  # type: ignore[misc]  # celery ships no types
    """A Celery app with one task; the ledger is opened by the first who needs it."""

    def __init__(self, loaded: Loaded, *, connect: Connect | None) -> None:
        super().__init__("tagmill-writeback", set_as_current=False, events="workers.events:Events")
        self.loaded = loaded
        self.settings: Settings = loaded.settings
        self.pulse = Pulse()
        self.stopping = threading.Event()
        self._connect = connect
        self._lock = threading.Lock()
        self._writer: Writer | None = None
        self._database: Database | None = None
        self._meter: Meter | None = None

    @property
    def dead_letters(self) -> DeadLetters:
        """Where what is no order waits."""
        return LedgerDeadLetters(DeadLedger(self._opened), meter=self.meter)

    @property
    def meter(self) -> Meter:
        """Where figures go.

        Raises:
            SettingsError: ``metrics.port`` cannot be opened.
        """
        if self._meter is None:
            self._meter = open_meter(self.settings)
        return self._meter

    @property
    def writer(self) -> Writer:
        """What carries orders out, with the accounts connected.

        Raises:
            SettingsError: The accounts are wrong.
            StoreUnavailable: The ledger cannot be opened.
        """
        with self._lock:
            if self._writer is None:
                self._writer = Writer(
                    ledger=WriteBackLedger(self._opened),
                    dead=DeadLedger(self._opened),
                    connections=connect_accounts(self.loaded, connect=self._connect),
                    settings=self.settings.writeback,
                    meter=self.meter,
                )
            return self._writer

    def serve(self, options: Sequence[str]) -> int:
        """Run `celery worker` with these options until it has ended; how, as one of ``workers.exits``."""
        return run_worker(self, options)

    @property
    def _opened(self) -> Database:
        if self._database is None:
            if newer := upgrade(self.settings.ledger.url):
                log.warning("ledger.newer", schema=newer)
            self._database = open_database(self.settings.ledger.url)
        return self._database


class WriteBackTask(Task):  # type: ignore[misc]  # celery ships no types
    """Carries one order out; finished in the ledger before it is acknowledged."""

    name = WRITE_BACK
    Strategy = "workers.requests:strategy"
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True

    def run(self, *args: Any, **kwargs: Any) -> Outcome:
        """What became of it; waits for a ledger that is away.

        Raises:
            Reject: The worker stops before the ledger is back: the message goes back to the queue.
        """
        app: WriteBackApp = self.app
        while True:
            try:
                return app.writer.write(self.request.id, body_of(args, kwargs))
            except StoreUnavailable as e:
                log.error("ledger.unavailable", cause=str(e), retry_s=_STORE_RETRY_S)
                if app.stopping.wait(_STORE_RETRY_S):
                    raise Reject(requeue=True) from e


def make_app(loaded: Loaded | None = None, *, connect: Connect | None = None) -> WriteBackApp:
    """The app of this process; settings are read from ``config/`` and the environment unless given."""
    loaded = loaded or load()
    logs.configure(loaded.settings.log.level)
    app = WriteBackApp(loaded, connect=connect)
    app.conf.update(celery_config(loaded.settings))
    app.register_task(WriteBackTask())
    signals.celeryd_init.connect(_know_our_transports, weak=False)
    signals.worker_ready.connect(end_outside_signal_handlers, weak=False)
    signals.worker_shutting_down.connect(lambda **_: app.stopping.set(), weak=False)
    return app


def _know_our_transports(instance: Any, **_: Any) -> None:
    if isinstance(instance.app, WriteBackApp):  # not another app's worker, in whose process we happen to be imported
        use_our_transports()


def celery_config(settings: Settings) -> Mapping[str, Any]:
    """Celery's configuration for a write-back worker."""
    return {
        # Apart from the texts that tagging workers hold: its user in Redis has no rights on those (docs/security.md).
        **consumer_settings(settings, held_in="unacked.writeback"),
        "result_backend": "disabled://",
        "task_queues": [queue(settings)],
        "task_default_queue": QUEUE_WRITEBACK,
        "worker_pool": "workers.writeback.pool:TaskPool",
        "worker_concurrency": settings.writeback.threads,
        "worker_prefetch_multiplier": 2,
    }


def queue(settings: Settings) -> Queue:
    """The only queue that a write-back worker consumes, declared as the relay declares it."""
    exchange = Exchange(EXCHANGE, type=exchange_type(settings))
    return Queue(QUEUE_WRITEBACK, exchange, routing_key=QUEUE_WRITEBACK, queue_arguments=queue_arguments(settings))


app = make_app()
