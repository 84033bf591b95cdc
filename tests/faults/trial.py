"""A trial: messages that are accepted, workers that are hurt meanwhile, and the line about what became of it all.

trial = Trial(site, name="sigkill", seed=1)
trial.accept(500)
with trial.worker().running() as worker:
    ...
    trial.settle()
fault = trial.report(kills=3)
assert fault.lost == 0
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import redis

from ledger.upgrade import upgrade
from producers.publisher import Publisher
from tagging.errors import BrokerUnreachable
from tagging.names import QUEUE_OF_TASK, TAG_TICKET
from tests.broker.sites import LABELS, Broker, Site
from tests.faults.report import Fault
from tests.faults.witness import Witness
from tests.processes import Worker
from tests.servers import PostgresServer, RabbitServer, RedisServer, wait_until

SIZE = float(os.environ.get("TAGMILL_FAULT_SIZE", "1"))
"""How much larger than in ``make test`` the trials are; ``make storm`` sets it."""
SEED = int(os.environ.get("TAGMILL_FAULT_SEED", "4711"))
VISIBILITY_S = 10
SETTLE_S = 60.0

QUICK_TO_RECOVER = {
    "broker__visibility_timeout_s": VISIBILITY_S,
    "batching__drain_s": 1,
    "model__timeout_s": 4,
    "batching__max_messages": 16,
    "broker__prefetch": 48,
}


def times(n: int) -> int:
    """``n`` in ``make test``, more in ``make storm``."""
    return max(1, round(n * SIZE))


def seconds(short: float, *, in_a_storm: float) -> float:
    """How long a fault lasts: ``short`` in ``make test``, the other in ``make storm``."""
    return in_a_storm if SIZE > 1 else short


def site_on(
    folder: Path, *, queues: RedisServer | RabbitServer, stores: RedisServer, ledger: PostgresServer | None = None
) -> Site:
    """A site whose queues are on one server, and whose results and cache are on another that no fault touches.

    Its ledger is SQLite unless there is a server for it.
    """
    environ = {
        "TAGMILL_BROKER__URL": queues.url,
        "TAGMILL_RESULTS__URL": f"{stores.url.removesuffix('/0')}/1",
        "TAGMILL_CACHE__URL": "",
        "TAGMILL_LEDGER__URL": ledger.url if ledger else f"sqlite:///{folder}/ledger.db",
        "TAGMILL_MODEL__NAME": "fake:pass_s=0.1,failing=1",
    }
    name = "redis" if isinstance(queues, RedisServer) else "rabbitmq"
    return Site(broker=Broker(name, stores, None), folder=folder, environ=environ)


class Trial:
    """One run of one fault on one site."""

    def __init__(self, site: Site, *, name: str, seed: int = SEED, migrate: Callable[[str], object] = upgrade) -> None:
        self.site = site
        self.name = name
        self.seed = seed
        self.witness = Witness(site.settings.ledger.url, migrate=migrate)
        self.refs: dict[str, str] = {}
        """Of each accepted task id."""
        self.workers: list[Worker] = []
        self.rss_mb: float = 0.0
        self._newest: dict[str, int] = {}
        self._counted: set[str] = set()

    # What happens

    def accept(
        self, n: int, *, text: Callable[[int], str] = lambda i: f"text {i}", prefix: str = "F", **fields: object
    ) -> list[str]:
        """Publish so many tickets, each a document of its own and with these fields; their ids."""
        first = len(self.refs)
        refs = [f"{prefix}-{first + i}" for i in range(n)]
        ids = [f"{self.name}-{ref}" for ref in refs]
        bodies = [{"text": text(i), "labels": list(LABELS), "ref": ref, **fields} for i, ref in enumerate(refs)]
        messages = [(TAG_TICKET, body, id_) for body, id_ in zip(bodies, ids, strict=True)]
        wait_until("the broker has taken them", lambda: self._published(messages), timeout_s=SETTLE_S, every_s=0.2)
        self.accepted(zip(ids, refs, strict=True))
        return ids

    def accepted(self, pairs: Iterable[tuple[str, str]], *, revision: int = 0) -> None:
        """Count these (task id, ref) of one revision as accepted, whoever published them."""
        for id_, ref in pairs:
            self.refs[id_] = ref
            self._newest[ref] = max(revision, self._newest.get(ref, 0))

    def worker(self, *, name: str = "w1@tests", through: str | None = None, **settings: object) -> Worker:
        """A worker of ours, not started; ``through`` is the broker's URL where a proxy stands before it."""
        url = {} if through is None else {"broker__url": through}
        return self._known(self.site.worker(name=name, **{**QUICK_TO_RECOVER, **url, **settings}))

    def stock_worker(
        self,
        *,
        name: str = "stock@tests",
        through: str | None = None,
        pool: str = "solo",
        task_s: float = 0.0,
        visibility_s: float = VISIBILITY_S,
    ) -> Worker:
        """A worker of plain Celery on the same queues, not started, that runs one task at a time.

        Its pool of threads keeps a buffer; ``solo`` runs each message as it comes.
        """
        environ = {
            "TAGMILL_BROKER__URL": through or self.site.settings.broker.url,
            "STOCK_LEDGER": str(self.site.folder / "ledger.db"),
            "STOCK_TASK_S": str(task_s),
            "STOCK_VISIBILITY_S": str(visibility_s),
        }
        arguments = ("--pool", pool, "--concurrency", "1", "--loglevel", "info", "--without-mingle", "--without-gossip")
        return self._known(
            Worker(
                self.site.folder,
                environ=environ,
                control=self.site.client,
                name=name,
                arguments=arguments,
                app="tests.faults.stock",
            )
        )

    def kill(self, worker: Worker) -> None:
        """SIGKILL a worker, as the kernel does when memory runs out."""
        self.weigh(worker)
        worker.signal(signal.SIGKILL)
        worker.wait()

    def let_time_run_out(self) -> None:
        """Let what a dead worker holds on Redis come back at the next look; RabbitMQ gives it back at once."""
        if self.site.broker.name == "redis":
            with redis.Redis.from_url(self.site.settings.broker.url) as client:
                for tag in client.zrange("unacked_index", 0, -1):
                    client.zadd("unacked_index", {tag: 1.0})

    def _published(self, messages: list[tuple[str, dict[str, Any], str]]) -> bool:
        """Whether the broker has all of them; where that is not known they are published again, as a relay would."""
        publisher = Publisher(self.site.settings)
        try:
            publisher.publish_all(messages)
        except BrokerUnreachable:
            return False
        finally:
            publisher.close()
        return True

    # What became of it

    @property
    def done(self) -> set[str]:
        """The accepted ids that are answered or parked."""
        answered, dead = self.witness.answered(), self.witness.dead()
        return {id_ for id_, ref in self.refs.items() if ref in answered or id_ in dead} | self._counted

    def note_done(self, ids: Iterable[str]) -> None:
        """Count these as not lost, where no worker is there to do them."""
        self._counted.update(ids)

    def wait_for(self, n: int, *, timeout_s: float = 60.0) -> None:
        """Return once so many are done."""
        wait_until(f"{n} of {len(self.refs)} are done", lambda: len(self.done) >= n, timeout_s=timeout_s, every_s=0.05)

    def wait_for_more(self, *, timeout_s: float = 60.0) -> float:
        """Return once one more is done, or all are; the seconds that it took."""
        began, before = time.monotonic(), len(self.done)
        self.wait_for(min(before + 1, len(self.refs)), timeout_s=timeout_s)
        return time.monotonic() - began

    def wait_until_fetched(self) -> None:
        """Return once no message waits in the queues."""
        wait_until("the queues are empty", lambda: not self.site.queued(), timeout_s=SETTLE_S, every_s=0.05)

    def answers_a_new_one(self, *, timeout_s: float = 60.0) -> float:
        """Accept one more and return once it is done; the seconds that it took."""
        began = time.monotonic()
        (id_,) = self.accept(1)
        wait_until(f"{id_} is done", lambda: id_ in self.done, timeout_s=timeout_s)
        return time.monotonic() - began

    def settle(self, *, timeout_s: float = SETTLE_S) -> None:
        """Return once every message is done, or the broker has none left and nothing more comes."""
        try:
            wait_until("all is done or gone", self._settled, timeout_s=timeout_s, every_s=0.2)
        except TimeoutError as e:
            raise TimeoutError(f"{e}; {len(self.done)} of {len(self.refs)} done, {self.left()} left") from None
        for worker in self.workers:
            self.weigh(worker)

    def wait_until_none_is_left(self) -> None:
        """Return once the broker has no message any more, whether repeated or not."""
        wait_until("nothing is left", lambda: not any(self.left().values()), timeout_s=SETTLE_S, every_s=0.2)

    def report(
        self,
        *,
        kills: int = 0,
        recovery_s: float | None = None,
        accepting_s: Sequence[float] = (),
        name: str | None = None,
    ) -> Fault:
        """The line about this trial, printed; ``accepting_s`` is how long each acceptance took."""
        effects, standing = self.witness.effects(), self.witness.standing()
        ran = self._runs()
        fault = Fault(
            name=name or self.name,
            broker=self.site.broker.name,
            seed=self.seed,
            accepted=len(self.refs),
            lost=len(self.refs) - len(self.done),
            dup_runs=max(0, ran - len(self.done)) if ran else None,
            dup_effects=sum(effects.values()) - len(effects),
            wrong_final=sum(standing[ref] != self._newest.get(ref, 0) for ref in standing),
            dead=len(self.witness.dead()),
            recovery_s=recovery_s,
            p95_ms=1000 * quantiles(accepting_s, n=20)[-1] if accepting_s else None,
            rss_mb=self.rss_mb or None,
            kills=kills,
        )
        fault.publish()
        return fault

    def weigh(self, worker: Worker) -> None:
        """Note the most memory that the worker has had so far."""
        try:
            status = Path(f"/proc/{worker.pid}/status").read_text()
        except (AssertionError, OSError):
            return
        peaks = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        self.rss_mb = max([self.rss_mb, *(int(line.split()[1]) / 1024 for line in peaks)])

    def _settled(self) -> bool:
        if len(self.done) == len(self.refs):
            return True
        return self.site.broker.name == "redis" and not any(self.left().values())

    def left(self) -> dict[str, int]:
        """What Redis still has: waiting, held by somebody, and due to come back."""
        if self.site.broker.name != "redis":
            return {"waiting": self.site.queued()}
        with redis.Redis.from_url(self.site.settings.broker.url) as client, client.pipeline() as at_once:
            # At one moment: a message that is on its way from one place to another must not be in neither.
            for queue in QUEUE_OF_TASK.values():
                at_once.llen(queue)
            *waiting, held, due = at_once.hlen("unacked").zcard("unacked_index").execute()
        return {"waiting": sum(waiting), "held": held, "due": due}

    def _runs(self) -> int:
        """How many places in batches were taken, over all of this trial's workers."""
        known = {worker.log: worker for worker in self.workers}
        return sum(int(event["n"]) for worker in known.values() for event in worker.events("batch.tagged"))

    def _known(self, worker: Worker) -> Worker:
        self.workers.append(worker)
        return worker
