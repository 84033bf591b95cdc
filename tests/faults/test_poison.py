"""A text that breaks the engine dies alone, after few runs, and its neighbours are answered: rows A20, A22, A24."""

import pytest

from tests.broker.sites import Site
from tests.faults.trial import Trial

QUICK_RETRIES = {"retries__backoff_s": 0.1, "retries__backoff_max_s": 0.3, "model__name": "fake:failing=1"}
PLACE = 17


@pytest.mark.parametrize(
    ("order", "deaths", "reason"),
    [("!exit", 4, "EngineDied"), ("!nan", 0, "NotFinite"), ("!oom", 0, "DeviceOutOfMemory")],
    ids=["ends the engine", "answers NaN", "fits into no pass"],
)
def test_a_text_that_breaks_the_engine_is_parked_alone(site: Site, order: str, deaths: int, reason: str) -> None:
    trial = Trial(site, name=f"poison_{order[1:]}")
    with trial.worker(**QUICK_RETRIES).running() as worker:
        ids = trial.accept(40, text=lambda i: f"{order} please" if i == PLACE else f"text {i}")
        trial.settle()
        assert len(worker.events("engine.restarted")) <= deaths
    fault = trial.report(kills=len(worker.events("engine.restarted")))
    assert (fault.lost, fault.dead, fault.dup_effects) == (0, 1, 0)
    assert trial.witness.dead()[ids[PLACE]].startswith(reason)
