"""Faults of all kinds, drawn from one seed, while messages come in: row A47; ``make storm`` is the long form."""

import os
import random
import time
from collections.abc import Callable

from tests.broker.sites import Site
from tests.faults.proxy import Proxy, carries_a_message
from tests.faults.trial import Trial
from tests.processes import Worker
from tests.servers import RabbitServer, RedisServer, wait_until

STORM_S = float(os.environ.get("TAGMILL_STORM_S", "20"))
MESSAGES_A_FAULT = 20
MOST_OPEN = 500
"""No more is accepted while so many have no answer: that a backlog takes long is no fault of the queue."""
LONGEST_REST_S = 1.0
"""Between two strikes: shorter than workers take to come back, so that faults fall into the mending of others."""


def test_a_storm_on_redis_loses_nothing(site: Site, proxy: Proxy, queues: RedisServer) -> None:
    storm(Storm(Trial(site, name="storm"), proxy, queues))


def test_a_storm_on_rabbitmq_loses_nothing(rabbit_site: Site, rabbit_proxy: Proxy, rabbit: RabbitServer) -> None:
    storm(Storm(Trial(rabbit_site, name="storm"), rabbit_proxy, rabbit))


class Storm:
    """Two workers behind a proxy, and what can happen to them."""

    def __init__(self, trial: Trial, proxy: Proxy, server: RedisServer | RabbitServer) -> None:
        self.trial = trial
        self.kills = 0
        self._proxy = proxy
        self._server = server
        self._random = random.Random(trial.seed)
        url = proxy.url(trial.site.settings.broker.url)
        self._workers = [trial.worker(name=f"w{i}@tests", through=url) for i in range(2)]

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def end(self) -> None:
        for worker in self._workers:
            worker.kill()

    def tell(self) -> None:
        """Print how far it is, and what the workers said last."""
        print(f"--- {len(self.trial.done)} of {len(self.trial.refs)} done, left {self.trial.left()}")
        for worker in self._workers:
            print(f"--- {worker.name}\n{worker.last_lines()}")

    def strike(self) -> None:
        """Let one thing happen."""
        self._random.choice((self._kill_one, self._reset, self._cut, self._silence, self._slow))()

    def rest(self) -> None:
        """Let it take effect, or not quite."""
        time.sleep(self._random.uniform(0, LONGEST_REST_S))  # the weather, not a wait for anything
        self._supervise()

    def calm(self) -> None:
        """Let everything that was done to the network end."""
        self._proxy.pass_replies()
        self._proxy.delay(0)

    def answers_again(self) -> float:
        """Accept one more and return once it is done; the seconds that it took."""
        began = time.monotonic()
        (id_,) = self.trial.accept(1)
        wait_until(f"{id_} is done", lambda: self._is_done(id_), timeout_s=60, every_s=0.2)
        return time.monotonic() - began

    def _is_done(self, id_: str) -> bool:
        self._supervise()
        return id_ in self.trial.done

    def _supervise(self) -> None:
        """Start again who has ended: a worker that cannot reach its broker as it starts leaves it to a supervisor."""
        for worker in self._workers:
            if worker.ended:
                worker.launch()

    def _kill_one(self) -> None:
        worker: Worker = self._random.choice(self._workers)
        self.trial.kill(worker)
        self.kills += 1
        worker.launch()

    def _reset(self) -> None:
        self._proxy.reset_all()

    def _cut(self) -> None:
        chooses: Callable[[bytes], bool] = carries_a_message if isinstance(self._server, RedisServer) else bool
        self._proxy.cut_replies(chooses, most=3)

    def _silence(self) -> None:
        self._server.pause()
        try:
            time.sleep(self._random.uniform(0.1, 2.0))  # the fault itself: a server that does not answer for so long
        finally:
            self._server.resume()

    def _slow(self) -> None:
        self._proxy.delay(self._random.choice((0.0, 0.05)))


def storm(storm: Storm) -> None:
    """Let it rage for its time, then see what is left."""
    trial = storm.trial
    try:
        storm.start()
        until = time.monotonic() + STORM_S
        while time.monotonic() < until:
            if len(trial.refs) - len(trial.done) < MOST_OPEN:
                trial.accept(MESSAGES_A_FAULT)
            storm.strike()
            storm.rest()
        storm.calm()
        recovery_s = storm.answers_again()
        trial.settle(timeout_s=120)
        fault = trial.report(kills=storm.kills, recovery_s=recovery_s)
    except BaseException:
        storm.tell()
        raise
    finally:
        storm.end()
    assert (fault.lost, fault.dup_effects, fault.wrong_final, fault.dead) == (0, 0, 0, 0)
