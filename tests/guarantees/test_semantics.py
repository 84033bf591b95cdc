"""Results, retries, ETA, expiry, revocation, links, chains, groups and chords work as Celery users expect."""

from datetime import UTC, datetime, timedelta

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from tagging.names import TAG_COMMENT, TAG_MANY, TAG_TICKET
from tests.broker.sites import ANSWER_S, CANARY, LABELS, Site
from tests.processes import Worker
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("worker")


def test_each_of_a_hundred_messages_gets_its_own_answer(site: Site) -> None:
    results = [site.send(fields={"ref": f"T-{i}"}) for i in range(100)]
    assert [result.get(timeout=ANSWER_S)["ref"] for result in results] == [f"T-{i}" for i in range(100)]


@pytest.mark.parametrize("task", [TAG_TICKET, TAG_COMMENT])
def test_the_answer_says_what_was_asked_and_what_was_found(site: Site, task: str) -> None:
    answer = site.send(task=task).get(timeout=ANSWER_S)
    assert answer["kind"] == task.rpartition("_")[2]
    assert answer["labels"] == list(LABELS)
    assert sum(answer["scores"]) == pytest.approx(1.0)
    assert answer["model"]["name"] == "fake"


def test_one_message_carries_many_texts_and_a_wrong_one_costs_the_others_nothing(site: Site) -> None:
    items = [{"text": f"one {CANARY}"}, {"text": ""}, {"text": f"three {CANARY}"}]
    body = {"labels": list(LABELS), "items": items}
    result = site.client.send_task(TAG_MANY, args=[body], queue="tag.bulk").get(timeout=ANSWER_S)
    assert (result["done"], result["failed"]) == (2, 1)
    assert result["answers"][1] == {"error": "text: empty after cleaning; send 1 character or more"}


def test_a_link_is_called_with_the_answer(site: Site, helpdesk: Worker) -> None:
    filed = site.client.signature("helpdesk.file", queue="helpdesk").set(task_id="link-1")
    site.send(link=filed)
    assert site.client.AsyncResult("link-1").get(timeout=ANSWER_S) == "filed as billing"


def test_a_link_error_is_called_when_the_task_fails(site: Site, helpdesk: Worker) -> None:
    alarm = site.client.signature("helpdesk.alarm", queue="helpdesk").set(task_id="alarm-1")
    failed = site.send(fields={"labels": []}, link_error=alarm)
    assert site.client.AsyncResult("alarm-1").get(timeout=ANSWER_S) == f"alarm for {failed.id}"


def test_a_chain_goes_on_in_another_apps_worker(site: Site, helpdesk: Worker) -> None:
    asked = chain(site.ask(), site.client.signature("helpdesk.file", queue="helpdesk"), app=site.client)
    assert asked.apply_async().get(timeout=ANSWER_S) == "filed as billing"


def test_a_group_answers_in_order(site: Site) -> None:
    asked = group((site.ask(ref=f"G-{i}") for i in range(10)), app=site.client)
    answers = asked.apply_async().get(timeout=ANSWER_S)
    assert [answer["ref"] for answer in answers] == [f"G-{i}" for i in range(10)]


def test_a_group_and_then_a_task_become_a_chord(site: Site, helpdesk: Worker) -> None:
    asked = chain(
        group((site.ask() for _ in range(5)), app=site.client),
        site.client.signature("helpdesk.count", queue="helpdesk"),
        app=site.client,
    )
    assert asked.apply_async().get(timeout=ANSWER_S) == 5


def test_a_chord_of_forty_calls_its_body_once_all_have_answered(site: Site, helpdesk: Worker) -> None:
    body = site.client.signature("helpdesk.count", queue="helpdesk")
    asked = chord([site.ask() for _ in range(40)], app=site.client)
    assert asked(body).get(timeout=ANSWER_S) == 40


def test_a_chord_with_a_failing_task_fails(site: Site, helpdesk: Worker) -> None:
    body = site.client.signature("helpdesk.count", queue="helpdesk")
    result = chord([site.ask(), site.ask(labels=[]), site.ask()], app=site.client)(body)
    with pytest.raises(Exception, match="none given; ask for at least one"):
        result.get(timeout=ANSWER_S)


def test_a_countdown_delays_the_start(site: Site) -> None:
    sent_at = datetime.now(UTC)
    result = site.send(countdown=1.0)
    result.get(timeout=ANSWER_S)
    assert _done_at(result) >= sent_at + timedelta(seconds=1.0)


def test_an_eta_delays_the_start(site: Site) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=1.5)
    result = site.send(eta=eta)
    result.get(timeout=ANSWER_S)
    assert _done_at(result) >= eta


def test_a_task_that_waited_beyond_its_expiry_is_revoked(site: Site) -> None:
    blocker = site.send("!sleep 1.5")
    site.wait_until_running(blocker)
    late = site.send(expires=0.5)
    with pytest.raises(TaskRevokedError):
        late.get(timeout=ANSWER_S)
    assert late.state == "REVOKED"
    assert blocker.get(timeout=ANSWER_S)


def test_a_waiting_task_can_be_revoked(site: Site) -> None:
    blocker = site.send("!sleep 1.5")
    site.wait_until_running(blocker)
    waiting, neighbour = site.send(), site.send()
    wait_until("both wait in the worker", lambda: {waiting.id, neighbour.id} <= site.shown("reserved"))
    site.revoke(waiting)
    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=ANSWER_S)
    assert neighbour.get(timeout=ANSWER_S)


def test_a_task_with_an_eta_can_be_revoked(site: Site) -> None:
    later = site.send(countdown=2.0)
    site.revoke(later)
    with pytest.raises(TaskRevokedError):
        later.get(timeout=ANSWER_S)


def test_a_task_whose_result_nobody_wants_stores_none(site: Site) -> None:
    result = site.send(ignore_result=True, fields={"ref": "ignored-1"})
    wait_until("the tags stand", lambda: bool(site.tags("ignored-1")), timeout_s=ANSWER_S)
    site.send().get(timeout=ANSWER_S)  # the batch after it
    assert site.states([result.id]) == ["PENDING"]


def test_a_rate_limit_holds(site: Site) -> None:
    site.client.control.rate_limit(TAG_COMMENT, "10/s", **_one_reply)
    try:
        results = [site.send(task=TAG_COMMENT) for _ in range(6)]
        for result in results:
            result.get(timeout=ANSWER_S)
        done = sorted(map(_done_at, results))
        assert done[-1] - done[0] >= timedelta(seconds=0.4)
    finally:
        site.client.control.rate_limit(TAG_COMMENT, None, **_one_reply)


def test_a_failure_of_the_device_is_tried_again_later(site: Site) -> None:
    results = [site.send(order) for order in ("!fail 2", "!oom 2")]
    for result in results:
        assert result.get(timeout=ANSWER_S)["decision"]
        assert not site.is_dead(result.id)


def test_after_the_last_attempt_it_fails_and_is_parked(site: Site) -> None:
    reasons = {
        "!fail": "EngineError: the pass failed, as ordered",
        "!oom": "DeviceOutOfMemory: the pass did not fit, as ordered",
        "!nan": "NotFinite: the model answered NaN or Inf for this text",
    }
    failing = {order: site.send(order) for order in reasons}  # together: the attempts of all wait at the same time
    neighbours = [site.send() for _ in range(5)]
    for order, reason in reasons.items():
        with pytest.raises(Exception, match=reason.partition(": ")[2]):
            failing[order].get(timeout=ANSWER_S)
        letter = site.dead(failing[order].id)
        assert (letter.reason, letter.attempts) == (reason, 3)
    assert all(n.get(timeout=ANSWER_S)["decision"] for n in neighbours)


def test_a_text_that_kills_the_engine_is_parked_and_its_neighbours_are_answered(site: Site) -> None:
    blocker = site.send("!sleep 0.5")
    site.wait_until_running(blocker)
    neighbours = [site.send() for _ in range(3)]
    result = site.send("!exit")
    assert [n.get(timeout=60)["decision"] for n in neighbours]
    with pytest.raises(Exception, match="engine process died"):
        result.get(timeout=60)
    assert site.dead(result.id).attempts == 3


_one_reply = {"reply": True, "timeout": 5, "limit": 1, "destination": ["w1@tests"]}


def _done_at(result: AsyncResult) -> datetime:
    done: datetime = result.date_done
    return done if done.tzinfo else done.replace(tzinfo=UTC)
