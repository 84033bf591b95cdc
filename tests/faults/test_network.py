"""A network that drops every packet for a while, and says so to nobody, loses nothing: row A13."""

import os
import time
from contextlib import closing
from pathlib import Path

from tests.broker.sites import Broker, Site
from tests.faults.netns import OURS, linked
from tests.faults.trial import Trial
from tests.servers import RedisServer, server_folder

DROPPED_S = float(os.environ.get("TAGMILL_DROP_S", "10"))
"""40 in the long form."""


def test_a_worker_goes_on_after_its_packets_were_dropped(folder: Path) -> None:
    with linked() as link, server_folder("open") as at:
        server = RedisServer(at, options=["--bind", "0.0.0.0", "--protected-mode", "no"]).start()
        try:
            with closing(_site(folder, server)) as site:
                trial = Trial(site, name="packets_dropped")
                worker = trial.worker(through=f"redis://{OURS}:{server.port}/0")
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
        finally:
            server.discard()
    assert (fault.lost, fault.dup_effects) == (0, 0)
    assert recovery_s <= 15


def _site(folder: Path, server: RedisServer) -> Site:
    """A site all of whose stores are behind the link, but for the ledger's file."""
    environ = {
        "TAGMILL_BROKER__URL": server.url,
        "TAGMILL_RESULTS__URL": f"redis://{OURS}:{server.port}/1",
        "TAGMILL_CACHE__URL": "",
        "TAGMILL_LEDGER__URL": f"sqlite:///{folder}/ledger.db",
        "TAGMILL_MODEL__NAME": "fake:pass_s=0.1,failing=1",
    }
    return Site(broker=Broker("redis", server, None), folder=folder, environ=environ)
