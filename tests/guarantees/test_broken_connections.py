"""A fetch that is cut off by a kill, a reset or a lost reply loses nothing, where plain Celery under the same fault
does.

Rows A1, A3, A4, with A48. Plain Celery loses exactly what was on its way from the server to the worker, which is what
each control run shows. Other faults: ``tests/faults``.
"""

import random
from collections.abc import Callable

import pytest

from tests.broker.sites import Site
from tests.faults.proxy import Proxy, carries_a_message
from tests.faults.trial import SEED, Trial, times
from tests.processes import Worker

Starts = Callable[[str], Worker]
"""Makes a worker that reaches the broker through this URL."""


@pytest.fixture
def site(breakable_site: Site) -> Site:
    """Its queues are on a Redis that the test may break."""
    return breakable_site


def test_a_worker_killed_with_an_answer_under_way_loses_nothing(site: Site, proxy: Proxy) -> None:
    trial = Trial(site, name="killed_in_fetch")
    kill_in_fetch(trial, proxy, lambda url: trial.worker(through=url), kills=times(2))
    assert trial.report(kills=times(2)).lost == 0


def test_control_plain_celery_killed_with_an_answer_under_way_loses_messages(site: Site, proxy: Proxy) -> None:
    trial = Trial(site, name="killed_in_fetch_stock")
    kill_in_fetch(trial, proxy, lambda url: trial.stock_worker(through=url), kills=2)
    must_have_lost(trial, kills=2)


def test_connections_that_are_reset_lose_nothing(site: Site, proxy: Proxy) -> None:
    trial = Trial(site, name="connections_reset")
    slowest_s = reset_in_fetch(trial, proxy, trial.worker(through=proxy.url(site.settings.broker.url)), n=times(8))
    fault = trial.report(recovery_s=slowest_s)
    assert (fault.lost, fault.dup_effects) == (0, 0)


def test_control_plain_celery_loses_what_a_reset_met(site: Site, proxy: Proxy) -> None:
    trial = Trial(site, name="connections_reset_stock")
    reset_in_fetch(trial, proxy, trial.stock_worker(through=proxy.url(site.settings.broker.url)), n=4)
    must_have_lost(trial)


def test_replies_that_never_arrive_lose_nothing(site: Site, proxy: Proxy) -> None:
    trial = Trial(site, name="replies_cut")
    cut_replies(trial, proxy, trial.worker(through=proxy.url(site.settings.broker.url)), accepted=times(400))
    fault = trial.report()
    assert (fault.lost, fault.dup_effects) == (0, 0)


def test_control_plain_celery_loses_messages_whose_replies_never_arrive(site: Site, proxy: Proxy) -> None:
    trial = Trial(site, name="replies_cut_stock")
    cut_replies(trial, proxy, trial.stock_worker(through=proxy.url(site.settings.broker.url)), accepted=300)
    must_have_lost(trial)


def kill_in_fetch(trial: Trial, proxy: Proxy, starts: Starts, *, kills: int) -> None:
    """Kill worker after worker when the server has answered its fetch and the answer has not arrived."""
    trial.accept(40)
    for _ in range(kills):
        proxy.hold_reply(carries_a_message)
        hits = proxy.hits
        worker = starts(proxy.url(trial.site.settings.broker.url))
        with worker.running():
            proxy.wait_for_hits(hits + 1)
            trial.kill(worker)
    with starts(trial.site.settings.broker.url).running():
        trial.settle()


def reset_in_fetch(trial: Trial, proxy: Proxy, worker: Worker, *, n: int) -> float:
    """Reset all connections ``n`` times, each with the answer to a fetch under way; seconds of the slowest recovery."""
    slowest_s = 0.0
    with worker.running():
        for _ in range(n):
            hits = proxy.hits
            proxy.hold_reply(carries_a_message)
            trial.accept(20)
            proxy.wait_for_hits(hits + 1)
            proxy.reset_all()
            slowest_s = max(slowest_s, trial.answers_a_new_one())
        trial.settle()
    return slowest_s


def cut_replies(trial: Trial, proxy: Proxy, worker: Worker, *, accepted: int) -> None:
    """Cut one fetch in ten, and one in fifty of all other replies."""
    rng = random.Random(SEED)
    with worker.running():
        proxy.cut_replies(lambda reply: rng.random() < (0.1 if carries_a_message(reply) else 0.02))
        for _ in range(accepted // 20):
            trial.accept(20)
            trial.wait_until_fetched()
        proxy.pass_replies()
        trial.settle()


def must_have_lost(trial: Trial, *, kills: int = 0) -> None:
    """The control saw a loss, or the test that it belongs to is void."""
    if trial.report(kills=kills).lost == 0:
        pytest.fail(f"void: {trial.name} lost nothing, so its test could not have seen a loss")
