"""A worker that only parks stops before it has buried the queue.

What it held goes back, and nothing is lost.
"""

from tests.broker.sites import Site
from tests.servers import wait_until
from workers.exits import Exit

SENT = 60
LIMIT = 5
WRONG = {"labels": None, "label_set": "not-deployed"}


def test_too_many_dead_letters_in_a_row_stop_the_worker(own_site: Site) -> None:
    few = {"batching__max_messages": 2, "broker__prefetch": 6}
    with own_site.worker(worker__max_dead_in_a_row=LIMIT, **few).running() as worker:
        ids = [own_site.send(fields=WRONG).id for _ in range(SENT)]
        assert worker.wait() == Exit.BURYING
        (stopped,) = worker.events("worker.buries")
        assert int(stopped["dead"]) >= LIMIT
    parked = [id_ for id_ in ids if own_site.is_dead(id_)]
    assert LIMIT <= len(parked) < SENT / 2
    assert own_site.dead(parked[0]).message, "it can be requeued"
    wait_until("the rest is back in its queue", lambda: own_site.queued() == SENT - len(parked), timeout_s=10)
