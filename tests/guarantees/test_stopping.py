"""A stop finishes what was fetched and leaves the rest in its queue, and each message is answered once."""

import signal

from tests.broker.sites import ANSWER_S, Site
from tests.servers import wait_until

SLOW = {"model__name": "fake:pass_s=0.3", "batching__max_messages": 16}


def test_sigterm_finishes_what_was_fetched_and_leaves_the_rest(own_site: Site) -> None:
    ids = own_site.send_many(200)
    with own_site.worker(**SLOW).running() as first:
        wait_until("some are answered", lambda: own_site.done(ids) >= 16, timeout_s=ANSWER_S)
        assert first.stop() == 0
        done = own_site.done(ids)
        assert not first.events("buffer.returned"), "what was fetched is finished"
        assert done + own_site.queued() == 200
    with own_site.worker(name="w2@tests").running() as second:
        wait_until("the next worker answers the rest", lambda: own_site.done(ids) == 200, timeout_s=ANSWER_S)
        second.stop()
    assert first.answered + second.answered == dict.fromkeys(ids, 1)


def test_sigquit_hands_back_what_was_fetched(own_site: Site) -> None:
    ids = own_site.send_many(100)
    with own_site.worker(**SLOW).running() as first:
        wait_until("some are answered", lambda: own_site.done(ids) >= 16, timeout_s=ANSWER_S)
        first.signal(signal.SIGQUIT)
        assert first.wait(15) == 1
        assert own_site.done(ids) < 100
        assert own_site.done(ids) + own_site.queued() >= 100
    with own_site.worker(name="w2@tests").running():
        wait_until("the next worker answers the rest", lambda: own_site.done(ids) == 100, timeout_s=ANSWER_S)
