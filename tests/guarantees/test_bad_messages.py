"""A bad message is parked with its reason, its result is FAILURE, its neighbours in the batch are untouched."""

import json
import pickle
import uuid
from typing import Any

import pytest

from tagging.names import TAG_TICKET
from tests.broker.sites import ANSWER_S, CANARY, LABELS, Site
from tests.processes import Worker
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("worker")

GOOD = {"text": f"a text {CANARY}", "labels": list(LABELS)}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"labels": []}, "labels: none given; ask for at least one"),
        ({"labels": None}, "labels: none given; send labels, or the name of a label_set"),
        ({"labels": None, "label_set": "sales"}, "UnknownLabelSet: no label set 'sales'; this worker knows: "),
        ({"labels": ["a", "A "]}, "labels: 'a' and 'A' are the same; drop one"),
        ({"labels": "billing"}, "labels: expected a list"),
        ({"labels": [1, 2]}, "labels.0: expected a text; labels.1: expected a text"),
        ({"text": CANARY * 2000}, "text: 22,000 characters, limit is 20,000"),
        ({"text": " \n"}, "text: empty after cleaning; send 1 character or more"),
        ({"text": {"nested": CANARY}}, "text: expected a text"),
        ({"text": None}, "text: expected a text"),
        ({"revision": "two"}, "revision: expected a whole number"),
        ({"colour": CANARY}, "colour: unknown field"),
        ({"schema_version": "2.0"}, "UnsupportedVersion: schema_version: 2.0 came, this worker speaks 1.x"),
        ({"model": "another"}, "model: 'another' is asked for; this worker serves 'fake'"),
        ({"template": "no slot"}, "template: must hold exactly one {} for the label, and no other brace"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, dict) else "",
)
def test_a_wrong_message_is_parked_with_its_reason(site: Site, fields: dict[str, Any], reason: str) -> None:
    before, wrong, after = site.send(), site.send(fields=fields), site.send()
    assert before.get(timeout=ANSWER_S)["decision"]
    assert after.get(timeout=ANSWER_S)["decision"]
    error = wrong.get(timeout=ANSWER_S, propagate=False)
    assert wrong.state == "FAILURE"
    assert CANARY not in str(error)
    letter = site.dead(wrong.id)
    assert reason in letter.reason
    assert json.loads(letter.payload)["labels"] == fields.get("labels", list(LABELS))


def test_a_newer_minor_version_is_done_without_what_is_not_known(site: Site) -> None:
    result = site.send(fields={"schema_version": "1.9", "colour": "green"})
    assert result.get(timeout=ANSWER_S)["decision"]


def test_fields_may_come_as_keyword_arguments(site: Site) -> None:
    result = site.client.send_task(TAG_TICKET, kwargs=GOOD, queue="tag.tickets")
    assert result.get(timeout=ANSWER_S)["decision"]


@pytest.mark.parametrize("args", [[], [GOOD, GOOD], ["text"], [None], [[GOOD]]], ids=str)
def test_arguments_that_are_not_one_object_are_parked(site: Site, args: list[Any]) -> None:
    wrong = site.client.send_task(TAG_TICKET, args=args, queue="tag.tickets")
    wrong.get(timeout=ANSWER_S, propagate=False)
    assert wrong.state == "FAILURE"
    assert "one JSON object" in site.dead(wrong.id).reason or "expected a JSON object" in site.dead(wrong.id).reason


@pytest.mark.parametrize(
    ("body", "properties", "reason"),
    [
        (b'[[{"text": "' + CANARY.encode(), {}, "the body cannot be read as application/json"),
        (b"\xff\xfe" + CANARY.encode(), {}, "the body cannot be read as application/json"),
        (b"{}", {}, "the body is not [args, kwargs, embed]"),
        (b'"text"', {}, "the body is not [args, kwargs, embed]"),
        (b"[]", {}, "the body is not [args, kwargs, embed]"),
        (b"[[], {}]", {}, "the body is not [args, kwargs, embed]"),
        (b"null", {}, "the body is not [args, kwargs, embed]"),
        (json.dumps([[GOOD], {}, {"callbacks": 5}]).encode(), {}, "'callbacks' is not a list of signatures"),
        (json.dumps([[GOOD], {}, {"chain": [{}]}]).encode(), {}, "'chain' is not a list of signatures"),
        (json.dumps([[GOOD], {}, {"chord": "x"}]).encode(), {}, "'chord' is not a signature"),
        (
            pickle.dumps(((GOOD,), {}, None)),
            {"content_type": "application/x-python-serialize", "content_encoding": "binary"},
            "content type 'application/x-python-serialize' is refused; send JSON",
        ),
        (CANARY.encode(), {"content_type": "text/plain"}, "content type 'text/plain' is refused; send JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_is_no_task_is_parked_and_whoever_waits_is_told(
    site: Site, worker: Worker, body: bytes, properties: dict[str, str], reason: str
) -> None:
    id_ = str(uuid.uuid4())
    site.send_raw(body, headers={"task": TAG_TICKET, "id": id_}, **properties)
    assert reason in site.dead(id_).reason
    wait_until("its result is a failure", lambda: site.states([id_]) == ["FAILURE"], timeout_s=ANSWER_S)
    assert CANARY not in worker.text


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"task": "tagmill.unknown"}, "no task 'tagmill.unknown' here; this worker does tagmill.tag_ticket"),
        ({"task": 5}, "no task '5' here"),
        ({"task": ["x"]}, "the headers cannot be understood"),
        ({"task": TAG_TICKET, "eta": "tomorrow"}, "invalid ETA value 'tomorrow'"),
        ({"task": TAG_TICKET, "expires": "never"}, "invalid expires value 'never'"),
        ({"task": TAG_TICKET, "retries": "many"}, "the header 'retries' is not a whole number"),
        ({"task": TAG_TICKET, "timelimit": 5}, "the header 'timelimit' is not a pair"),
    ],
    ids=str,
)
def test_headers_that_make_no_sense_are_parked(site: Site, headers: dict[str, Any], reason: str) -> None:
    id_ = str(uuid.uuid4())
    site.send_raw(json.dumps([[GOOD], {}, {}]).encode(), headers={"id": id_, **headers})
    assert reason in site.dead(id_).reason
    assert site.send().get(timeout=ANSWER_S)["decision"], "the worker goes on"


@pytest.mark.parametrize("headers", [{}, {"task": TAG_TICKET}], ids=["no headers", "no id"])
def test_a_message_without_headers_is_parked(site: Site, worker: Worker, headers: dict[str, Any]) -> None:
    parked = len(worker.events("message.parked"))
    site.send_raw(json.dumps([[GOOD], {}, {}]).encode(), headers=headers)
    wait_until("it is parked", lambda: len(worker.events("message.parked")) > parked, timeout_s=ANSWER_S)
    (*_, event) = worker.events("message.parked")
    assert "header" in event["reason"]
    assert CANARY not in worker.text


def test_a_message_of_celerys_first_protocol_is_answered(site: Site) -> None:
    id_ = str(uuid.uuid4())
    body = {"task": TAG_TICKET, "id": id_, "args": [GOOD], "kwargs": {}, "retries": 0}
    site.send_raw(json.dumps(body).encode(), headers={})
    assert site.client.AsyncResult(id_).get(timeout=ANSWER_S)["decision"]


def test_a_task_that_goes_by_another_name_is_answered_in_a_batch_with_others(site: Site) -> None:
    blocker = site.send("!sleep 0.5")
    site.wait_until_running(blocker)
    results = [site.send(shadow="nightly tagging"), site.send()]
    assert [r.get(timeout=ANSWER_S)["batch_size"] for r in results] == [2, 2]
