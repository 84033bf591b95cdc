"""A message that is sent is accepted once, waited for as long as the caller likes, and found again."""

from collections.abc import Callable

import pytest

from ledger.erasure import Eraser
from tagging.documents import Document
from tests.http.fixtures import Api

TICKET = {"text": "The parcel has not moved for three days", "labels": ["delivery", "login"], "ref": "T-1"}


def ticket(**fields: object) -> dict[str, object]:
    return {**TICKET, **fields}


def test_a_caller_who_waits_gets_the_answer(api: Api) -> None:
    response = api.client.post("/v1/tags", json=TICKET)
    assert response.status_code == 200, response.text
    assert response.json()["tags"][0]["label"] == "delivery"
    assert api.client.get(response.headers["Content-Location"]).json()["state"] == "done"


def test_a_caller_who_does_not_get_it_in_time_is_told_where_it_will_be(open_api: Callable[..., Api]) -> None:
    api = open_api()
    api.queue.worker = False
    response = api.client.post("/v1/tags", json=TICKET, headers={"Prefer": "wait=0"})
    assert response.status_code == 202
    view = api.client.get(response.headers["Location"]).json()
    assert (view["ref"], view["answer"]) == ("T-1", None)


def test_many_messages_are_accepted_in_one_request(api: Api) -> None:
    response = api.client.post("/v1/tasks", json=[ticket(ref=f"T-{i}") for i in range(20)])
    assert response.status_code == 202
    locations = [task["location"] for task in response.json()["tasks"]]
    assert {api.client.get(location).json()["ref"] for location in locations} == {f"T-{i}" for i in range(20)}


def test_of_many_none_is_accepted_when_one_is_wrong(api: Api) -> None:
    response = api.client.post("/v1/tasks", json=[TICKET, ticket(text=" ")])
    assert response.status_code == 422
    assert [(error["index"], error["field"]) for error in response.json()["errors"]] == [(1, "text")]
    assert not api.queue.taken


def test_the_same_request_sent_twice_is_one_task(api: Api) -> None:
    once = {"Idempotency-Key": "delivery-1"}
    first = api.client.post("/v1/tasks", json=TICKET, headers=once).json()["tasks"][0]
    again = api.client.post("/v1/tasks", json=TICKET, headers=once).json()["tasks"][0]
    assert (again["id"], again["outcome"]) == (first["id"], "known")
    assert api.client.post("/v1/tags", json=TICKET, headers=once).json()["id"] == first["id"]


def test_a_key_is_not_taken_for_another_message(api: Api) -> None:
    once = {"Idempotency-Key": "delivery-1"}
    api.client.post("/v1/tasks", json=TICKET, headers=once)
    response = api.client.post("/v1/tasks", json=ticket(text="something else"), headers=once)
    assert (response.status_code, response.json()["type"]) == (422, "urn:tagmill:problem:key-reused")


def test_what_no_broker_takes_is_accepted_all_the_same(api: Api) -> None:
    api.queue.away = True
    response = api.client.post("/v1/tags", json=TICKET, headers={"Prefer": "wait=0"})
    assert response.status_code == 202
    assert api.client.get(response.headers["Location"]).json()["state"] == "accepted"


def test_an_erased_document_is_refused(api: Api) -> None:
    api.client.post("/v1/tags", json=ticket(source="shop"))
    Eraser(api.database).erase(Document("shop", "T-1", "ticket"))
    assert api.client.post("/v1/tasks", json=ticket(source="shop")).status_code == 410
    assert not api.client.get("/v1/tickets/shop/T-1").json().get("tags")


def test_a_document_shows_the_tags_that_stand_and_what_was_sent_about_it(api: Api) -> None:
    for revision in (1, 2):
        api.client.post("/v1/tags", json=ticket(source="shop", revision=revision))
    found = api.client.get("/v1/tickets/shop/T-1").json()
    assert [answer["revision"] for answer in found["tags"]] == [2]
    assert [task["revision"] for task in found["history"]] == [2, 1]


def test_a_reference_may_hold_slashes(api: Api) -> None:
    api.client.post("/v1/tags", json=ticket(source="github", ref="owner/repo#12"))
    assert api.client.get("/v1/tickets/github/owner/repo%2312").json()["ref"] == "owner/repo#12"


def test_events_end_with_the_answer(api: Api) -> None:
    location = api.client.post("/v1/tasks", json=TICKET).headers["Location"]
    events = api.client.get(f"{location}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    assert '"state": "done"' in events.text.strip().splitlines()[-1]


@pytest.mark.parametrize("path", ["/v1/tasks/nobody", "/v1/tickets/shop/nobody", "/nowhere"])
def test_what_is_not_there_is_a_problem_document(api: Api, path: str) -> None:
    response = api.client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.json()["type"] == "urn:tagmill:problem:not-found"


def test_more_than_the_watermark_is_turned_away_with_a_time_to_come_back(open_api: Callable[..., Api]) -> None:
    api = open_api(http__max_unfinished=3)
    api.queue.worker = False
    api.client.post("/v1/tasks", json=[ticket(ref=f"T-{i}") for i in range(3)])
    assert api.client.get("/readyz").status_code == 200  # looks at the intake, as happens once a second
    response = api.client.post("/v1/tasks", json=ticket(ref="T-4"))
    assert (response.status_code, response.json()["type"]) == (429, "urn:tagmill:problem:busy")
    assert int(response.headers["Retry-After"]) >= 5
    assert len(api.queue.taken) == 3
