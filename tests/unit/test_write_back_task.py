"""A write-back worker waits for a ledger that is away, and hands its message back when it has to stop first."""

from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from celery.exceptions import Reject

from tagging.errors import StoreUnavailable
from tagging.names import WRITE_BACK
from tagging.settings import load
from workers.writeback.app import WriteBackApp, make_app


class Writer:
    """Finds the ledger away so often, then writes."""

    def __init__(self, outages: int) -> None:
        self.outages = outages
        self.written: list[tuple[str, object]] = []

    def write(self, id_: str, body: object) -> str:
        if self.outages > 0:
            self.outages -= 1
            raise StoreUnavailable("ledger: connection refused")
        self.written.append((id_, body))
        return "written"


class Stopping(Event):
    """Does not wait; says what it was told."""

    def __init__(self, stops: bool) -> None:
        super().__init__()
        self._stops = stops

    def wait(self, timeout: float | None = None) -> bool:
        return self._stops


@pytest.fixture
def app() -> Iterator[WriteBackApp]:
    made = make_app(load(environ={}))
    yield made
    made.close()


def run(app: WriteBackApp, writer: Writer, *, stops: bool = False) -> Any:
    app._writer = writer  # type: ignore[assignment]  # all that the task asks of it
    app.stopping = Stopping(stops)
    task = app.tasks[WRITE_BACK]
    task.push_request(id="o-1", args=[{"ref": "T-1"}], kwargs={})
    try:
        return task.run({"ref": "T-1"})
    finally:
        task.pop_request()


def test_it_goes_on_once_the_ledger_is_back(app: WriteBackApp) -> None:
    writer = Writer(outages=3)
    assert run(app, writer) == "written"
    assert writer.written == [("o-1", {"ref": "T-1"})]


def test_it_hands_the_message_back_when_it_stops_first(app: WriteBackApp) -> None:
    writer = Writer(outages=1)
    with pytest.raises(Reject) as rejection:
        run(app, writer, stops=True)
    assert rejection.value.requeue is True
    assert writer.written == []


def test_it_consumes_the_queue_of_orders_alone_and_acknowledges_late(app: WriteBackApp) -> None:
    assert [queue.name for queue in app.conf.task_queues] == ["tag.writeback"]
    assert app.conf.task_acks_late is True
    assert [name for name in app.tasks if name.startswith("tagmill.")] == [WRITE_BACK]
