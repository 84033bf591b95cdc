"""The device pulls batches: while it is busy the next one grows, a ticket waits for a turn of a bulk batch and not for
its end, and heartbeats and ``inspect ping`` are answered.

When a batch closes, message by message: ``tests/unit/test_batcher.py``.
"""

import pytest

from tagging.names import TAG_COMMENT, TAG_MANY
from tests.broker.sites import ANSWER_S, CANARY, LABELS, Events, Site
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("worker")


def test_what_arrives_while_the_device_is_busy_leaves_as_one_batch(site: Site) -> None:
    blocker = site.send("!sleep 1")
    site.wait_until_running(blocker)
    results = [site.send() for _ in range(20)]
    assert {r.get(timeout=ANSWER_S)["batch_size"] for r in results} == {20}


def test_a_batch_closes_at_max_messages(site: Site) -> None:
    blocker = site.send("!sleep 1")
    site.wait_until_running(blocker)
    results = [site.send() for _ in range(40)]
    sizes = [r.get(timeout=ANSWER_S)["batch_size"] for r in results]
    assert sizes == [32] * 32 + [8] * 8


def test_a_batch_closes_at_max_tokens(site: Site) -> None:
    blocker = site.send("!sleep 1")
    site.wait_until_running(blocker)
    # Each costs 2 labels x 512 tokens, which is what the model reads at most; 32 of them make 32,768.
    results = [site.send("长" * 600, fields={"labels": ["甲", "乙"]}) for _ in range(3)]
    many = [site.send("长" * 600, fields={"labels": list("甲乙丙丁戊己庚辛壬癸")}) for _ in range(10)]
    sizes = [r.get(timeout=ANSWER_S)["batch_size"] for r in (*results, *many)]
    # (3 x 2 + 5 x 10) pairs x 512 tokens = 28,672; a sixth of the large ones would make 33,792.
    assert sizes == [8] * 8 + [5] * 5


def test_a_lone_message_waits_no_longer_than_max_wait(site: Site) -> None:
    assert site.send().get(timeout=ANSWER_S)["batch_size"] == 1


def test_one_batch_runs_and_one_is_ready_and_no_more(site: Site) -> None:
    blocker = site.send("!sleep 1.5")
    site.wait_until_running(blocker)
    results = [site.send() for _ in range(80)]
    ids = {result.id for result in results}
    wait_until("one batch is ready", lambda: bool(ids & site.shown("active")), timeout_s=ANSWER_S)
    wait_until("the others wait", lambda: len(ids & site.shown("reserved")) == 48, timeout_s=ANSWER_S)
    assert len(ids & site.shown("active")) == 32
    assert [r.get(timeout=ANSWER_S)["batch_size"] for r in results] == [32] * 64 + [16] * 16


def test_a_live_message_waits_for_a_turn_of_the_bulk_batch_and_not_for_its_end(site: Site) -> None:
    slow = [{"text": f"!sleep 0.15 长{i}{CANARY}" * 20} for i in range(20)]
    bulk = site.client.send_task(TAG_MANY, args=[{"labels": list(LABELS), "items": slow}], queue="tag.bulk")
    site.wait_until_running(bulk)
    live = site.send(task=TAG_COMMENT)
    assert live.get(timeout=ANSWER_S)["batch_size"] == 1
    assert not bulk.ready(), "the bulk batch was done first"
    assert bulk.get(timeout=ANSWER_S)["done"] == 20


def test_its_heart_beats_and_a_ping_is_answered_while_the_device_is_busy(site: Site, events: Events) -> None:
    blocker = site.send("!sleep 2.5")
    site.wait_until_running(blocker)
    before = events.heartbeats
    for _ in range(3):
        assert site.inspect().ping(destination=["w1@tests"])
    site.client.control.heartbeat()
    wait_until("a heartbeat is heard", lambda: events.heartbeats > before, timeout_s=ANSWER_S)
    assert blocker.id in site.shown("active"), "all that came before the batch was done"
    blocker.get(timeout=ANSWER_S)
