"""A text that breaks the engine, or ends its worker, is parked alone, after few runs.

Rows A20, A22, A24.
"""

import pytest

from tests.broker.sites import Site
from tests.faults.trial import Trial
from tests.servers import wait_until

SETTINGS = {"model__name": "fake:failing=1", "cache__url": ""}
ON_REDIS = pytest.mark.parametrize("broker", ["redis"], indirect=True, scope="session")
"""For what happens between a worker and its engine: no broker takes part in it."""
PLACE = 17
RUNS_AT_MOST = 4


@ON_REDIS
@pytest.mark.parametrize(
    ("order", "deaths", "reason"),
    [("!exit", 4, "EngineDied"), ("!nan", 0, "NotFinite"), ("!oom", 0, "DeviceOutOfMemory")],
    ids=["ends the engine", "answers NaN", "fits into no pass"],
)
def test_a_text_that_breaks_the_engine_is_parked_alone(own_site: Site, order: str, deaths: int, reason: str) -> None:
    trial = Trial(own_site, name=f"poison_{order[1:]}")
    with trial.worker(**SETTINGS).running() as worker:
        ids = trial.accept(40, text=lambda i: f"{order} please" if i == PLACE else f"text {i}")
        trial.settle()
        assert len(worker.events("engine.restarted")) <= deaths
    fault = trial.report(kills=len(worker.events("engine.restarted")))
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 1, 0)
    assert trial.witness.dead()[ids[PLACE]].startswith(reason)


def test_a_text_that_ends_the_whole_worker_is_parked_alone(own_site: Site) -> None:
    trial = Trial(own_site, name="poison_kill")
    ids = trial.accept(40, text=lambda i: "!kill please" if i == PLACE else f"text {i}")
    kills = 0
    # One more than it may have: a text that is not parked is then seen by its count, not by a test that never ends.
    while kills <= RUNS_AT_MOST and _ends_a_worker(trial):
        kills += 1
    fault = trial.report(kills=kills)
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 1, 0)
    assert trial.witness.dead()[ids[PLACE]].startswith("WorkerCrashed")
    assert kills <= RUNS_AT_MOST


def _ends_a_worker(trial: Trial) -> bool:
    """Whether a worker that is started now dies before all is done."""
    trial.let_time_run_out()
    worker = trial.worker(**SETTINGS)
    worker.launch()
    try:
        wait_until("all is done or the worker is dead", lambda: _all_done(trial) or worker.ended, timeout_s=60)
        return not _all_done(trial)
    finally:
        worker.kill()


def _all_done(trial: Trial) -> bool:
    return len(trial.done) == len(trial.refs)
