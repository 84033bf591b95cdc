"""Every message of a batch has its own events; no event, log or key holds a text."""

from collections import Counter

import pytest

from tagging.names import TAG_TICKET
from tests.broker.intake_desk import Desk, text
from tests.broker.sites import ANSWER_S, CANARY, LABELS, Events, Site
from tests.processes import Worker
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("worker")


def test_each_message_is_received_started_and_succeeded_with_name_runtime_and_result(
    site: Site, events: Events
) -> None:
    ids = [site.send().id for _ in range(20)]
    events.wait_for("task-succeeded", *ids)
    for id_ in ids:
        received, started, succeeded = (e for e in events.of(id_) if e["type"] != "task-sent")
        assert [e["type"] for e in (received, started, succeeded)] == [
            "task-received",
            "task-started",
            "task-succeeded",
        ]
        assert received["name"] == TAG_TICKET
        assert succeeded["runtime"] > 0
        assert f"'id': '{id_}'" in succeeded["result"]
        assert {e["hostname"] for e in (received, started, succeeded)} == {"w1@tests"}


def test_a_failed_message_has_its_own_event_with_the_reason(site: Site, events: Events) -> None:
    good, bad = site.send().id, site.send(fields={"labels": []}).id
    events.wait_for("task-succeeded", good)
    events.wait_for("task-failed", bad)
    assert (
        "none given; ask for at least one" in next(e for e in events.of(bad) if e["type"] == "task-failed")["exception"]
    )


def test_a_retried_message_has_an_event_for_each_attempt(site: Site, events: Events) -> None:
    id_ = site.send("!fail 1").id
    events.wait_for("task-succeeded", id_)
    # The second may be received before the first is said to be retried: publishing comes before saying so.
    assert Counter(events.names_of(id_)) >= Counter(
        {"task-received": 2, "task-started": 2, "task-retried": 1, "task-succeeded": 1}
    )
    retried = next(e for e in events.of(id_) if e["type"] == "task-retried")
    assert "the pass failed, as ordered" in retried["exception"]


def test_a_revoked_message_has_an_event(site: Site, events: Events) -> None:
    later = site.send(countdown=2.0)
    site.revoke(later)
    events.wait_for("task-revoked", later.id)


@pytest.mark.parametrize("fields", [{}, {"labels": []}], ids=["answered", "failed"])
def test_a_text_that_the_sender_did_not_redact_is_shown_by_its_length_and_digest(
    site: Site, events: Events, fields: dict[str, object]
) -> None:
    sent = site.send(fields=fields, argsrepr=f"['{CANARY}']", kwargsrepr=f"{{'text': '{CANARY}'}}")
    events.wait_for("task-succeeded" if not fields else "task-failed", sent.id)
    from_worker = [e for e in events.of(sent.id) if e["hostname"] == "w1@tests"]
    assert CANARY not in str(from_worker)
    assert "chars, blake2b:" in from_worker[0]["args"]
    assert from_worker[0]["kwargs"] == "{}"


def test_a_retry_shows_no_text_either(site: Site, events: Events) -> None:
    sent = site.send("!fail 1", argsrepr=CANARY)
    events.wait_for("task-succeeded", sent.id)
    assert CANARY not in str([e for e in events.of(sent.id) if e["hostname"] == "w1@tests"])


def test_inspect_shows_running_waiting_and_scheduled_messages_without_their_text(site: Site) -> None:
    running = site.send("!sleep 1")
    site.wait_until_running(running)
    waiting, scheduled = site.send(), site.send(countdown=1.5)
    wait_until("one waits", lambda: waiting.id in site.shown("reserved"))
    replies = [
        site.inspect().active(),
        site.inspect().reserved(),
        site.inspect().scheduled(),
        site.inspect().query_task(running.id, waiting.id, scheduled.id),
        site.inspect().stats(),
    ]
    assert CANARY not in str(replies)
    assert running.id in str(replies[0])
    assert "chars, blake2b:" in str(replies[0])
    assert waiting.id in str(replies[1])
    if site.broker.rabbit is None:  # RabbitMQ keeps what is to be delivered later to itself
        assert scheduled.id in str(replies[2])
    for result in (running, waiting, scheduled):
        result.get(timeout=ANSWER_S)


def test_inspect_counts_and_describes_what_the_pool_holds(site: Site) -> None:
    site.send().get(timeout=ANSWER_S)
    (stats,) = site.inspect().stats().values()
    assert stats["total"][TAG_TICKET] > 0
    assert stats["pool"]["model"] == "fake"
    assert stats["pool"]["in-flight"] == 0


def test_nothing_is_left_active_or_reserved(site: Site) -> None:
    results = [site.send(fields={"labels": list(LABELS) if i % 3 else []}) for i in range(30)]
    for result in results:
        result.get(timeout=ANSWER_S, propagate=False)
    wait_until("no task is active", lambda: not site.shown("active"))
    wait_until("no task is reserved", lambda: not site.shown("reserved"))


def test_a_text_is_in_no_key_log_or_result_on_its_way_through_the_intake(
    intake_desk: Desk, site: Site, worker: Worker
) -> None:
    intake_desk.intake.accept([text(f"canary-{i}") for i in range(5)])
    with intake_desk.relay() as log:
        intake_desk.wait_for("done", *(f"canary-{i}" for i in range(5)))
        wait_until(
            "the results are there",
            lambda: site.states([f"canary-{i}" for i in range(5)]) == ["SUCCESS"] * 5,
            timeout_s=ANSWER_S,
        )
    wait_until("no message waits", lambda: site.queued() == 0, timeout_s=ANSWER_S)
    for client in (site.results(), site.cache()):
        with client:
            assert not [key for key in client.scan_iter() if CANARY.encode() in key + (client.dump(key) or b"")]
    assert CANARY not in log.read_text() + worker.text
