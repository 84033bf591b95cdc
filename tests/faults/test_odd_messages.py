"""What an older, newer or foreign sender sends is answered or parked, never gone, and never run as code: row A26."""

import json
import pickle
from pathlib import Path

import pytest

from tagging.names import TAG_TICKET
from tests.broker.sites import LABELS, Site
from tests.faults.trial import Trial

ANSWERED = {"neighbour-1", "older-envelope", "newer-minor", "neighbour-2"}


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("which", ["site", "rabbit_site"], ids=["redis", "rabbitmq"])
def test_odd_messages_are_answered_or_parked_and_nothing_of_them_is_run(
    request: pytest.FixtureRequest, which: str
) -> None:
    site: Site = request.getfixturevalue(which)
    trial, sprung = Trial(site, name="odd_messages"), site.folder / "sprung"
    with trial.worker().running() as worker:
        send(site, "neighbour-1", body=[[fields("neighbour-1")], {}, {}])
        send(site, "older-envelope", body=protocol_1("older-envelope"), headers={})
        send(site, "newer-minor", body=[[fields("newer-minor", schema_version="1.9", colour="green")], {}, {}])
        send(site, "newer-major", body=[[fields("newer-major", schema_version="2.0")], {}, {}])
        send(site, "newer-envelope", body={"envelope": 3, "payload": fields("newer-envelope")})
        send(
            site,
            "unknown-task",
            body=[[fields("unknown-task")], {}, {}],
            headers={"task": "tagmill.not_yet", "id": "unknown-task"},
        )
        send(site, "bad-args", body=[["a", "b"], {}, {}])
        pickled = pickle.dumps([[Trap(sprung)], {}, {}])
        site.send_raw(
            pickled,
            headers=headers_of("pickled"),
            content_type="application/x-python-serialize",
            content_encoding="binary",
        )
        send(site, "neighbour-2", body=[[fields("neighbour-2")], {}, {}])
        names = ANSWERED | {"newer-major", "newer-envelope", "unknown-task", "bad-args", "pickled"}
        trial.accepted([(name, name) for name in names])
        trial.settle()
        assert worker.stop() == 0
    fault = trial.report()
    assert (fault.lost, fault.dup_effects) == (0, 0)
    assert trial.witness.answered() == ANSWERED
    assert set(trial.witness.dead()) == names - ANSWERED
    assert not sprung.exists()
    assert pickle.loads(pickled), "the trap works"  # our own
    assert sprung.exists(), "or the test would show nothing"


def fields(ref: str, **others: str) -> dict[str, object]:
    return {"text": f"text {ref}", "labels": list(LABELS), "ref": ref, **others}


def headers_of(id_: str) -> dict[str, str]:
    return {"task": TAG_TICKET, "id": id_}


def protocol_1(id_: str) -> dict[str, object]:
    """Celery's first message protocol, where all is in the body."""
    return {"task": TAG_TICKET, "id": id_, "args": [fields(id_)], "kwargs": {}}


def send(site: Site, id_: str, *, body: object, headers: dict[str, str] | None = None) -> None:
    site.send_raw(json.dumps(body).encode(), headers=headers_of(id_) if headers is None else headers)
