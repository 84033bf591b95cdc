"""A network that drops every packet for a while, and says so to nobody, loses nothing: row A13."""

import time
from contextlib import closing
from pathlib import Path

from tests.broker.sites import Broker, Site
from tests.faults.netns import OURS, Link, linked
from tests.faults.proxy import Proxy
from tests.faults.trial import Trial, seconds
from tests.servers import RabbitServer, RedisServer, server_folder

DROPPED_S = seconds(10, in_a_storm=40)


def test_a_worker_on_redis_goes_on_after_its_packets_were_dropped(folder: Path) -> None:
    with linked() as link, server_folder("open") as at:
        server = RedisServer(at, options=["--bind", "0.0.0.0", "--protected-mode", "no"]).start()
        try:
            environ = site_environ(folder, queues=server.url, results=f"redis://{OURS}:{server.port}/1")
            with closing(Site(broker=Broker("redis", server, None), folder=folder, environ=environ)) as site:
                go_on_after_drop(site, link, through=f"redis://{OURS}:{server.port}/0")
        finally:
            server.discard()


def test_a_worker_on_rabbitmq_goes_on_after_its_packets_were_dropped(
    folder: Path, rabbit: RabbitServer, stores: RedisServer
) -> None:
    # The servers listen on loopback only; the packets are lost between the worker and what stands before them.
    with linked() as link, Proxy(rabbit.port, at=OURS) as queues, Proxy(stores.port, at=OURS) as results:
        environ = site_environ(folder, queues=rabbit.url, results=results.url(stores.url))
        with closing(Site(broker=Broker("rabbitmq", stores, rabbit), folder=folder, environ=environ)) as site:
            go_on_after_drop(site, link, through=queues.url(rabbit.url))


def go_on_after_drop(site: Site, link: Link, *, through: str) -> None:
    """Drop all packets of a worker behind the link for a while, and see it answer again."""
    trial = Trial(site, name="packets_dropped")
    worker = trial.worker(through=through)
    worker.command = link.enter(worker.command)
    with worker.running():
        trial.accept(20)
        trial.settle()
        link.drop()
        trial.accept(20)
        time.sleep(DROPPED_S)  # the fault itself
        assert len(trial.done) == 20, "nothing gets through"
        link.heal()
        recovery_s = trial.wait_for_more()
        trial.settle()
        assert worker.stop() == 0, "the same process went on"
    fault = trial.report(recovery_s=recovery_s)
    assert (fault.lost, fault.dup_effects) == (0, 0)
    assert recovery_s <= 15


def site_environ(folder: Path, *, queues: str, results: str) -> dict[str, str]:
    """The settings of a site all of whose servers are behind the link, but for the ledger's file."""
    return {
        "TAGMILL_BROKER__URL": queues,
        "TAGMILL_RESULTS__URL": results,
        "TAGMILL_CACHE__URL": "",
        "TAGMILL_LEDGER__URL": f"sqlite:///{folder}/ledger.db",
        "TAGMILL_MODEL__NAME": "fake:pass_s=0.1,failing=1",
    }
