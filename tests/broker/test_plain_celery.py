"""A worker that Celery's own command line starts, with options of Celery's, consumes and answers as it was told to."""

import socket

import pytest

from tests.broker.sites import ANSWER_S, CANARY, Site


@pytest.mark.parametrize("broker", ["redis"], indirect=True, scope="session")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [((), None), (("-Q", "tag.bulk"), None), (("-n", "other@%h"), "other@")],
    ids=["no options", "-Q tag.bulk", "-n other@%h"],
)
def test_plain_command_lines_work(own_site: Site, arguments: tuple[str, ...], name: str | None) -> None:
    hostname = f"{name or 'celery@'}{socket.gethostname()}"
    worker = own_site.worker(*arguments, name=hostname)
    worker.command = [*worker.command[: worker.command.index("worker") + 1], *arguments]
    with worker.running():
        body = {"labels": ["a", "b"], "items": [{"text": CANARY}]}
        result = own_site.client.send_task("tagmill.tag_many", args=[body], queue="tag.bulk")
        assert result.get(timeout=ANSWER_S)["done"] == 1
        (queues,) = own_site.client.control.inspect(destination=[hostname], timeout=5, limit=1).active_queues().values()
        assert {q["name"] for q in queues} >= {"tag.bulk"}
        assert len(queues) == (1 if "-Q" in arguments else 3)
        assert worker.stop() == 0
