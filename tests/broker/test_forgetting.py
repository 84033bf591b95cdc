"""``tagmill erase`` says which workers have not forgotten, and when they will; what else it does is done."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.broker.intake_desk import Desk, text
from tests.broker.sites import Broker, Site
from tests.commands import Ran, Tagmill
from tests.processes import Worker
from tests.servers import free_port, server_folder

pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True, scope="session")
ERASE = ("erase", "zendesk", "R-1", "--yes", "--json")


@pytest.fixture
def desk(broker: Broker) -> Iterator[Desk]:
    """An intake with one document, and no worker so far."""
    with server_folder("site") as folder, closing(broker.site(folder)) as site, closing(Desk.new(site)) as desk:
        desk.intake.accept([text("1")])
        yield desk


def test_where_no_worker_runs_none_has_anything_to_forget(desk: Desk) -> None:
    erased = desk.command(*ERASE)
    assert (erased.code, erased.rows[0]["workers"], erased.err) == (0, 0, "")


def test_a_worker_of_ours_forgets_and_one_that_cannot_is_named(desk: Desk) -> None:
    with desk.site.worker().running(), stock_worker(desk.site).running():
        erased = desk.command(*ERASE)
    assert (erased.code, erased.rows[0]["workers"]) == (1, 1)
    assert "no answer from stock@tests, told to forget it; what a worker remembers goes 3600 s after" in erased.err


def test_a_broker_that_is_away_keeps_nothing_else_from_being_erased(desk: Desk) -> None:
    erased = without_broker(desk, *ERASE)
    assert (erased.code, erased.rows[0]["intake"]) == (1, 1)
    assert "no worker could be told to forget it (redis://127.0.0.1" in erased.err


def stock_worker(site: Site) -> Worker:
    """A worker of plain Celery on our queues: it knows no such command."""
    environ = {"TAGMILL_BROKER__URL": site.settings.broker.url, "STOCK_LEDGER": str(site.folder / "stock.db")}
    arguments = ("--pool", "solo", "--loglevel", "info", "--without-mingle", "--without-gossip")
    return Worker(
        site.folder,
        environ=environ,
        control=site.client,
        name="stock@tests",
        arguments=arguments,
        app="tests.faults.stock",
    )


def without_broker(desk: Desk, *arguments: str) -> Ran:
    environ = {**desk.site.environ, "TAGMILL_BROKER__URL": f"redis://127.0.0.1:{free_port()}/0"}
    return Tagmill(desk.site.folder, environ)(*arguments)
